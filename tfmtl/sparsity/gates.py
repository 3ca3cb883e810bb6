"""The gates of a model, wherever they are, and how many are open."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tfmtl.layers.hard_concrete_gate import HardConcreteGate, L0Penalty


class OpenShare(NamedTuple):
    """How open gates are, as counts over all gates of a model.

    Attributes:
        total: Number of gates.
        served: Gates that are not exactly 0 in evaluation and serving.
        expected: Gates to expect open in training, as far as they are penalised:
            of those of a `SoftmaxGate` one for each output is free.
    """

    total: int
    served: int
    expected: float


def gates(model: keras.Model) -> list[HardConcreteGate]:
    """All hard-concrete gates of a built model, however deeply nested.

    Args:
        model: A built Keras model.

    Example:
        >>> import keras, tfmtl
        >>> inputs = keras.Input((4, 8))
        >>> outputs = tfmtl.layers.SubNetworkRouting(3, 16)(inputs)
        >>> [gate.shape for gate in tfmtl.sparsity.gates(keras.Model(inputs, outputs))]
        [(3, 4)]
    """
    found = (getattr(weight, "regularizer", None) for weight in model.weights)
    return [penalty.gate for penalty in found if isinstance(penalty, L0Penalty)]


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
    found = gates(model)
    served = sum(
        int(np.sum(ops.convert_to_numpy(g(training=False)) != 0)) for g in found
    )
    expected = sum(float(ops.convert_to_numpy(g.expected_open())) for g in found)
    return OpenShare(sum(int(np.prod(g.shape)) for g in found), served, expected)
