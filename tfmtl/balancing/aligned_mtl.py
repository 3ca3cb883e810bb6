"""Aligned-MTL: make the principal components of the gradients equally long."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.solvers import epsilon, quotient
from tfmtl.balancing.surgery import GradientSurgery, State

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class AlignedMTL(GradientSurgery):
    """Independent component alignment, scaled by the least component.

    ```
    G = V Λ Vᵀ,  without the λ that are 0
    w = √λ_min V Λ^(−½) Vᵀ 1
    ```

    The paper's update for equal preferences of 1: it gives the sum of equal gradients,
    and of gradients at right angles and of equal length. A λ is 0 where it is within
    the rounding of G, that of Σ_i v_i g_i with the lengths of its terms. The
    eigenvectors are those of G in float64.

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
        gram = ops.cast(norms[:, None] * cosines * norms, "float64")
        values, vectors = ops.eigh(gram)
        terms = ops.matmul(ops.cast(norms, "float64"), ops.abs(vectors))
        rounding = 10 * norms.shape[0] * epsilon(norms.dtype)
        values = ops.where(values > rounding * terms * terms, values, 0.0)
        least = ops.min(ops.where(values > 0, values, ops.max(values)))
        lengths = ops.sqrt(quotient(least, values))
        weights = ops.matmul(vectors, lengths * ops.sum(vectors, axis=0))
        return ops.cast(weights, norms.dtype) * norms, state
