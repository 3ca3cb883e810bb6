"""UPGrad: project every gradient on the directions that are at odds with no task."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.solvers import dual_cone
from tfmtl.balancing.surgery import GradientSurgery, State

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class UPGrad(GradientSurgery):
    """Unconflicting projection of gradients, or Jacobian descent.

    ```
    π(g) = the vector nearest to g of those with g_j · x ≥ 0 for all j
    update = Σ_i π(g_i)
    ```

    The paper's update is the mean. It makes no task worse, and without conflicts it is
    the sum.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, -1.0], [-1.0, 2.0]])
        >>> print(balancing.UPGrad().weights(gram)[0].numpy().round(3))
        [2.  1.5]

    Source: Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024,
    section 3.
    """

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        return ops.matmul(norms, dual_cone(cosines)), state
