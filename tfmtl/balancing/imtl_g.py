"""IMTL-G: the combination that lies equally along every gradient."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.balancing.solvers import quotient, ridged
from tfmtl.balancing.surgery import GradientSurgery, State, num_present

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class IMTLG(GradientSurgery):
    """Impartial multi-task learning, the balance of gradients.

    ```
    g = Σ_i α_i g_i  with  g · g_i / ‖g_i‖ the same > 0 for all i,  Σ_i |α_i| = 1
    update = T g
    ```

    The paper has Σ_i α_i = 1, the same where no α is negative. With negative ones its
    sum passes 0, where g grows without bound and then turns against all tasks.
    Multiplying a task's gradient leaves the direction of g as it is, so that it goes
    with no rule of loss weighting.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, 0.0], [0.0, 4.0]])
        >>> print(balancing.IMTLG().weights(gram)[0].numpy().round(3))
        [1.333 0.667]

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.1.
    """

    ignores_scale: ClassVar[bool] = True

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        present = ops.cast(norms > 0, norms.dtype)
        shares = ops.solve(ridged(cosines), present[:, None])[:, 0]
        total = ops.sum(quotient(ops.abs(shares), norms))
        return quotient(num_present(norms) * shares, total), state
