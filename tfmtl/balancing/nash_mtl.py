"""Nash-MTL: the tasks bargain for the direction of the update."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.balancing.solvers import bargain
from tfmtl.balancing.surgery import GradientSurgery, State

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class NashMTL(GradientSurgery):
    """The Nash bargaining solution.

    ```
    G α = 1 / α,  α > 0
    w = α √‖G‖   with the Frobenius norm
    ```

    The factor, which the authors' code has too, gives the update the units of a
    gradient, and the sum of equal gradients; α alone makes every update √T long. The
    code's limit to the update's norm is left to the optimizer. Multiplying a task's
    gradient leaves the direction of the update as it is, so that it goes with no rule
    of loss weighting. Where some of the gradients cancel, no α exists, and that of the
    nearest gradients that do not is taken.

    Args:
        iterations: Most steps of the solver, which mostly needs fewer, and up to 40
            where gradients cancel. Defaults to 20.

    Raises:
        ValueError: If `iterations` is not above 0.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[3.0, 0.0], [0.0, 4.0]])
        >>> print(balancing.NashMTL().weights(gram)[0].numpy().round(3))
        [1.291 1.118]

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
    claim 3.1; solved by Newton's method in place of a sequence of convex programs.
    """

    iterations: int = 20

    ignores_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.iterations > 0:
            raise ValueError(
                f"`iterations` should be above 0. Received: iterations="
                f"{self.iterations!r}"
            )

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        gram = norms[:, None] * cosines * norms
        size = ops.sqrt(ops.sqrt(ops.sum(gram * gram)))
        return bargain(cosines, self.iterations) * size, state
