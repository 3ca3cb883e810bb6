"""Which sub-networks a model has, and what reaches what."""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import keras
import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import Call, Ref, as_functional, is_graph, record
from tfmtl.folding.rules import Join, OfGate, OfMixture, OfSlotLayer, Opaque, Rule


@dataclass(frozen=True)
class Node:
    """A sub-network: slot `slot` of layer `layer`; or a task, with slot 0.

    A layer that gives one of the tensors that are stacked is a sub-network too. Where
    a layer is called again, its slots are counted on.
    """

    layer: str
    slot: int


@dataclass(frozen=True)
class Edge:
    """A connection that is open in serving.

    Attributes:
        source: The sub-network that is read.
        target: The sub-network or task that reads it.
        strength: Size of what the connection does: z times the Frobenius norm of
            W for a transformation, z for an average, 1 where there is no gate.
        selects: Whether the target's gate reads the source, to weigh what the target
            reads; nothing else of it is passed on.
    """

    source: Node
    target: Node
    strength: float
    selects: bool = False


@dataclass(frozen=True)
class Topology:
    """Sub-networks by level, from the input to the tasks, and their connections.

    Attributes:
        levels: Nodes by the longest path from the input, those of a layer together;
            the last level holds the tasks.
        edges: Open connections.
        live: Nodes that reach a task.
        constant: Nodes that no live input reaches: the same for every example.
    """

    levels: list[list[Node]]
    edges: list[Edge]
    live: frozenset[Node]
    constant: frozenset[Node]


def topology(model: keras.Model) -> Topology:
    """Reads the sub-networks and open connections of a model.

    Args:
        model: A built Functional model, folded or not, with outputs by task name.

    Raises:
        ValueError: If the outputs are not a dict.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> model = tfmtl.models.snr([x], [tfmtl.tasks.Binary("click")], [(3, 4)])
        >>> found = tfmtl.report.topology(model)
        >>> [len(level) for level in found.levels], len(found.edges)
        ([3, 1, 1], 4)
    """
    if not isinstance(model.output, dict):
        raise ValueError(
            "`model` should have a dict of outputs by task name. Received: "
            f"model.output={model.output!r}"
        )
    facts = Facts(record(model))
    refs = dict(
        zip(
            _flat_output_names(model),
            keras.tree.flatten(facts.graph.outputs),
            strict=True,
        )
    )
    outputs = [refs[name] for name in model.output]
    reader = _Reader(facts, _paths(facts.graph.calls, outputs), _places(model))
    for call, rule in zip(facts.graph.calls, facts.rules, strict=True):
        reader.read(call, rule)
    tasks = [Node(name, 0) for name in model.output]
    for node, ref in zip(tasks, outputs, strict=True):
        reader.connect(node, sorted_nodes(set().union(*reader.sources[ref])))
        if facts.constant[ref].all():
            reader.constant.add(node)
    return Topology(
        [*reader.levels(), tasks],
        reader.edges,
        _reaching(tasks, reader.edges),
        frozenset(reader.constant),
    )


def sorted_nodes(nodes: set[Node]) -> list[Node]:
    """Nodes in a fixed order."""
    return sorted(nodes, key=lambda node: (node.layer, node.slot))


@dataclass(frozen=True)
class _Level:
    """Sub-networks that one call gives.

    Attributes:
        depth: How many levels the longest path from the input has, with this one.
        path: How the outputs reach it; orders the levels of a depth.
        nodes: The sub-networks.
    """

    depth: int
    path: tuple[int, ...]
    nodes: list[Node]


class _Reader:
    """Follows, slot by slot, which sub-networks a tensor comes from."""

    def __init__(
        self,
        facts: Facts,
        paths: dict[Ref, tuple[int, ...]],
        places: dict[int, tuple[str, ...]],
    ) -> None:
        self._facts = facts
        self._paths = paths
        self._places = places
        self._levels: list[_Level] = []
        self._used: Counter[str] = Counter()
        self._joined = {
            ref: call.operation
            for call, rule in zip(facts.graph.calls, facts.rules, strict=True)
            if isinstance(rule, Join)
            for ref in call.inputs
        }
        self.edges: list[Edge] = []
        self.constant: set[Node] = set()
        inputs = keras.tree.flatten(facts.graph.inputs)
        self._depth: dict[Ref, int] = dict.fromkeys(inputs, 0)
        self.sources: dict[Ref, list[set[Node]]] = {ref: [set()] for ref in inputs}

    def levels(self) -> list[list[Node]]:
        """Nodes by depth; levels of one depth in the order of their readers."""
        ordered = sorted(self._levels, key=lambda level: (level.depth, level.path))
        return [
            [node for level in levels for node in level.nodes]
            for _, levels in groupby(ordered, key=lambda level: level.depth)
        ]

    def read(self, call: Call, rule: Rule) -> None:
        for output, ref in enumerate(call.results):
            found: list[set[Node]] = [set() for _ in self._facts.constant[ref]]
            for position, read in enumerate(call.inputs):
                reads = self._facts.reads(call, rule, output, position)
                for k, row in enumerate(reads):
                    for j in np.flatnonzero(row):
                        found[k] |= self.sources[read][j]
            self.sources[ref] = found
        depth = max((self._depth[ref] for ref in call.inputs), default=0)
        is_level = self._is_level(call, rule)
        self._depth.update(dict.fromkeys(call.results, depth + is_level))
        if is_level:
            self._add_level(call, rule)
        if isinstance(rule, OfMixture):
            self._add_selectors(call)

    def _is_level(self, call: Call, rule: Rule) -> bool:
        """Whether the results are sub-networks: a layer's slots, or what is stacked."""
        if isinstance(rule, Opaque):
            return any(ref in self._joined for ref in call.results)
        if isinstance(rule, OfGate):
            return False
        is_layer = isinstance(rule, OfSlotLayer) and hasattr(call.operation, "flops")
        return is_layer or isinstance(rule, OfMixture)

    def connect(self, node: Node, sources: list[Node]) -> None:
        self.edges.extend(Edge(source, node, 1.0) for source in sources)

    def _add_selectors(self, call: Call) -> None:
        [result], weights = call.results, call.inputs[1]
        selectors = self.sources[weights]
        for k, reached in enumerate(self.sources[result]):
            [node] = reached
            for source in sorted_nodes(selectors[k if len(selectors) > 1 else 0]):
                self.edges.append(Edge(source, node, 1.0, selects=True))

    def _add_level(self, call: Call, rule: Rule) -> None:
        operation: Any = call.operation
        refs = call.results
        inputs = call.inputs[:1] if isinstance(rule, OfMixture) else call.inputs
        read = [sources for ref in inputs for sources in self.sources[ref]]
        reached = [sources for ref in refs for sources in self.sources[ref]]
        constant = np.concatenate([self._facts.constant[ref] for ref in refs])
        nodes = self._new_nodes(self._name(call, rule), len(reached))
        path = min(self._paths[ref] for ref in refs)
        self._levels.append(_Level(self._depth[refs[0]], path, nodes))
        self.constant.update(nodes[k] for k in np.flatnonzero(constant))
        weighed = isinstance(rule, OfSlotLayer) and hasattr(operation, "strengths")
        strengths = operation.strengths() if weighed else None
        for k, node in enumerate(nodes):
            for j, sources in enumerate(read):
                for source in sorted_nodes(sources & reached[k]):
                    strength = 1.0 if strengths is None else float(strengths[k, j])
                    if strength:
                        self.edges.append(Edge(source, node, strength))
        if len(refs) == 1:
            self.sources[refs[0]] = [{node} for node in nodes]
        else:
            self.sources.update({r: [{n}] for r, n in zip(refs, nodes, strict=True)})

    def _new_nodes(self, layer: str, count: int) -> list[Node]:
        first = self._used[layer]
        self._used[layer] += count
        return [Node(layer, first + k) for k in range(count)]

    def _name(self, call: Call, rule: Rule) -> str:
        """The layer's name; of what is stacked, that of the model which gives it."""
        joins = [self._joined[ref] for ref in call.results if ref in self._joined]
        if isinstance(rule, Opaque) and joins:
            own, beside = self._places[id(call.operation)], self._places[id(joins[0])]
            for name, other in zip(own, beside, strict=False):
                if name != other:
                    return name
        return call.operation.name


def _reaching(tasks: list[Node], edges: list[Edge]) -> frozenset[Node]:
    live = set(tasks)
    for edge in reversed(edges):
        if edge.target in live:
            live.add(edge.source)
    return frozenset(live)


def _flat_output_names(model: keras.Model) -> list[str]:
    """Output names in the order in which Keras flattens a dict."""
    return keras.tree.flatten({name: name for name in model.output})


def _places(
    model: keras.Model, around: tuple[str, ...] = ()
) -> dict[int, tuple[str, ...]]:
    """By an operation's id, the names of the models around it and its own."""
    found = {}
    for operation in as_functional(model).operations:
        place = (*around, operation.name)
        found[id(operation)] = place
        if is_graph(operation):
            found |= _places(operation, place)
    return found


def _paths(calls: list[Call], outputs: list[Ref]) -> dict[Ref, tuple[int, ...]]:
    """The first way back from the outputs to each tensor, as positions of inputs."""
    nowhere = (len(outputs),)
    paths: dict[Ref, tuple[int, ...]]
    paths = {r: nowhere for call in calls for r in (*call.inputs, *call.results)}
    paths.update({ref: (k,) for k, ref in reversed(list(enumerate(outputs)))})
    for call in reversed(calls):
        path = min(paths[ref] for ref in call.results)
        for position, ref in enumerate(call.inputs):
            paths[ref] = min(paths[ref], (*path, position))
    return paths
