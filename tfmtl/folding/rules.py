"""How slots pass through a call: one rule per kind of operation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfmtl.folding import stock
from tfmtl.folding.graph import Call, Ref
from tfmtl.folding.protocol import GateLayer, MixtureLayer, SlotLayer

Slots = Mapping[Ref, int | None]
Pairs = Mapping[Ref, np.ndarray]


class Rule(ABC):
    """What an output slot reads, and how the call is made on fewer slots."""

    @property
    def reads_apart(self) -> bool:
        """Whether the rebuilt call takes its input slots one by one."""
        return False

    @abstractmethod
    def output_slots(self, call: Call, slots: Slots, output: int) -> int | None:
        """Number of slots of an output, `None` for a tensor without slots."""

    @abstractmethod
    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        """Booleans `(output bits, input bits)` for one input of the call."""

    @abstractmethod
    def rebuild(self, call: Call, builder: Any) -> list[Any]:
        """Makes the call again on kept slots; returns the output tensors."""


class Opaque(Rule):
    """Reads all of its inputs, whole."""

    def output_slots(self, call: Call, slots: Slots, output: int) -> int | None:
        return None

    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        return np.ones((1, slots[call.inputs[position]] or 1), bool)

    def rebuild(self, call: Call, builder: Any) -> list[Any]:
        return builder.call(call, [builder.read(ref) for ref in call.inputs])


class TrainingOnly(Opaque):
    """Reads nothing in inference: what it gives is the same for every example."""

    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        return np.zeros((1, slots[call.inputs[position]] or 1), bool)


class OfSlotLayer(Rule):
    """A layer that knows its slots and makes its own smaller copy."""

    def __init__(self, layer: SlotLayer, serving: bool = True) -> None:
        self._layer = layer
        reads = layer.slot_reads
        if not serving:
            reads = getattr(layer, "trained_reads", reads)
        self._reads: np.ndarray = np.asarray(reads(), bool)

    @property
    def reads_apart(self) -> bool:
        """Whether the folded layer takes its input slots as a list."""
        return getattr(self._layer, "reads_apart", False)

    def output_slots(self, call: Call, slots: Slots, output: int) -> int | None:
        ref = call.results[output]
        has_slots = len(ref.shape) > 2 and ref.shape[1] == len(self._reads)
        return len(self._reads) if has_slots else None

    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        reads = self._reads
        if len(call.results) > 1:
            reads = reads[[output]]
        if len(call.inputs) > 1:
            return reads[:, [position]]
        if slots[call.inputs[0]] is None:
            return np.any(reads, axis=1)[:, None]
        return reads

    def rebuild(self, call: Call, builder: Any) -> list[Any]:
        outputs = np.array(builder.kept_slots(call.results))
        wanted = self._reads[outputs].any(axis=0)
        inputs = builder.varying(call.inputs, wanted)
        layer, order = self._fold(call, builder, outputs, np.array(inputs))
        if layer is None:
            slots = np.zeros(len(self._reads), int)
            slots[order] = inputs
            builder.set_view(call.results[0], call.inputs[0], slots.tolist())
            return [None]
        given = builder.given(call.inputs, inputs, self.reads_apart)
        if isinstance(call.args[0], list | tuple) and not isinstance(given, list):
            given = [given]  # a list of one stays a list
        if builder.layout is not None and hasattr(layer, "for_batch"):
            layer, regrouped = layer.for_batch(*builder.layout)
            order = order[regrouped]
        order = order.tolist()
        if len(call.results) > 1:
            apart = dict(zip(order, builder.add(layer, given), strict=True))
            return [apart.get(k) for k in range(len(call.results))]
        [result] = call.results
        builder.set_order(result, order)
        if getattr(layer, "gains_apart", False) and builder.read_apart_only(result):
            layer.apart = True
            apart = dict(zip(order, builder.add(layer, given), strict=True))
            builder.set_apart(result, apart)
            return [None]
        return keras.tree.flatten(builder.add(layer, given))

    def _fold(
        self, call: Call, builder: Any, outputs: np.ndarray, inputs: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        return builder.smaller(call, outputs, inputs)


class OfGate(OfSlotLayer):
    """A gate, whose weights are a matrix: outputs are slots, experts columns."""

    def __init__(self, layer: GateLayer, serving: bool = True) -> None:
        slots: Any = layer
        super().__init__(slots, serving)

    def _fold(
        self, call: Call, builder: Any, outputs: np.ndarray, inputs: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        columns = np.array(builder.facts.columns(call.results[0]))
        return builder.smaller(call, outputs, inputs, columns)


class OfMixture(Rule):
    """A mixture reads the experts that its gate's open pairs name."""

    def __init__(self, layer: MixtureLayer, open_pairs: np.ndarray) -> None:
        self._layer = layer
        self._reads = layer.expert_reads(open_pairs)

    def output_slots(self, call: Call, slots: Slots, output: int) -> int | None:
        return len(self._reads)

    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        slotted = slots[call.inputs[position]] is not None
        reads = self._reads if position == 0 else np.eye(len(self._reads), dtype=bool)
        return reads if slotted else np.any(reads, axis=1)[:, None]

    def rebuild(self, call: Call, builder: Any) -> list[Any]:
        [result] = call.results
        experts, weights = call.inputs
        kept = builder.facts.kept(result)
        constant = builder.facts.constant[weights]
        if np.all(constant[kept] if len(constant) > 1 else constant):
            return self._static(builder, result, experts, weights)
        columns = builder.facts.columns(weights)
        tensors = [builder.read(experts, columns), builder.read(weights, kept)]
        return builder.call(call, tensors)

    def _static(self, builder: Any, result: Ref, experts: Ref, weights: Ref) -> Any:
        """The mixture as a slot layer of the experts alone."""
        layer: Any = self._layer.fold_static(builder.facts.values(weights))
        outputs = np.array(builder.facts.kept(result))
        wanted = layer.slot_reads()[outputs].any(axis=0)
        inputs = builder.varying([experts], wanted)
        given = builder.given([experts], inputs, apart=False)
        constants = builder.constants([experts])
        folded, order = layer.fold(outputs, np.array(inputs, int), constants)
        builder.set_order(result, order.tolist())
        return [given if folded is None else builder.add(folded, given)]


class SlotWise(Rule):
    """Output slot k reads slot k of every input that has slots."""

    def __init__(self, count: int) -> None:
        self._count = count

    def output_slots(self, call: Call, slots: Slots, output: int) -> int | None:
        return self._count

    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        if slots[call.inputs[position]] == self._count:
            return np.eye(self._count, dtype=bool)
        return np.ones((self._count, slots[call.inputs[position]] or 1), bool)

    def rebuild(self, call: Call, builder: Any) -> list[Any]:
        [result] = call.results
        kept = set(builder.facts.kept(result))
        slotted = [ref for ref in call.inputs if builder.facts.slots[ref] is not None]
        order = [k for k in builder.order(slotted[0]) if k in kept]
        order += sorted(kept - set(order))
        builder.set_order(result, order)
        tensors = []
        for ref in call.inputs:
            per_slot = len(ref.shape) > 2 and ref.shape[1] == self._count
            tensors.append(builder.read(ref, order if per_slot else None))
        return builder.call(call, tensors)


class Select(Rule):
    """Each output is one slot of the input, or several in a row."""

    def __init__(self, selected: list[int | list[int]]) -> None:
        self._selected = selected  # per output

    @property
    def reads_apart(self) -> bool:
        """Whether it takes single slots only."""
        return not any(isinstance(selected, list) for selected in self._selected)

    def output_slots(self, call: Call, slots: Slots, output: int) -> int | None:
        selected = self._selected[output]
        return len(selected) if isinstance(selected, list) else None

    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        every = np.arange(slots[call.inputs[position]] or 1)
        return np.equal.outer(np.atleast_1d(self._selected[output]), every)

    def rebuild(self, call: Call, builder: Any) -> list[Any]:
        [read] = call.inputs
        if len(call.results) > 1:  # all single slots: one operation takes them apart
            apart = builder.unstack(read, call.operation.name)
            return [apart.get(slot) for slot in self._selected]
        [selected] = self._selected
        if isinstance(selected, list):
            builder.set_view(call.results[0], read, selected)
            return [None]
        return [builder.slot(read, selected, call.operation.name)]


class Join(Rule):
    """The inputs' slots one after the other; an input without slots is one."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self._starts = np.cumsum([0, *sizes]).tolist()

    def output_slots(self, call: Call, slots: Slots, output: int) -> int | None:
        return self._starts[-1]

    def reads(self, call: Call, slots: Slots, output: int, position: int) -> np.ndarray:
        size, start = self._sizes[position], self._starts[position]
        bits = slots[call.inputs[position]] or 1
        reads = np.zeros((self._starts[-1], bits), bool)
        reads[start : start + size] = np.eye(size, dtype=bool) if bits == size else True
        return reads

    def rebuild(self, call: Call, builder: Any) -> list[Any]:
        [result] = call.results
        kept = builder.facts.kept(result)
        parts = []
        for ref, start, size in zip(
            call.inputs, self._starts, self._sizes, strict=False
        ):
            own = [k - start for k in kept if start <= k < start + size]
            if own:
                stacked = len(ref.shape) == len(result.shape)
                parts.append(builder.read(ref, own if stacked else None))
        if len(parts) == 1 and len(parts[0].shape) == len(result.shape):
            return parts
        return builder.call_operation(call.operation, (parts,), {})


def rule_for(
    call: Call, slots: Slots, pairs: Pairs, shared: bool, serving: bool = True
) -> Rule:
    """The rule of a call.

    Args:
        call: The call.
        slots: Number of slots of the tensors it reads.
        pairs: Open pairs of the weights of gates.
        shared: Whether its operation is called elsewhere too. A layer with
            slots then stays whole: its calls must keep one set of weights.
        serving: Whether what is read in inference counts, or in training.
    """
    operation: Any = call.operation
    if isinstance(operation, MixtureLayer):
        weights = call.inputs[1]
        every = np.ones([size or 1 for size in weights.shape[1:]], bool)
        return OfMixture(operation, pairs.get(weights, every))
    if isinstance(operation, SlotLayer) and shared:
        return Opaque()
    if isinstance(operation, GateLayer):
        return OfGate(operation, serving)
    if isinstance(operation, SlotLayer):
        return OfSlotLayer(operation, serving)
    if stock.is_join(operation):
        sizes = [_join_size(call, ref) for ref in call.inputs]
        if all(sizes) and _only_tensors(call):
            return Join(sizes)
    slotted = [ref for ref in call.inputs if slots[ref] is not None]
    if not slotted:
        return Opaque()
    count = slots[slotted[0]] or 0
    selected = stock.selected_slots(call, count)
    if selected is not None:
        return Select(selected)
    if (
        stock.is_slot_wise(operation, len(slotted[0].shape))
        and all(slots[ref] == count for ref in slotted)
        and all(_has_axis(ref, count) for ref in call.results)
        and len(call.results) == 1
        and _only_tensors_and_scalars(call)
    ):
        return SlotWise(count)
    return Opaque()


def _join_size(call: Call, ref: Ref) -> int:
    """Slots that an input brings into a stack or concatenation; 0 if unknown."""
    [result] = call.results
    if len(result.shape) < 3:
        return 0
    return 1 if len(ref.shape) < len(result.shape) else ref.shape[1] or 0


def _has_axis(ref: Ref, count: int | None) -> bool:
    return len(ref.shape) > 2 and ref.shape[1] == count


def _only_tensors(call: Call) -> bool:
    return all(isinstance(leaf, Ref) for leaf in keras.tree.flatten(call.args))


def _only_tensors_and_scalars(call: Call) -> bool:
    leaves = keras.tree.flatten((call.args, call.kwargs))
    plain = (Ref, int, float, str, bool, type(None))
    return all(isinstance(leaf, plain) for leaf in leaves)
