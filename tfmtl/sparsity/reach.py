"""What reaches what in a model, as its gates stand and as they might."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import Graph, as_functional, is_graph, record
from tfmtl.folding.protocol import GateLayer, MixtureLayer, SlotLayer
from tfmtl.layers.hard_concrete_gate import HardConcreteGate

_OPEN, _CLOSED = 4.0, -4.0


class SubNetwork(NamedTuple):
    """Slot `slot` of layer `layer`."""

    layer: str
    slot: int

    def __str__(self) -> str:
        return f"{self.layer}[{self.slot}]"


class Reach:
    """Follows the outputs of a model back to its sub-networks.

    Args:
        model: A built Functional model.

    Attributes:
        outputs: Names of the outputs.
    """

    def __init__(self, model: keras.Model) -> None:
        graph_of = as_functional(model)
        self._graph: Graph = record(graph_of)
        self.outputs: list[str] = list(graph_of.output_names)
        if isinstance(graph_of.output, dict):
            paths = keras.tree.flatten_with_path(graph_of.output)
            self.outputs = [_path_name(*path) for path, _ in paths]
        self._results = keras.tree.flatten(self._graph.outputs)

    @staticmethod
    def of(model: keras.Model) -> "Reach | None":
        """The reach of a model, `None` where it has no graph of calls."""
        return Reach(model) if is_graph(model) else None

    def constant_outputs(self) -> list[str]:
        """Outputs that are the same for every example."""
        facts = Facts(self._graph)
        pairs = zip(self.outputs, self._results, strict=True)
        return [name for name, ref in pairs if facts.constant[ref].all()]

    def sub_networks(self) -> dict[SubNetwork, list[str]]:
        """The outputs that each sub-network reaches; those that reach none are left."""
        facts = Facts(self._graph)
        found: dict[SubNetwork, list[str]] = {}
        for call in self._graph.calls:
            operation: Any = call.operation
            if isinstance(operation, GateLayer) or not hasattr(operation, "flops"):
                continue
            if not isinstance(operation, SlotLayer | MixtureLayer):
                continue
            name = call.operation.name
            slots = [(ref, k) for ref in call.results for k in facts.kept(ref)]
            for number, (ref, k) in enumerate(slots):
                slot = k if len(call.results) == 1 else number
                reached = np.flatnonzero(facts.reaches[ref][k])
                found[SubNetwork(name, slot)] = [
                    self.outputs[output] for output in reached
                ]
        return found

    def inputs_of_outputs(self) -> dict[str, int]:
        """How many slots each output reads through the last gates before it."""
        facts = Facts(self._graph)
        found = {}
        for name, ref in zip(self.outputs, self._results, strict=True):
            count = _inputs_through_gates(facts, ref)
            if count is not None:
                found[name] = count
        return found

    def passing(self, gates: Sequence[HardConcreteGate]) -> list[np.ndarray]:
        """Open gates that pass something on to an output, booleans of each's shape.

        A connection whose target reaches no output, or whose source is the same for
        every example, passes nothing on. Gates on pairs of a mixture always do.
        """
        facts = Facts(self._graph)
        passing = as_served(gates)
        place = {id(gate): k for k, gate in enumerate(gates)}
        for call in self._graph.calls:
            gate = _gate_of(call.operation)
            if (
                gate is None
                or id(gate) not in place
                or isinstance(call.operation, GateLayer)
            ):
                continue
            kept = np.zeros(gate.shape[0], bool)
            kept[facts.kept(call.results[0])] = True
            if len(gate.shape) == 2:
                varying = ~facts.constant[call.inputs[0]]
                kept = kept[:, None] & varying
            passing[place[id(gate)]] &= kept
        return passing


@contextmanager
def as_if(
    gates: Sequence[HardConcreteGate], masks: Sequence[np.ndarray]
) -> Iterator[None]:
    """Within, gates are open where their mask is true and closed elsewhere."""
    before = [np.array(ops.convert_to_numpy(gate.theta)) for gate in gates]
    try:
        for gate, mask in zip(gates, masks, strict=True):
            gate.set_log_alpha(np.where(mask, _OPEN, _CLOSED))
        yield
    finally:
        for gate, theta in zip(gates, before, strict=True):
            gate.theta.assign(theta)


def all_open(gates: Sequence[HardConcreteGate]) -> list[np.ndarray]:
    """Masks that open every gate."""
    return [np.ones(gate.shape, bool) for gate in gates]


def as_served(gates: Sequence[HardConcreteGate]) -> list[np.ndarray]:
    """Masks of the gates that are not exactly 0 in serving."""
    return [ops.convert_to_numpy(gate(training=False)) != 0 for gate in gates]


def _path_name(name: str, *keys: Any) -> str:
    """`rest[0]` for the first of the outputs `rest`."""
    return name + "".join(f"[{key}]" for key in keys)


def _gate_of(operation: Any) -> HardConcreteGate | None:
    gate = getattr(operation, "gate", None)
    return gate if isinstance(gate, HardConcreteGate) else None


def _inputs_through_gates(facts: Facts, output: Any) -> int | None:
    """Slots read by the first gated calls on the way back, `None` without any."""
    needed: dict[Any, Any] = {output: np.ones(len(facts.constant[output]), bool)}
    gated = {
        ref
        for call in facts.graph.calls
        if isinstance(call.operation, GateLayer) and _gate_of(call.operation)
        for ref in call.results
    }
    count: int | None = None
    for call, rule in zip(
        reversed(facts.graph.calls), reversed(facts.rules), strict=True
    ):
        operation: Any = call.operation
        mixes = isinstance(operation, MixtureLayer)
        through = (mixes and call.inputs[1] in gated) or (
            not mixes
            and not isinstance(operation, GateLayer)
            and _gate_of(operation) is not None
        )
        for number, ref in enumerate(call.results):
            if ref not in needed:
                continue
            rows = needed[ref] & ~facts.constant[ref]
            if through:
                count = count or 0
            for position, read in enumerate(call.inputs):
                reads = facts.reads(call, rule, number, position)[rows].any(axis=0)
                if not through:
                    needed[read] = needed.get(read, False) | reads
                elif position == 0 or not mixes:
                    count = (count or 0) + int(np.sum(reads & ~facts.constant[read]))
    return count
