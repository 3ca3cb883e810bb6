"""The hard-concrete gates of a model, wherever they are."""

from collections.abc import Sequence
from typing import Any

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


def without_decay_of_gates(model: keras.Model, optimizer: Any) -> Any:
    """The optimizer, which leaves the gates alone when it decays weights.

    Args:
        model: A model with gates.
        optimizer: Its optimizer; one that is built stays as it is.
    """
    thetas = [gate.theta for gate in gates(model)]
    for one in _parts(optimizer):
        if thetas and not getattr(one, "built", True):
            # what is set replaces what was
            before = [w for w in model.weights if not one._use_weight_decay(w)]
            one.exclude_from_weight_decay(var_list=[*before, *thetas])
    return optimizer


def decayed(optimizer: Any, found: Sequence[HardConcreteGate]) -> list[str]:
    """Paths of the gates whose weights a built optimizer decays.

    Args:
        optimizer: The optimizer.
        found: The gates.
    """
    thetas = {id(gate.theta) for gate in found}
    return [
        variable.path
        for one in _parts(optimizer)
        if getattr(one, "weight_decay", None)
        for variable in one._trainable_variables
        if id(variable) in thetas and one._use_weight_decay(variable)
    ]


def _parts(optimizer: Any) -> Any:
    """The optimizers that update weights: one, or one for each part of a model."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(inner, "optimizers", [inner])
