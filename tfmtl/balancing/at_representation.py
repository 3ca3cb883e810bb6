"""Surgery of gradients at what the towers read: another, cheaper algorithm."""

from dataclasses import dataclass

import keras

from tfmtl.balancing.surgery import GradientSurgery
from tfmtl.serializable import Serializable


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class AtRepresentation(Serializable):
    """A method whose Gram matrix is of gradients at the towers' inputs.

    ```
    G_ij = Σ_examples dL_i/dF · dL_j/dF,   F what the towers read
    ```

    It backpropagates once through what is shared, not T times, and is not the method
    on the parameters: conflicts there and here differ. Where each tower reads a tensor
    of its own, as behind the gates of MMoE or PLE, all products of two tasks are 0 and
    there is nothing to balance; it is for a shared bottom.

    Args:
        surgery: The method.

    Example:
        >>> import tfmtl.balancing as balancing
        >>> balancing.AtRepresentation(balancing.PCGrad()).surgery
        PCGrad()

    Source: the feature-level gradients of Sener and Koltun, "Multi-Task Learning as
    Multi-Objective Optimization", NeurIPS 2018 (MGDA-UB), and of Liu et al., "Towards
    Impartial Multi-task Learning", ICLR 2021 (IMTL-G).
    """

    surgery: GradientSurgery
