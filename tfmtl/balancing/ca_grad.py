"""CAGrad: near the mean gradient, the update that helps the worst task most."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.balancing.solvers import quotient, worst_case
from tfmtl.balancing.surgery import GradientSurgery, State, num_present

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class CAGrad(GradientSurgery):
    """Conflict-averse gradient descent.

    ```
    g_0 = mean of the g_i,  g_w = Σ_i w_i g_i
    w = the least of g_w · g_0 + c ‖g_0‖ ‖g_w‖ on the simplex
    d = g_0 + c ‖g_0‖ / ‖g_w‖ g_w
      = the greatest min_i g_i · d of ‖d − g_0‖ ≤ c ‖g_0‖
    update = T d / (1 + c)
    ```

    The paper's update is d; equal gradients g give d = (1 + c) g. The authors' code
    divides by 1 + c², by 1 + c or by nothing.

    Args:
        c: Radius around the mean gradient, in its lengths, at least 0; at 0 the update
            is the sum, from 1 on no task is made worse. Defaults to 0.5.

    Raises:
        ValueError: If `c` is below 0.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, 0.0], [0.0, 4.0]])
        >>> print(balancing.CAGrad().weights(gram)[0].numpy().round(3))
        [1.412 0.667]

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
    NeurIPS 2021, algorithm 1.
    """

    c: float = 0.5

    def __post_init__(self) -> None:
        if not self.c >= 0:
            raise ValueError(f"`c` should be at least 0. Received: c={self.c!r}")

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        count = num_present(norms)
        mean = quotient(norms, count)
        slopes = ops.matmul(cosines, mean)
        radius = self.c * ops.sqrt(ops.maximum(ops.sum(mean * slopes), 0.0))
        prices = quotient(1.0, norms)
        prices = quotient(prices, ops.max(prices))
        step = worst_case(cosines, slopes, prices, radius)
        return (mean + step) * count / (1.0 + self.c), state
