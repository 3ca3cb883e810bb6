"""Aligned-MTL: make the principal components of the gradients equally long."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.solvers import epsilon, quotient
from tfmtl.balancing.surgery import GradientSurgery, State

Tensor = Any

_SHORTEST = 1e-5  # component of unit gradients in float32 that is no rounding


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class AlignedMTL(GradientSurgery):
    """Independent component alignment, scaled by the least component.

    ```
    G = V Λ Vᵀ,  without the λ that are 0
    w = √λ_min V Λ^(−½) Vᵀ 1
    ```

    The paper's update for equal preferences of 1: it gives the sum of equal gradients,
    and of gradients at right angles and of equal length.

    How many λ are 0 is read from the unit gradients, whatever the tasks' scales: a
    component of them shorter than 1e-5 is the rounding of float32 and counts as 0. For
    a G in float32 that limit is 1e-3: gradients more alike are as good as equal, the
    update that of equal ones. It is right to 1e-5 of itself up to scales of 1e6 and
    1e-6, to 1e-5 of the largest gradient beyond.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, 0.0], [0.0, 4.0]])
        >>> print(balancing.AlignedMTL().weights(gram)[0].numpy().round(3))
        [1.  0.5]

    Source: Senushkin et al., "Independent Component Alignment for Multi-Task Learning",
    CVPR 2023, algorithm 1.
    """

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        rounding = max(_SHORTEST**2, 10 * norms.shape[0] * epsilon(norms.dtype))
        lengths, cosines = (ops.cast(x, "float64") for x in (norms, cosines))
        squares, directions = ops.eigh(ops.where(lengths > 0, cosines, 0.0))
        there = squares > rounding
        roots = ops.sqrt(ops.where(there, squares, 0.0))
        rows = lengths[:, None] * directions * roots  # the gradients, on T axes
        left, values, _ = ops.svd(rows, full_matrices=False)
        kept = ops.arange(norms.shape[0]) < ops.sum(ops.cast(there, "int32"))
        least = ops.min(ops.where(kept, values, ops.max(values)))
        shrunk = ops.where(kept, quotient(least, values), 0.0)
        weights = ops.matmul(left, shrunk * ops.sum(left, axis=0))
        return ops.cast(weights * lengths, norms.dtype), state
