"""How slots pass through Keras' own layers and operations.

What is not named here reads its inputs whole, which is always right and only
prunes less. The classes behind `keras.ops` are not public: they are taken from a
recorded call of the public function.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
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
    keras.layers.Subtract,
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


def is_slot_wise(operation: keras.Operation, rank: int) -> bool:
    """Whether output slot k depends on slot k of the inputs alone."""
    if isinstance(operation, _NORMALIZATIONS):
        axes = operation.axis
        axes = list(axes) if isinstance(axes, (list, tuple)) else [axes]
        return all(axis in (-1, rank - 1) for axis in axes)
    if isinstance(operation, keras.layers.Activation):
        return True
    return (
        isinstance(operation, _ELEMENT_WISE_LAYERS)
        or type(operation) in _element_wise_operations()
    )


def joins() -> tuple[type, ...]:
    """Operations that put slots one after the other."""
    return (keras.layers.Concatenate, _class_of(_stack), _class_of(_concatenate))


def joined_axis(operation: Any) -> int:
    """The axis along which a join puts its inputs."""
    return operation.axis


def selected_slots(call: Call, slots: int | None) -> list[int | list[int]] | None:
    """The slots that a selecting operation gives, per output.

    Args:
        call: Any call that reads a tensor with slots.
        slots: Number of slots of that tensor.

    Returns:
        Per output a slot (the axis goes) or a list of slots (it stays), or
        `None` where the operation does not select slots.
    """
    operation = call.operation
    count = slots or 0
    if isinstance(operation, _class_of(lambda x: ops.unstack(x, 2, axis=1))):
        return list(range(count)) if operation.axis == 1 else None
    if isinstance(operation, get_item()):
        return _selected_by_key(call.args[1:], count)
    if isinstance(operation, _class_of(lambda x: ops.take(x, [0], axis=1))):
        return _selected_by_indices(operation.axis, call, count)
    return None


@cache
def get_item() -> type:
    """The class of `tensor[key]`."""
    return _class_of(lambda x: x[:, 0])


def _selected_by_key(keys: tuple[Any, ...], count: int) -> list[Any] | None:
    [key] = keys
    everything = slice(None)
    if not isinstance(key, tuple) or len(key) < 2 or key[0] != everything:
        return None
    if any(part != everything for part in key[2:]):
        return None
    if isinstance(key[1], slice):
        return [list(range(count))[key[1]]]
    if isinstance(key[1], int):
        return [key[1] % count]
    return None


def _selected_by_indices(axis: int | None, call: Call, count: int) -> list[Any] | None:
    indices = [*call.args[1:], *call.kwargs.values()]
    if axis != 1 or len(indices) != 1 or isinstance(indices[0], Ref):
        return None
    if isinstance(indices[0], int):
        return [indices[0] % count]
    return [[int(k) % count for k in indices[0]]]


@cache
def _element_wise_operations() -> frozenset[type]:
    unary = {_class_of(function) for function in _UNARY}
    return frozenset(unary | {_class_of(_with_itself(f)) for f in _BINARY})


@cache
def _class_of(function: Callable[[Any], Any]) -> type:
    tensor = keras.Input((2, 2))
    return type(record(keras.Model(tensor, function(tensor))).calls[-1].operation)


@cache
def _with_itself(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda tensor: function(tensor, tensor)


def _stack(tensor: Any) -> Any:
    return ops.stack([tensor, tensor], axis=1)


def _concatenate(tensor: Any) -> Any:
    return ops.concatenate([tensor, tensor], axis=1)
