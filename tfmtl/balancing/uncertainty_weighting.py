"""Uncertainty weighting: each task's noise is learned and divides its loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.adam import adam_state, adam_step, check_rate
from tfmtl.balancing.loss_weighting import LossWeighting, State, check_count

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class UncertaintyWeighting(LossWeighting):
    """Homoscedastic uncertainty.

    ```
    minimise over the network and s:  Σ_k f_k e^(−s_k) L_k + s_k / 2
    f_k = ½ for a regression's squared error, else 1;   w_k = f_k e^(−s_k)
    ```

    s is the logarithm of the noise's variance. It starts at 0 and is trained by Adam
    on its own gradient, ½ − w_k L_k; nothing bounds it. Losses may be below 0.

    State: `values`, s, and what Adam remembers of it.

    Args:
        regression: Which tasks are regressions, one boolean for each. Defaults to
            `None`, none of them.
        learning_rate: Adam's, of s. Defaults to 0.001.

    Raises:
        ValueError: If the learning rate is not above 0, or there is not one boolean
            for each task.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> rule = balancing.UncertaintyWeighting(learning_rate=0.1)
        >>> state, losses = rule.initial_state(2), keras.ops.array([0.1, 2.0])
        >>> state = rule.update(state, losses)
        >>> print(rule.weights(state, losses).numpy().round(3))
        [1.105 0.905]

    Source: Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics", CVPR 2018, eq. 7 and 10.
    """

    regression: Sequence[bool] | None = None
    learning_rate: float = 0.001

    def __post_init__(self) -> None:
        check_rate(self.learning_rate)
        if self.regression is not None:
            object.__setattr__(self, "regression", tuple(self.regression))

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """s of 0."""
        check_count("regression", self.regression, num_tasks)
        return adam_state(ops.zeros((num_tasks,), dtype))

    def weights(self, state: State, losses: Tensor, seed: Any = None) -> Tensor:
        """See `LossWeighting`."""
        weights = ops.exp(-state["values"])
        if self.regression is None:
            return weights
        factors = [0.5 if regression else 1.0 for regression in self.regression]
        return weights * ops.convert_to_tensor(factors, weights.dtype)

    def update(
        self,
        state: State,
        losses: Tensor,
        gram: Tensor | None = None,
        losses_after: Tensor | None = None,
    ) -> State:
        """A step of Adam."""
        there = ops.logical_and(ops.isfinite(losses), ops.not_equal(losses, 0.0))
        slope = 0.5 - self.weights(state, losses) * losses
        return adam_step(state, slope, self.learning_rate, there)
