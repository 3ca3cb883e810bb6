"""Dynamic weight average: more weight to tasks whose loss falls slowly."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.balancing.loss_weighting import LossWeighting, State, known, softmax

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class DWA(LossWeighting):
    """Dynamic weight average.

    ```
    r_k = L_k(t − 1) / L_k(t − 2)        means over the last two epochs; 1 before
    w = T softmax(r / temperature)
    ```

    An epoch in which a task has no labels leaves its last two as they are.

    State: `total` and `count` of the epoch's losses, `last` and `before`, the means of
    the two epochs before, 0 where there is none.

    Args:
        temperature: Higher for weights more alike, above 0. Defaults to 2.0.

    Raises:
        ValueError: If `temperature` is not above 0.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> rule = balancing.DWA()
        >>> rule.weights(rule.initial_state(2), keras.ops.ones(2)).numpy().tolist()
        [1.0, 1.0]

    Source: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019,
    eq. 7.
    """

    temperature: float = 2.0

    needs_epochs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                "`temperature` should be above 0. "
                f"Received: temperature={self.temperature!r}"
            )

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """No epoch yet."""
        nothing = ops.zeros((num_tasks,), dtype)
        return dict.fromkeys(("total", "count", "last", "before"), nothing)

    def weights(self, state: State, losses: Tensor, seed: Any = None) -> Tensor:
        """See `LossWeighting`."""
        two = state["before"] > 0
        ratio = state["last"] / ops.where(two, state["before"], 1.0)
        ratio = ops.where(two, ratio, 1.0)
        return losses.shape[0] * softmax(ratio / self.temperature)

    def update(
        self,
        state: State,
        losses: Tensor,
        gram: Tensor | None = None,
        losses_after: Tensor | None = None,
    ) -> State:
        """Adds the losses to the epoch's."""
        there = known(losses)
        total = state["total"] + ops.where(there, losses, 0.0)
        count = state["count"] + ops.cast(there, losses.dtype)
        return {**state, "total": total, "count": count}

    def epoch_end(self, state: State) -> State:
        """The epoch's means become the last."""
        some, nothing = state["count"] > 0, ops.zeros_like(state["count"])
        mean = state["total"] / ops.maximum(state["count"], 1.0)
        return {
            "total": nothing,
            "count": nothing,
            "last": ops.where(some, mean, state["last"]),
            "before": ops.where(some, state["last"], state["before"]),
        }
