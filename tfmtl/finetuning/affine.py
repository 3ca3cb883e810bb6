"""Element-wise affine maps of a tensor, taken in by the first kernels that read it."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmtl.folding import stock
from tfmtl.folding.dense import as_linear
from tfmtl.folding.graph import Call, Graph, Ref, record
from tfmtl.folding.protocol import KernelLayer
from tfmtl.layers import FieldGate, GatherSlots, ScaleSlots

# Layers of which every output is at most one input, as it is or times a number.
_MOVING = (
    keras.layers.Concatenate,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Reshape,
    FieldGate,
    GatherSlots,
    ScaleSlots,
)


class Map(NamedTuple):
    """What a tensor was, by what it is now.

    ```
    old = scale * new + shift
    ```

    Attributes:
        scale: Of the tensor's shape without the batch, not 0.
        shift: Of the same shape.
    """

    scale: np.ndarray
    shift: np.ndarray

    def is_same(self, other: Any) -> bool:
        """Whether another map, or none, is equal."""
        return other is not None and all(map(np.array_equal, self, other))


def layers_behind(graph: Graph, maps: Mapping[Ref, Map]) -> dict[int, Any]:
    """Layers that compute of new tensors what they computed of the old ones.

    A map is followed through what only moves, joins or scales values, into the first
    kernel of every layer behind:

    ```
    old K + c = (scale * new + shift) K + c = new (diag(scale) K) + (shift K + c)
    ```

    Args:
        graph: A recorded model.
        maps: Maps of tensors that are no longer what they were.

    Returns:
        New layers by `id` of those whose place they take.

    Raises:
        ValueError: If a layer cannot take its map in.
    """
    known = dict(maps)
    behind: dict[int, Any] = {}
    read: dict[int, list[Map | None]] = {}
    for call in graph.calls:
        given = [known.get(ref) for ref in call.inputs]
        moved = _moved(call, known) if any(given) else None
        if moved is not None:
            known |= moved
            continue
        before = read.setdefault(id(call.operation), given)
        if not _are_same(before, given):
            raise _refused(call, "is called on other values too")
        if any(given) and id(call.operation) not in behind:
            layer = _behind(call, given)
            if layer is None:
                raise _refused(call, "has no first kernel that takes them in")
            behind[id(call.operation)] = layer
    for call in graph.calls:
        if any(ref in known and graph.is_output(ref) for ref in call.results):
            raise _refused(call, "gives them as an output of the model")
    return behind


def _moved(call: Call, maps: Mapping[Ref, Map]) -> dict[Ref, Map] | None:
    """Maps of what a call gives, `None` where it does more than move and scale."""
    if not _moves(call) or any(None in ref.shape[1:] for ref in call.inputs):
        return None

    def run(value: Callable[[Map], np.ndarray], none: float) -> list[np.ndarray]:
        tensors = []
        for ref in call.inputs:
            filled = np.full([1, *(size or 0 for size in ref.shape[1:])], none)
            if ref in maps:
                filled[0] = value(maps[ref])
            tensors.append(ops.convert_to_tensor(filled.astype(ref.dtype)))
        args, kwargs = call.with_tensors(tensors)
        outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        return [ops.convert_to_numpy(output).astype("f8") for output in outputs]

    # of P x + c, where a row of P has one number or none: c, and what x becomes
    constants = run(lambda of: np.zeros_like(of.scale), 0.0)
    ones = run(lambda of: np.ones_like(of.scale), 1.0)
    scales, shifts = run(lambda of: of.scale, 1.0), run(lambda of: of.shift, 0.0)
    found = {}
    for ref, zero, one, scale, shift in zip(
        call.results, constants, ones, scales, shifts, strict=True
    ):
        if one.shape != (1, *ref.shape[1:]):
            return None
        factor = one - zero
        none = maps[call.inputs[0]].scale if _is_gate(call) else 1.0  # may open again
        ratio = (scale - zero) / np.where(factor == 0, 1.0, factor)
        moved = Map(np.where(factor == 0, none, ratio)[0], (shift - zero)[0])
        if (moved.scale != 1).any() or moved.shift.any():
            found[ref] = moved
    return found


def _is_gate(call: Call) -> bool:
    return type(call.operation) is FieldGate


def _moves(call: Call) -> bool:
    if isinstance(call.operation, keras.layers.Layer):
        moving = type(call.operation) in _MOVING and call.is_plain
        return moving or stock.is_identity(call)  # a subclass may do something else
    return type(call.operation) in _moving_operations()


def _behind(call: Call, given: list[Map | None]) -> Any:
    """The layer of the new tensor, `None` where there is none."""
    [found, *others] = given
    if found is None or others or not call.is_plain:
        return None
    width = found.scale.shape[-1]
    scales, shifts = (np.reshape(part, (-1, width)) for part in found)
    if (scales != scales[0]).any() or (shifts != shifts[0]).any():
        return None  # a kernel is the same for all slots
    operation: Any = call.operation
    if type(operation) is keras.layers.BatchNormalization:
        return _normalization_behind(call, scales[0], shifts[0])
    layer = as_linear(operation, len(call.inputs[0].shape))
    if not isinstance(layer, KernelLayer):
        return None
    return layer.behind(np.diag(scales[0]), shifts[0])


def _normalization_behind(call: Call, scale: np.ndarray, shift: np.ndarray) -> Any:
    """The batch normalisation of new values, with their mean and variance.

    Its gamma makes up for epsilon; without one the variance does.
    """
    layer: Any = call.operation
    [read] = call.inputs
    if layer.axis not in (-1, len(read.shape) - 1):
        return None
    mean, variance = (
        ops.convert_to_numpy(moving).astype("f8")
        for moving in (layer.moving_mean, layer.moving_variance)
    )
    deviation = np.sqrt(variance + layer.epsilon)
    new = type(layer).from_config(layer.get_config())
    new.build(read.shape)
    new.set_weights(layer.get_weights())
    new.moving_mean.assign((mean - shift) / scale)
    if new.gamma is None:
        variance = (deviation / scale) ** 2 - layer.epsilon
        if (variance < 0).any():
            return None
        new.moving_variance.assign(variance)
    else:
        variance = variance / scale**2
        new.moving_variance.assign(variance)
        gain = scale * np.sqrt(variance + layer.epsilon) / deviation
        new.gamma.assign(ops.convert_to_numpy(layer.gamma) * gain)
    for weight, old in zip(new.weights, layer.weights, strict=True):
        weight.trainable = old.trainable
    return new


def _are_same(some: list[Map | None], others: list[Map | None]) -> bool:
    return len(some) == len(others) and all(
        one is other if one is None else one.is_same(other)
        for one, other in zip(some, others, strict=True)
    )


def _refused(call: Call, why: str) -> ValueError:
    return ValueError(
        "What reads standardised columns should be a layer that starts with a kernel "
        "(Dense, Experts, Tower, SoftmaxGate, DSelectKGate …), a batch normalisation, "
        "or one that flattens or concatenates; `keep_scores=False` moves the scores "
        f"instead. Received: {type(call.operation).__name__} "
        f"{call.operation.name!r}, which {why}"
    )


@cache
def _moving_operations() -> frozenset[type]:
    tensor = keras.Input((2, 2))
    outputs = [
        ops.concatenate([tensor, tensor], axis=1),
        ops.expand_dims(tensor, 1),
        ops.reshape(tensor, (-1, 4)),
        ops.squeeze(ops.expand_dims(tensor, 1), 1),
        ops.stack([tensor, tensor], axis=1),
        ops.take(tensor, [0], axis=1),
        ops.transpose(tensor, (0, 2, 1)),
        ops.unstack(tensor, 2, axis=1),
        ops.split(tensor, 2, axis=1),
        tensor[:, 0],
    ]
    graph = record(keras.Model(tensor, outputs))
    return frozenset(type(call.operation) for call in graph.calls)
