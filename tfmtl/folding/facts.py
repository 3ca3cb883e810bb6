"""What is known of a recorded graph: slots, constants, and what is live.

Bits describe the slots of a tensor: one per slot where the tensor has a slot
axis, `(batch, slots, ...)`, and a single one for the tensor as a whole.
"""

from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.folding.graph import Call, Graph, Ref
from tfmtl.folding.protocol import GateLayer, MixtureLayer
from tfmtl.folding.rules import Opaque, Rule, TrainingOnly, rule_for

_DIGITS = {"bfloat16": 7, "float16": 10, "float32": 23}  # of the mantissa, in bits


class Facts:
    """Slots, constants (forwards) and liveness (backwards) of a graph.

    Args:
        graph: A recorded model.
        prune: Whether layers with slots may lose some; otherwise only what matters
            in training alone goes.
        serving: Whether the outputs in inference are what counts. Otherwise what
            matters in training alone stays, and nothing is a constant.

    Attributes:
        slots: Number of slots per tensor, `None` for a tensor without slot axis.
        constant: Bits: which slots have the same value for every example.
        reaches: Booleans `(bits, outputs)`: which outputs of the model each slot
            reaches, in the order in which they are flattened.
        pairs: Booleans `(outputs, experts)`: which weights of a gate may be other
            than 0.
        rules: The rule of each call, in the graph's order.
    """

    def __init__(self, graph: Graph, prune: bool = True, serving: bool = True) -> None:
        self.graph = graph
        self.slots: dict[Ref, int | None] = {}
        self.constant: dict[Ref, np.ndarray] = {}
        self._value: dict[Ref, np.ndarray | None] = {}
        self.reaches: dict[Ref, np.ndarray] = {}
        calls_of = Counter(id(call.operation) for call in graph.calls)
        self.pairs: dict[Ref, np.ndarray] = {}
        for call in graph.calls:
            gate, once = call.operation, calls_of[id(call.operation)] == 1
            if once and isinstance(gate, GateLayer):
                pairs = gate.open_pairs
                if not serving:
                    pairs = getattr(gate, "trained_pairs", pairs)
                self.pairs[call.results[0]] = pairs()
        self._trimmed = {
            ref for ref in self.pairs if _read_by_mixtures_alone(graph, ref)
        }
        self._outputs = keras.tree.flatten(graph.outputs)
        for ref in keras.tree.flatten(graph.inputs):
            self._declare(ref, None)
        self.rules: list[Rule] = []
        for call in graph.calls:
            shared = calls_of[id(call.operation)] > 1
            rule: Rule = Opaque()
            if serving and is_training_only(call):
                rule = TrainingOnly()
            elif prune:
                rule = rule_for(call, self.slots, self.pairs, shared, serving)
            self.rules.append(rule)
            for index, ref in enumerate(call.results):
                self._declare(ref, rule.output_slots(call, self.slots, index))
            if serving:
                self._find_constants(call, rule)
        for number, ref in enumerate(self._outputs):
            self.reaches[ref][:, number] = True
        for call, rule in zip(reversed(graph.calls), reversed(self.rules), strict=True):
            self._find_live(call, rule)

    def live(self, ref: Ref) -> np.ndarray:
        """Bits: which slots something that reaches an output reads."""
        return np.any(self.reaches[ref], axis=1)

    def kept(self, ref: Ref) -> list[int]:
        """Slots that the folded model computes: read and not constant."""
        return np.flatnonzero(self.live(ref) & ~self.constant[ref]).tolist()

    def columns(self, ref: Ref) -> list[int]:
        """Experts that the folded weights of a gate have a column for.

        Those that a live row reads, where mixtures alone read the weights, else all.
        """
        if ref not in self._trimmed:
            return list(range(ref.shape[2] or 0))
        return np.flatnonzero(self.pairs[ref][self.live(ref)].any(axis=0)).tolist()

    def values(self, ref: Ref) -> np.ndarray:
        """Values without the batch: those of constant slots, 0 elsewhere."""
        value = self._value[ref]
        if value is None:
            return np.zeros([size or 1 for size in ref.shape[1:]], "float32")
        return value

    def reads(self, call: Call, rule: Rule, output: int, position: int) -> np.ndarray:
        """Which bits of an input the bits of an output read, `(outputs, inputs)`."""
        return rule.reads(call, self.slots, output, position)

    def _declare(self, ref: Ref, slots: int | None) -> None:
        self.slots[ref] = slots
        self.constant[ref] = np.zeros(slots or 1, bool)
        self._value[ref] = None
        self.reaches[ref] = np.zeros((slots or 1, len(self._outputs)), bool)

    def _find_constants(self, call: Call, rule: Rule) -> None:
        for output, ref in enumerate(call.results):
            varying = np.zeros_like(self.constant[ref])
            for position, read in enumerate(call.inputs):
                reads = self.reads(call, rule, output, position)
                varying |= (reads & ~self.constant[read]).any(axis=1)
            self.constant[ref] = ~varying
        if any(self.constant[ref].any() for ref in call.results):
            self._evaluate(call, rule)

    def _evaluate(self, call: Call, rule: Rule) -> None:
        once = self._run(call, batch=1)
        twice = self._run(call, batch=2)
        for ref, one, two in zip(call.results, once, twice, strict=True):
            per_example = one.shape[:1] == (1,) and two.shape[:1] == (2,)
            if not per_example or (
                isinstance(rule, Opaque)
                and not all(_same(one[0], row, ref.dtype) for row in two)
            ):
                self.constant[ref][:] = False
            elif self.constant[ref].any():
                keep = self.constant[ref]
                if self.slots[ref] is not None:
                    keep = keep.reshape(-1, *[1] * (one.ndim - 2))
                self._value[ref] = np.where(keep, one[0], np.zeros_like(one[0]))

    def _run(self, call: Call, batch: int) -> list[np.ndarray]:
        filled = [self._filled(ref, batch) for ref in call.inputs]
        args, kwargs = call.with_tensors(filled)
        outputs = call.operation(*args, **kwargs)
        return [ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(outputs)]

    def _filled(self, ref: Ref, batch: int) -> Any:
        value = self.values(ref)
        return ops.convert_to_tensor(np.broadcast_to(value, (batch, *value.shape)))

    def _find_live(self, call: Call, rule: Rule) -> None:
        for output, ref in enumerate(call.results):
            reached = self.reaches[ref] & ~self.constant[ref][:, None]
            if not reached.any():
                continue
            for position, read in enumerate(call.inputs):
                reads = self.reads(call, rule, output, position)
                self.reaches[read] |= reads.T @ reached


def _same(one: np.ndarray, two: np.ndarray, dtype: str) -> bool:
    """Whether values are equal, floats up to the rounding of a sum in another order."""
    if not keras.backend.is_float_dtype(dtype):
        return np.array_equal(one, two)
    digits = _DIGITS.get(dtype, 52)
    one, two = one.astype("f8"), two.astype("f8")
    scale = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    atol = 2.0 ** (4 - digits) * scale
    return np.allclose(one, two, rtol=0, atol=atol, equal_nan=True)


def _read_by_mixtures_alone(graph: Graph, ref: Ref) -> bool:
    readers = [call for call in graph.calls if ref in call.inputs]
    return ref not in keras.tree.flatten(graph.outputs) and all(
        isinstance(call.operation, MixtureLayer) and call.inputs[0] != ref
        for call in readers
    )


def is_training_only(call: Call) -> bool:
    """Whether a call's inputs matter in training alone: its layer says so."""
    return getattr(call.operation, "training_only", False)


def training_only_inputs(graph: Graph) -> set[Ref]:
    """Inputs that are read, and only by calls which need them in training alone."""
    found = set()
    for ref in keras.tree.flatten(graph.inputs):
        readers = [call for call in graph.calls if ref in call.inputs]
        if readers and all(map(is_training_only, readers)):
            found.add(ref)
    return found
