"""GradNorm: gradients of one length, longer for tasks that train slowly."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.balancing.adam import adam_state, adam_step, check_rate
from tfmtl.balancing.loss_weighting import (
    LossWeighting,
    State,
    known,
    mean_where,
    softmax,
)
from tfmtl.balancing.solvers import epsilon

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class GradNorm(LossWeighting):
    """Gradient normalisation.

    ```
    w = T softmax(v)
    n_k = w_k ‖∇L_k‖,  r_k = (L_k / L_k(0)) / mean of the same over tasks
    minimise over v:  Σ_k |n_k − mean(n) r_k^alpha|      with the target as a constant
    ```

    L_k(0) is the first loss of the task. v is trained by Adam on the gradient divided
    by mean(n), which makes it indifferent to the losses' units. Means are over the
    tasks that are there.

    State: `values`, v, what Adam remembers of it, and `first`, L(0), 0 where unknown.

    Args:
        alpha: How strongly slow tasks are pulled, at least 0. Defaults to 1.5.
        learning_rate: Adam's, of v. Defaults to 0.025.

    Raises:
        ValueError: If `alpha` is below 0 or the learning rate not above it.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> rule = balancing.GradNorm()
        >>> state, losses = rule.initial_state(2), keras.ops.array([1.0, 1.0])
        >>> state = rule.update(state, losses, gram=keras.ops.diag([1.0, 100.0]))
        >>> print(rule.weights(state, losses).numpy().round(3))
        [1.025 0.975]

    Source: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing
    in Deep Multitask Networks", ICML 2018, algorithm 1; weights by a softmax in place
    of a division by their sum.
    """

    alpha: float = 1.5
    learning_rate: float = 0.025

    needs_gram: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_rate(self.learning_rate)
        if not self.alpha >= 0:
            raise ValueError(
                f"`alpha` should be at least 0. Received: alpha={self.alpha!r}"
            )

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """v and L(0) of 0."""
        nothing = ops.zeros((num_tasks,), dtype)
        return {**adam_state(nothing), "first": nothing}

    def weights(self, state: State, losses: Tensor, seed: Any = None) -> Tensor:
        """See `LossWeighting`."""
        return losses.shape[0] * softmax(state["values"])

    def update(
        self,
        state: State,
        losses: Tensor,
        gram: Tensor | None = None,
        losses_after: Tensor | None = None,
    ) -> State:
        """A step of Adam."""
        squares = ops.diagonal(gram)
        there = ops.logical_and(known(losses), known(squares))
        losses = ops.where(there, losses, 1.0)
        lengths = ops.sqrt(ops.where(there, squares, 0.0))

        unknown = ops.logical_and(there, state["first"] <= 0)
        first = ops.where(unknown, losses, state["first"])
        rates = losses / ops.where(first > 0, first, 1.0)
        rates = rates / ops.maximum(mean_where(there, rates), 1e-30)

        weights = self.weights(state, losses)
        mean = mean_where(there, weights * lengths)
        lengths = lengths / ops.where(mean > 0, mean, 1.0)
        target = ops.power(rates, self.alpha)
        above = weights * lengths - target
        off = ops.abs(above) > 100 * epsilon(target.dtype) * target
        slopes = ops.where(ops.logical_and(there, off), ops.sign(above) * lengths, 0.0)
        gradient = weights * (slopes - ops.mean(weights * slopes))
        state = adam_step(state, gradient, self.learning_rate, there)
        return {**state, "first": first}
