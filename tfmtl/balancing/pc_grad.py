"""PCGrad: project a conflicting gradient on the normal plane of the other."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.orders import random_orders
from tfmtl.balancing.surgery import GradientSurgery, State

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class PCGrad(GradientSurgery):
    """Projecting conflicting gradients.

    ```
    for each task i:  g ← g_i
      for the other tasks j in a fresh random order:
        if g · g_j < 0:  g ← g − (g · g_j / ‖g_j‖²) g_j        g_j as it was
    update = Σ_i g
    ```

    Without conflicts this is the sum. Draws: `weights` needs a `seed` from T = 3 on.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, -1.0], [-1.0, 2.0]])
        >>> print(balancing.PCGrad().weights(gram, seed=0)[0].numpy().round(3))
        [2.  1.5]

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
    algorithm 1.
    """

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        num_tasks = norms.shape[0]
        orders = random_orders(num_tasks, seed)
        projected = ops.diag(norms)  # row i: the gradient of i, by unit gradients
        for k in range(num_tasks - 1):
            other = ops.one_hot(orders[:, k], num_tasks, dtype=norms.dtype)
            products = ops.sum(projected * ops.matmul(other, cosines), axis=1)
            projected = projected - ops.minimum(products, 0.0)[:, None] * other
        return ops.sum(projected, axis=0), state
