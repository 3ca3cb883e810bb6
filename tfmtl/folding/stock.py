"""How slots pass through Keras' own layers and operations.

What is not named here reads its inputs whole, which is always right and only
prunes less; a subclass of what is named may do something else, so it is not. The
classes behind `keras.ops` are not public: they are taken from a recorded call of the
public function.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.folding.graph import Call, Ref, record

_ELEMENT_WISE_LAYERS = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.AlphaDropout,
    keras.layers.Average,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.Subtract,
)
_IDENTITIES = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)
_UNARY = (
    ops.abs,
    ops.elu,
    ops.exp,
    ops.gelu,
    ops.leaky_relu,
    ops.negative,
    ops.relu,
    ops.sigmoid,
    ops.silu,
    ops.softplus,
    ops.square,
    ops.tanh,
)
_BINARY = (ops.add, ops.divide, ops.maximum, ops.minimum, ops.multiply, ops.subtract)


def is_identity(call: Call) -> bool:
    """Whether a call gives, in inference, the tensor that it reads."""
    operation: Any = call.operation
    if not call.is_plain or len(call.inputs) != 1 or len(call.results) != 1:
        return False
    if type(operation) is keras.layers.Activation:
        same = operation.activation is keras.activations.linear
    else:
        same = type(operation) in _IDENTITIES
    return same and call.inputs[0].dtype == call.results[0].dtype


def is_slot_wise(operation: Any, rank: int) -> bool:
    """Whether output slot k depends on slot k of the inputs alone."""
    if type(operation) in _NORMALIZATIONS:
        axes = operation.axis
        axes = list(axes) if isinstance(axes, (list, tuple)) else [axes]
        return all(axis in (-1, rank - 1) for axis in axes)
    if type(operation) in _ELEMENT_WISE_LAYERS:
        return _is_of_keras(getattr(operation, "activation", None))
    return type(operation) in _element_wise_operations()


def is_join(operation: Any) -> bool:
    """Whether an operation puts slots one after the other."""
    kinds = (keras.layers.Concatenate, _class_of(_stack), _class_of(_concatenate))
    return type(operation) in kinds and operation.axis == 1


def selected_slots(call: Call, count: int) -> list[int | list[int]] | None:
    """The slots that a selecting operation gives, per output.

    Args:
        call: Any call that reads a tensor with slots.
        count: Number of slots of that tensor.

    Returns:
        Per output a slot (the axis goes) or a list of slots (it stays), or
        `None` where the operation does not select slots.
    """
    operation: Any = call.operation
    if type(operation) is unstack():
        return list(range(count)) if operation.axis == 1 else None
    if type(operation) is get_item():
        return _selected_by_key(call.args[1:], count)
    if type(operation) is _class_of(_take):
        return _selected_by_indices(operation.axis, call, count)
    return None


def unstack() -> Any:
    """The class of `keras.ops.unstack`."""
    return _class_of(_unstack)


def get_item() -> Any:
    """The class of `tensor[key]`."""
    return _class_of(_get_item)


def _is_of_keras(activation: Any) -> bool:
    """Whether an activation is known to work on single values or the last axis."""
    if activation is None:
        return True
    name = getattr(activation, "__name__", "")
    return getattr(keras.activations, name, None) is activation


def _selected_by_key(keys: tuple[Any, ...], count: int) -> list[Any] | None:
    [key] = keys
    everything = slice(None)
    if not isinstance(key, tuple) or len(key) < 2 or key[0] != everything:
        return None
    if any(part != everything for part in key[2:]):
        return None
    if isinstance(key[1], slice):
        selected = list(range(count))[key[1]]
        return [selected] if selected else None
    if isinstance(key[1], int):
        return [key[1] % count]
    return None


def _selected_by_indices(axis: int | None, call: Call, count: int) -> list[Any] | None:
    indices = [*call.args[1:], *call.kwargs.values()]
    if axis != 1 or len(indices) != 1 or isinstance(indices[0], Ref):
        return None
    selected = np.asarray(indices[0])
    if selected.ndim > 1 or selected.size == 0:
        return None
    return [(selected % count).tolist()]


@cache
def _element_wise_operations() -> frozenset[type]:
    tensor = keras.Input((2, 2))
    unary = [function(tensor) for function in _UNARY]
    binary = [function(tensor, tensor) for function in _BINARY]
    graph = record(keras.Model(tensor, [*unary, *binary]))
    return frozenset(type(call.operation) for call in graph.calls)


@cache
def _class_of(function: Callable[[Any], Any]) -> Any:
    tensor = keras.Input((2, 2))
    return type(record(keras.Model(tensor, function(tensor))).calls[-1].operation)


def _unstack(tensor: Any) -> Any:
    return ops.unstack(tensor, 2, axis=1)


def _take(tensor: Any) -> Any:
    return ops.take(tensor, [0], axis=1)


def _get_item(tensor: Any) -> Any:
    return tensor[:, 0]


def _stack(tensor: Any) -> Any:
    return ops.stack([tensor, tensor], axis=1)


def _concatenate(tensor: Any) -> Any:
    return ops.concatenate([tensor, tensor], axis=1)
