"""GradVac: raise the cosine of two gradients to the one that is usual for them."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.orders import random_orders
from tfmtl.balancing.solvers import quotient
from tfmtl.balancing.surgery import GradientSurgery, State

Tensor = Any

_HIGHEST_TARGET = 0.999


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class GradVac(GradientSurgery):
    """Gradient vaccine.

    ```
    for each task i:  g ← g_i
      for the other tasks j in a fresh random order:
        φ = cos(g, g_j),  t = t_ij
        if φ < t:  g ← g + ‖g‖ (t √(1−φ²) − φ √(1−t²)) / (‖g_j‖ √(1−t²)) g_j
        t_ij ← (1 − decay) t_ij + decay φ
    update = Σ_i g
    ```

    The targets t start at 0, where the first step is PCGrad's. Above 0.999 a target is
    taken as 0.999: that of 1 would need infinitely much of g_j. A pair with an absent
    task keeps its target.

    State: `targets`, `(T, T)`. Draws: `weights` needs a `seed` from T = 3 on.

    Args:
        decay: Share of the newest cosine in a target, in [0, 1]. Defaults to 0.5.

    Raises:
        ValueError: If `decay` is not in [0, 1].

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, 0.5], [0.5, 1.0]])
        >>> method = balancing.GradVac()
        >>> weights, state = method.weights(gram, method.initial_state(2), seed=0)
        >>> weights.numpy().tolist(), float(state["targets"][0, 1])
        ([1.0, 1.0], 0.25)

    Source: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task
    Optimization in Massively Multilingual Models", ICLR 2021, algorithm 1.
    """

    decay: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise ValueError(
                f"`decay` should be in [0, 1]. Received: decay={self.decay!r}"
            )

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """Targets of 0."""
        return {"targets": ops.zeros((num_tasks, num_tasks), dtype)}

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        num_tasks, targets = norms.shape[0], ops.cast(state["targets"], norms.dtype)
        present = ops.cast(norms > 0, norms.dtype)
        orders = random_orders(num_tasks, seed)
        changed = ops.diag(norms)  # row i: the gradient of i, by unit gradients
        for k in range(num_tasks - 1):
            other = ops.one_hot(orders[:, k], num_tasks, dtype=norms.dtype)
            square = ops.sum(ops.matmul(changed, cosines) * changed, axis=1)
            length = ops.sqrt(ops.maximum(square, 0.0))
            products = ops.sum(changed * ops.matmul(other, cosines), axis=1)
            cosine = ops.clip(quotient(products, length), -1.0, 1.0)
            pair = ops.sum(targets * other, axis=1)
            target = ops.minimum(pair, _HIGHEST_TARGET)
            slope = ops.sqrt((1.0 - cosine * cosine) / (1.0 - target * target))
            both = present * ops.matmul(other, present)
            gain = ops.where(cosine < target, both * length, 0.0)
            gain = gain * (target * slope - cosine)
            changed = changed + gain[:, None] * other
            moved = both * self.decay * (cosine - pair)
            targets = targets + moved[:, None] * other
        return ops.sum(changed, axis=0), {"targets": targets}
