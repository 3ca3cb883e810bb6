"""FAMO: all losses fall at one rate, known from the losses alone."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.balancing.adam import adam_state, adam_step, check_rate
from tfmtl.balancing.loss_weighting import (
    LossWeighting,
    State,
    known,
    softmax,
)

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class FAMO(LossWeighting):
    """Fast adaptive multitask optimization.

    ```
    z = softmax(v),  w_k = T (z_k / L_k) / Σ_j (z_j / L_j)
    after the step:  δ_k = log L_k − log L_k(after)
    v by Adam on the gradient  Jᵀ δ + decay v,  J of the softmax
    ```

    The paper's weights sum to 1. Sums and T are over the tasks that are there; another
    has weight 0.

    L(after) is that of the same batch with the same draws, as of dropout: what changed
    is the network alone. Where an optimizer accumulates gradients, most steps change
    nothing, δ = 0, and v learns from the last batch of each accumulation only.

    State: `values`, v, and what Adam remembers of it.

    Args:
        learning_rate: Adam's, of v. Defaults to 0.025.
        decay: How strongly v is pulled to 0, at least 0. Defaults to 0.001.

    Raises:
        ValueError: If the learning rate is not above 0 or `decay` below it.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> rule = balancing.FAMO()
        >>> state, losses = rule.initial_state(2), keras.ops.array([1.0, 3.0])
        >>> print(rule.weights(state, losses).numpy().round(3))
        [1.5 0.5]
        >>> after = keras.ops.array([0.9, 2.9])
        >>> state = rule.update(state, losses, losses_after=after)
        >>> print(rule.weights(state, losses).numpy().round(3))
        [1.481 0.519]

    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023,
    algorithm 1.
    """

    learning_rate: float = 0.025
    decay: float = 0.001

    needs_losses_after: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_rate(self.learning_rate)
        if not self.decay >= 0:
            raise ValueError(
                f"`decay` should be at least 0. Received: decay={self.decay!r}"
            )

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """v of 0."""
        return adam_state(ops.zeros((num_tasks,), dtype))

    def weights(self, state: State, losses: Tensor, seed: Any = None) -> Tensor:
        """See `LossWeighting`."""
        there = known(losses)
        logits = state["values"] - ops.log(ops.where(there, losses, 1.0))
        count = ops.sum(ops.cast(there, losses.dtype))
        return count * softmax(logits, there)

    def update(
        self,
        state: State,
        losses: Tensor,
        gram: Tensor | None = None,
        losses_after: Tensor | None = None,
    ) -> State:
        """A step of Adam."""
        there = ops.logical_and(known(losses), known(losses_after))
        before = ops.log(ops.where(there, losses, 1.0))
        fall = before - ops.log(ops.where(there, losses_after, 1.0))
        shares = softmax(state["values"], there)
        gradient = shares * (fall - ops.sum(shares * fall))
        gradient = gradient + self.decay * state["values"]
        return adam_step(state, gradient, self.learning_rate, there)
