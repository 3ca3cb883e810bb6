"""Linear maps that follow each other become one where that costs no more."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, count
from typing import Any, NamedTuple

import keras
import numpy as np

from tfmtl.folding import stock
from tfmtl.folding.dense import as_linear, trained
from tfmtl.folding.graph import Call, Graph, Ref
from tfmtl.folding.protocol import KernelLayer, LinearLayer, OpeningLayer, SlotLayer
from tfmtl.folding.report import flops
from tfmtl.layers.normalization import PRECISE

# Slots of a layer's output that a tensor holds: one, or several along its slot axis.
Held = dict[Ref, int | list[int]]


def merged(graph: Graph) -> Graph | None:
    """The graph with neighbouring linear maps in one kernel.

    ```
    (x A + a) K + b = x (A K) + (a K + b)
    ```

    A linear Dense or a batch normalisation goes into the first kernels of all that
    read it; the first kernels of what reads a linear routing, or the normalisation
    behind a Dense, go into that layer. It is done where products get no larger, and
    not where a layer is called twice, a tensor between is an output of the model, a
    layer computes in less than float32, or one of both is frozen.

    Args:
        graph: A graph in which nothing is left to prune.

    Returns:
        The new graph, or `None` where there is nothing to merge.
    """
    found = None
    while (smaller := _merged_once(graph)) is not None:
        graph = found = smaller
    return found


def _merged_once(graph: Graph) -> Graph | None:
    calls_of = Counter(id(call.operation) for call in graph.calls)
    for call in graph.calls:
        if calls_of[id(call.operation)] > 1 or not call.is_plain or not call.inputs:
            continue
        if not isinstance(_linear(call), OpeningLayer | LinearLayer):
            continue
        held = _held(call)
        moves = _follow(graph, held)
        readers = _readers(graph, held, moves)
        if not readers or not all(
            calls_of[id(reader.operation)] == 1 and _fits(call, reader, held)
            for reader in readers
        ):
            continue
        for merge in (_into_readers, _into_producer):
            new = merge(graph, call, readers, moves, held)
            if new is not None:
                return new
    return None


def _into_readers(
    graph: Graph, call: Call, readers: list[Call], moves: list[Call], held: Held
) -> Graph | None:
    """The graph in which all readers take the call's linear map in."""
    [read], [result] = call.inputs[:1], call.results[:1]
    if isinstance(call.operation, SlotLayer) or len(read.shape) != len(result.shape):
        return None
    opening = _opening(call)
    if opening is None:
        return None
    slots, [kernel], [bias], activation, rest = opening
    if slots is not None or rest is not None or activation != keras.activations.linear:
        return None
    refs = {ref: ref.of_width(read.shape[-1]) for move in moves for ref in move.results}
    refs[result] = read
    new: dict[int, Call] = {}
    for reader in readers:
        layer = _linear(reader)
        if not isinstance(layer, KernelLayer):
            return None
        behind = layer.behind(kernel, bias)
        if behind is None:
            return None
        new[id(reader)] = replace(reader, operation=behind).renamed(refs)
    if _cost(new.values()) > _cost([call, *readers]):
        return None
    calls = [new.get(id(other), other) for other in graph.calls if other is not call]
    return graph.with_calls(calls, refs)


def _into_producer(
    graph: Graph, call: Call, readers: list[Call], moves: list[Call], held: Held
) -> Graph | None:
    """The graph in which the call's layer takes the readers' first kernels in."""
    layer = _linear(call)
    if not isinstance(layer, LinearLayer):
        return None
    alike = not isinstance(call.operation, SlotLayer)  # a Dense, of any slot alike
    if alike and (moves or len(readers) > 1):
        return None
    first = _first_kernels(graph, readers, {} if alike else held)
    if first is None:
        return None
    new = layer.before(first.slots, first.kernels, first.biases, first.activation)
    if new is None:
        return None
    numbers, dtype = _numbers(graph), call.results[0].dtype
    size, _, width = first.kernels.shape
    shape = call.results[0].shape[:-1] if alike else (None, size)
    whole = Ref(next(numbers), (*shape, width), dtype)
    made, parts = [Call(new, call.args, call.kwargs, whole)], [whole]
    if not alike and not isinstance(held[readers[0].inputs[0]], list):
        parts = [Ref(next(numbers), (None, width), dtype) for _ in readers]
        apart = stock.unstack()(size, axis=1, name=f"{call.operation.name}_slots")
        made.append(Call(apart, (whole,), {}, parts))
    places: dict[int, list[Call]] = {}
    same: dict[Ref, Ref] = {}
    for reader, rest, part in zip(readers, first.rests, parts, strict=True):
        if rest is None:
            same[reader.results[0]] = part
        rests = [] if rest is None else [Call(rest, (part,), {}, reader.outputs)]
        places[id(reader)] = rests
    after = [made[0], *chain(*places.values())]
    if _cost(after) > _cost([call, *readers]):
        return None
    places |= {id(call): made, **{id(move): [] for move in moves}}
    calls = chain(*(places.get(id(old), [old]) for old in graph.calls))
    return graph.with_calls(list(calls), same)


class _FirstKernels(NamedTuple):
    """The first operations of all that reads a layer's slots, as of an `opening`."""

    slots: list[int]
    kernels: np.ndarray
    biases: np.ndarray
    activation: Any
    rests: list[keras.layers.Layer | None]


def _first_kernels(
    graph: Graph, readers: list[Call], held: Held
) -> _FirstKernels | None:
    """`None` where there are none, they are unlike, or a slot is read twice."""
    slots: list[int] = []
    kernels: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    activations, rests = [], []
    for reader in readers:
        own, opening = held.get(reader.inputs[0], 0), _opening(reader)
        several = isinstance(own, list) and len(readers) > 1
        if opening is None or several or len(reader.inputs) > 1:
            return None
        reads, kernel, bias, activation, rest = opening
        if rest is None and activation != keras.activations.linear:
            if any(map(graph.is_output, reader.results)):
                return None  # a head stays: losses find its logits
        own = np.atleast_1d(own)[slice(None) if reads is None else reads].tolist()
        slots += own
        kernels += list(np.broadcast_to(kernel, (len(own), *kernel.shape[1:])))
        biases += list(np.broadcast_to(bias, (len(own), *bias.shape[1:])))
        activations.append(activation)
        rests.append(rest)
    unlike = any(activation != activations[0] for activation in activations)
    widths = {kernel.shape for kernel in kernels}
    if unlike or len(widths) > 1 or len(set(slots)) < len(slots):
        return None
    return _FirstKernels(
        slots, np.stack(kernels), np.stack(biases), activations[0], rests
    )


def _linear(call: Call) -> Any:
    return as_linear(call.operation, len(call.inputs[0].shape))


def _opening(call: Call) -> Any:
    layer = _linear(call)
    return layer.opening() if isinstance(layer, OpeningLayer) else None


def _fits(call: Call, reader: Call, held: Held) -> bool:
    """Whether rounding and training allow to merge two calls' layers."""
    layers = call.operation, reader.operation
    if not all(isinstance(layer, keras.layers.Layer) for layer in layers):
        return False
    policies = {layer.dtype_policy.name for layer in layers}
    types = {ref.dtype for ref in (*call.inputs, *call.results)}
    return (
        reader.is_plain
        and all(ref in held for ref in reader.inputs)
        and len(policies) == 1
        and policies == types
        and policies <= set(PRECISE)
        and len(set.union(*map(trained, layers))) < 2
    )


def _held(call: Call) -> Held:
    if len(call.results) > 1:
        return {ref: slot for slot, ref in enumerate(call.results)}
    [ref] = call.results
    slots = ref.shape[1] if len(ref.shape) == 3 else None
    return {ref: 0 if slots is None else list(range(slots))}


def _follow(graph: Graph, held: Held) -> list[Call]:
    """The calls that do nothing but select slots; adds what they give to `held`."""
    moves = []
    for call in graph.calls:
        slots = held.get(call.inputs[0]) if len(call.inputs) == 1 else None
        if not isinstance(slots, list):
            continue
        selected = stock.selected_slots(call, len(slots))
        if selected is not None:
            moves.append(call)
            for ref, which in zip(call.results, selected, strict=True):
                if isinstance(which, list):
                    held[ref] = [slots[k] for k in which]
                else:
                    held[ref] = slots[which]
    return moves


def _readers(graph: Graph, held: Held, moves: list[Call]) -> list[Call]:
    """The calls that read slots; none where one of them is an output of the model."""
    if any(map(graph.is_output, held)):
        return []
    selecting = set(map(id, moves))
    return [
        call
        for call in graph.calls
        if id(call) not in selecting and any(ref in held for ref in call.inputs)
    ]


def _cost(calls: Iterable[Call]) -> int:
    """FLOPs of the layers, of routings as they are when folded."""
    return sum(map(_flops, calls))


def _flops(call: Call) -> int:
    operation: Any = call.operation
    if not isinstance(operation, LinearLayer) or not isinstance(operation, SlotLayer):
        return flops(call)
    reads = operation.slot_reads()
    outputs = np.flatnonzero(reads.any(axis=1))
    if not len(outputs):
        return 0
    constants = np.zeros((reads.shape[1], call.inputs[0].shape[-1] or 0))
    folded, _ = operation.fold(outputs, np.arange(reads.shape[1]), constants)
    return flops(replace(call, operation=folded))


def _numbers(graph: Graph) -> Iterator[int]:
    known = [*keras.tree.flatten(graph.inputs)]
    known += [ref for call in graph.calls for ref in call.results]
    return count(max(ref.number for ref in known) + 1)
