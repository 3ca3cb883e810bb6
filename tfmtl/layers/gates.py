"""The hard-concrete gates of a model, wherever they are."""

import keras

from tfmtl.layers.hard_concrete_gate import HardConcreteGate, L0Penalty


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
