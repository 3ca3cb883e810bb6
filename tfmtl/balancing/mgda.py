"""MGDA: the shortest vector in the hull of the gradients."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.solvers import quotient, shortest
from tfmtl.balancing.surgery import GradientSurgery, State, num_present

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class MGDA(GradientSurgery):
    """Multiple-gradient descent algorithm.

    ```
    α = the least of ‖Σ_i α_i g_i‖ on the simplex
    update = T Σ_i α_i g_i
    ```

    The paper's update is the convex combination itself. Small gradients rule it; where
    gradients are of unlike length, so are the tasks' shares in it.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, 0.0], [0.0, 4.0]])
        >>> print(balancing.MGDA().weights(gram)[0].numpy().round(3))
        [1.6 0.4]

    Source: Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization",
    NeurIPS 2018, eq. 3; solved exactly in place of Frank-Wolfe.
    """

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        inverse = quotient(1.0, norms)
        longest = ops.max(inverse)
        shares = shortest(cosines, quotient(inverse, longest))
        return quotient(num_present(norms) * shares, longest), state
