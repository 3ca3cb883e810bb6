"""What the axes of a model's weights stand for, so that those of two models compare."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfmtl.finetuning.own import Own
from tfmtl.finetuning.towers import outputs_of, tower_of, trunk_of_one
from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import Call, Graph, Ref, record
from tfmtl.layers import (
    DSelectKGate,
    Experts,
    SoftmaxGate,
    StaticMixture,
    SubNetworkRouting,
)

Labels = Sequence[Any]

_PLAIN = ("name", "dtype", "trainable", "autocast", "vocabulary", "vocabulary_size")


class Axes:
    """The weights of a model by layer, each with labels of its axes.

    An entry of the encoded vector is labelled by its column, a row of a table by the
    value that it stands for, a slot by the task whose own it is and its number among
    those; anything else by its number.

    Args:
        model: A built Functional model.
        tasks: Name of a task to the one that labels have for it.

    Attributes:
        layers: Layers that have weights, by name.
    """

    def __init__(
        self, model: keras.Model, tasks: Mapping[str, str] | None = None
    ) -> None:
        self._graph = record(model)
        self._tasks = tasks or {}
        self._owners = _owners(model, self._graph)
        self._makers = self._graph.makers()
        self._entries: dict[Ref, Labels | None] = {}
        if isinstance(self._graph.inputs, dict):
            for name, ref in self._graph.inputs.items():
                self._entries[ref] = [(name, k) for k in range(ref.shape[-1] or 0)]
        self._calls: dict[str, Call] = {}
        for call in self._graph.calls:
            self._follow(call)
            if getattr(call.operation, "weights", ()):
                self._calls.setdefault(call.operation.name, call)
        self.layers: dict[str, Any] = {n: c.operation for n, c in self._calls.items()}

    def weights(self, name: str) -> dict[str, tuple[Any, list[Labels]]]:
        """The weights of a layer by their path in it, with labels per axis."""
        call = self._calls[name]
        layer: Any = call.operation
        known = {id(weight): axes for weight, axes in self._known(layer, call)}
        found = {}
        for weight in layer.weights:
            axes = known.get(id(weight)) or self._by_inputs(weight, call)
            labels = [
                range(size) if axis is None else axis
                for size, axis in zip(weight.shape, axes, strict=True)
            ]
            found[weight.path.split("/", 1)[-1]] = weight, labels
        return found

    def _known(self, layer: Any, call: Call) -> list[tuple[Any, list[Any]]]:
        """Weights of layers with slots and of tables."""
        if hasattr(layer, "embeddings"):
            return [(layer.embeddings, [self._rows(layer, call), None])]
        ref, read = call.results[0], call.inputs[0]
        if isinstance(layer, Experts):
            slots = self._slots(ref)
            entries = self._entries.get(read) if len(read.shape) == 2 else None
            first = [(layer.kernels[0], [slots, entries, None])]
            rest = [(kernel, [slots, None, None]) for kernel in layer.kernels[1:]]
            return [*first, *rest, *((bias, [slots, None]) for bias in layer.biases)]
        if isinstance(layer, SubNetworkRouting):
            outputs, inputs = self._slots(ref), self._slots(read)
            gates = [(w, [outputs, inputs]) for w in (layer.gate.theta, layer.gate.l0)]
            kernel = (layer.kernel, [inputs, None, outputs, None])
            return [*gates, kernel, (layer.bias, [outputs, None])]
        if isinstance(layer, StaticMixture):
            pairs = self._pairs(layer.trained_reads(), ref, read)
            return [(layer.z, [pairs]), (layer.bias, [self._slots(ref), None])]
        if isinstance(layer, SoftmaxGate):
            there = layer.trained_pairs()
            there &= there.sum(axis=1, keepdims=True) > 1
            experts = self._experts(ref)
            pairs = self._pairs(there, ref, experts)
            entries = self._entries.get(read) if len(read.shape) == 2 else None
            gate: list[Any] = (
                [] if layer.gate is None else [layer.gate.theta, layer.gate.l0]
            )
            own: list[Any] = [(layer.kernel, [entries, pairs]), (layer.bias, [pairs])]
            return [*own, *((weight, [pairs]) for weight in gate)]
        if isinstance(layer, DSelectKGate):
            entries = self._entries.get(read) if len(read.shape) == 2 else None
            slots = self._slots(ref)
            choices = [slots[k] for k in layer.choosing()]
            digits = [(slots[k], n, digit) for k, n, digit in layer.digits()]
            return [
                (layer.z_kernel, [entries, None, digits]),
                (layer.z, [None, digits]),
                (layer.alpha_kernel, [entries, None, choices]),
                (layer.alpha, [None, choices]),
            ]
        return []

    def _by_inputs(self, weight: Any, call: Call) -> list[Any]:
        """Of a kernel of the encoded vector the labels of that, one before the last."""
        axes: list[Any] = [None] * len(weight.shape)
        entries = self._entries.get(call.inputs[0]) if call.inputs else None
        if len(axes) > 1 and entries is not None and weight.shape[-2] == len(entries):
            axes[-2] = entries
        return axes

    def _slots(self, ref: Ref) -> Labels:
        """The owner of each slot, and its number among those of the owner."""
        owners = self._owners.get(ref) or [None]
        count = ref.shape[1] if len(ref.shape) > 2 else len(owners)
        if len(owners) != count:
            return range(count or 0)
        seen: Counter[Any] = Counter()
        labels = []
        for owner in owners:
            labels.append((self._tasks.get(owner, owner), seen[owner]))
            seen[owner] += 1
        return labels

    def _pairs(self, there: np.ndarray, outputs: Ref, inputs: Ref | None) -> Labels:
        of_outputs = self._slots(outputs)
        of_inputs = range(there.shape[1]) if inputs is None else self._slots(inputs)
        return [(of_outputs[i], of_inputs[j]) for i, j in np.argwhere(there)]

    def _experts(self, weights: Ref) -> Ref | None:
        """The experts that a gate's weights are for."""
        for call in self._graph.readers(weights):
            if len(call.inputs) == 2 and call.inputs[1] == weights:
                return call.inputs[0]
        return None

    def _rows(self, layer: Any, call: Call) -> Labels:
        sizes = getattr(layer, "sizes", None) or [int(layer.embeddings.shape[0])]
        apart = len(call.inputs) == len(sizes)
        labels: list[Any] = []
        for field, size in enumerate(sizes):
            ids = call.inputs[field if apart else 0]
            labels += self._values(ids, size, field if not apart else 0)
        return labels

    def _values(self, ids: Ref, size: int, field: int) -> Labels:
        """What the ids of a field stand for."""
        maker = self._makers.get(ids)
        if maker is None:
            return [(ids.number, field, row) for row in range(size)]
        operation: Any = maker.operation
        entries = self._entries.get(ids) or [operation.name]
        key = (operation.name, field, *sorted({str(entry[0]) for entry in entries}))
        if hasattr(operation, "get_vocabulary"):
            return [(operation.name, value) for value in operation.get_vocabulary()]
        position, count = maker.results.index(ids), len(maker.results)
        config = operation.get_config() if hasattr(operation, "get_config") else {}
        meaning = str(
            {
                name: v[position] if isinstance(v, list) and len(v) == count else v
                for name, v in config.items()
                if name not in _PLAIN
            }
        )
        return [(key, meaning, row) for row in range(size)]

    def _follow(self, call: Call) -> None:
        """Labels of the entries of what a call gives."""
        layer: Any = call.operation
        given = [self._entries.get(ref) for ref in call.inputs]
        for number, ref in enumerate(call.results):
            size = int(np.prod([n or 1 for n in ref.shape[1:]]))
            own = given[number : number + 1] if len(call.results) > 1 else given
            labels: Labels | None = None
            if own and all(labels is not None for labels in own):
                joined = [label for part in own for label in part or ()]
                if hasattr(layer, "embeddings"):
                    units = int(ref.shape[-1] or 1)
                    joined = [(x, unit) for x in joined for unit in range(units)]
                if len(joined) == size:
                    labels = joined
                elif len(joined) % max(size, 1) == 0 and len(ref.shape) > 2:
                    labels = joined[:size]  # a sequence that is pooled
            self._entries[ref] = labels


def _owners(model: Any, graph: Graph) -> dict[Ref, list[Any]]:
    tasks = getattr(model, "tasks", ())
    if not tasks:
        facts = Facts(graph, serving=False)
        return {ref: [None] * len(bits) for ref, bits in facts.reaches.items()}
    outputs = {task.name: outputs_of(graph, task) for task in tasks}
    shared: list[Ref] = []
    if len(tasks) == 1:
        tower = tower_of(graph, outputs[tasks[0].name][0])
        shared = trunk_of_one(graph, tower.inputs[0]) if tower is not None else []
    return Own(graph, outputs, tasks[0].name, shared).owners
