"""Which sub-networks a model has, and what reaches what."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import Call, Ref, record
from tfmtl.folding.rules import OfGate, OfMixture, OfSlotLayer, Rule


@dataclass(frozen=True)
class Node:
    """A sub-network: slot `slot` of layer `layer`; or a task, with slot 0."""

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
        levels: Nodes per level; the last level holds the tasks.
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
    reader = _Reader(facts)
    for call, rule in zip(facts.graph.calls, facts.rules, strict=True):
        reader.read(call, rule)
    refs = dict(
        zip(
            _flat_output_names(model),
            keras.tree.flatten(facts.graph.outputs),
            strict=True,
        )
    )
    tasks = [Node(name, 0) for name in model.output]
    for node in tasks:
        sources = reader.sources[refs[node.layer]]
        reader.connect(node, sorted_nodes(set().union(*sources)))
        if facts.constant[refs[node.layer]].all():
            reader.constant.add(node)
    return Topology(
        [*reader.levels, tasks],
        reader.edges,
        _reaching(tasks, reader.edges),
        frozenset(reader.constant),
    )


def sorted_nodes(nodes: set[Node]) -> list[Node]:
    """Nodes in a fixed order."""
    return sorted(nodes, key=lambda node: (node.layer, node.slot))


class _Reader:
    """Follows, slot by slot, which sub-networks a tensor comes from."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.levels: list[list[Node]] = []
        self.edges: list[Edge] = []
        self.constant: set[Node] = set()
        self.sources: dict[Ref, list[set[Node]]] = {
            ref: [set()] for ref in keras.tree.flatten(facts.graph.inputs)
        }

    def read(self, call: Call, rule: Rule) -> None:
        slotted = isinstance(rule, OfSlotLayer) and not isinstance(rule, OfGate)
        sub_networks = isinstance(rule, OfMixture) or (
            slotted and hasattr(call.operation, "flops")
        )
        for output, ref in enumerate(call.results):
            found: list[set[Node]] = [set() for _ in self._facts.constant[ref]]
            for position, read in enumerate(call.inputs):
                reads = self._facts.reads(call, rule, output, position)
                for k, row in enumerate(reads):
                    for j in np.flatnonzero(row):
                        found[k] |= self.sources[read][j]
            self.sources[ref] = found
        if sub_networks:
            is_mixture = isinstance(rule, OfMixture)
            self._add_level(call, call.inputs[:1] if is_mixture else call.inputs)
            if is_mixture:
                self._add_selectors(call)

    def connect(self, node: Node, sources: list[Node]) -> None:
        self.edges.extend(Edge(source, node, 1.0) for source in sources)

    def _add_selectors(self, call: Call) -> None:
        [result], weights = call.results, call.inputs[1]
        selectors = self.sources[weights]
        for k, reached in enumerate(self.sources[result]):
            [node] = reached
            for source in sorted_nodes(selectors[k if len(selectors) > 1 else 0]):
                self.edges.append(Edge(source, node, 1.0, selects=True))

    def _add_level(self, call: Call, inputs: list[Ref]) -> None:
        operation: Any = call.operation
        refs = call.results
        read = [sources for ref in inputs for sources in self.sources[ref]]
        reached = [sources for ref in refs for sources in self.sources[ref]]
        constant = np.concatenate([self._facts.constant[ref] for ref in refs])
        nodes = [Node(operation.name, k) for k in range(len(reached))]
        self.levels.append(nodes)
        self.constant.update(node for node in nodes if constant[node.slot])
        strengths = operation.strengths() if hasattr(operation, "strengths") else None
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


def _reaching(tasks: list[Node], edges: list[Edge]) -> frozenset[Node]:
    live = set(tasks)
    for edge in reversed(edges):
        if edge.target in live:
            live.add(edge.source)
    return frozenset(live)


def _flat_output_names(model: keras.Model) -> list[str]:
    """Output names in the order in which Keras flattens a dict."""
    return keras.tree.flatten({name: name for name in model.output})
