"""How open the gates of a model are."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmtl.layers.gates import gates
from tfmtl.layers.hard_concrete_gate import HardConcreteGate


class OpenShare(NamedTuple):
    """How open gates are, as counts.

    Attributes:
        total: Number of gates.
        served: Gates that are not exactly 0 in evaluation and serving.
        expected: Gates to expect open in training, as far as they are penalised:
            of those of a `SoftmaxGate` one for each output is free.
        between: Gates that are neither 0 nor 1 in evaluation and serving.
    """

    total: int
    served: int
    expected: float
    between: int


def open_share(model: keras.Model) -> OpenShare:
    """Counts the open gates of a model.

    Args:
        model: A built Keras model.

    Example:
        >>> import keras, tfmtl
        >>> inputs = keras.Input((4, 8))
        >>> outputs = tfmtl.layers.SubNetworkRouting(3, 16)(inputs)
        >>> tfmtl.sparsity.open_share(keras.Model(inputs, outputs)).served
        12
    """
    return open_share_of(gates(model))


def open_share_of(found: Sequence[HardConcreteGate]) -> OpenShare:
    """Counts how many of some gates are open."""
    z = [_numpy(gate(training=False)).ravel() for gate in found]
    every = np.concatenate([np.zeros(0), *z])
    return OpenShare(
        total=every.size,
        served=int(np.sum(every != 0)),
        expected=sum(float(_numpy(gate.expected_open())) for gate in found),
        between=int(np.sum((every != 0) & (every != 1))),
    )


def open_expected_of(found: Sequence[HardConcreteGate]) -> float:
    """The share of some gates to expect open in training, 1 for a free one."""
    p = np.concatenate([_numpy(gate.penalised()).ravel() for gate in found])
    return float(np.mean(np.where(p > 0, p, 1)))


def _numpy(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(tensor)
