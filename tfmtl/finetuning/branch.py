"""What a new task needs of its own, made after what another task has."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.finetuning.own import Own
from tfmtl.finetuning.trained import Trimmer
from tfmtl.folding import stock
from tfmtl.folding.graph import Call, Ref
from tfmtl.folding.rebuild import check_weights
from tfmtl.layers import BroadcastConstant, GatherSlots
from tfmtl.layers.initializers import copy_of


class Branch(Trimmer):
    """The calls of a task's own slots once more, beside a copy of the model.

    Layers are new, with weights of their own, which are those of the model where the
    task took a layer that it shared; what is not the task's own is read from the copy.

    Args:
        facts: The slots of the model, with those of the task.
        trunk: The copy, which was built.
        name: Start of the new layers' names, which also tells seeds apart.
    """

    def __init__(self, facts: Own, trunk: Trimmer, name: str) -> None:
        super().__init__(facts, trunk.model)
        self._own = facts
        self._trunk = trunk
        self._prefix = name
        self.names |= trunk.names
        self._branches: dict[int, keras.Operation] = {}

    def grow(self, ref: Ref) -> Any:
        """Makes the calls and returns the new task's tensor in this one's place."""
        calls = zip(self.facts.graph.calls, self.facts.rules, strict=True)
        for call, rule in calls:
            if any(self.facts.kept(result) for result in call.results):
                tensors = rule.rebuild(call, self)
                self.tensors.update(zip(call.results, tensors, strict=True))
            if ref in call.results:
                break
        return self.read(ref)

    def smaller(
        self, call: Call, outputs: np.ndarray, inputs: np.ndarray, *columns: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        """A new layer like the call's, for some of its slots."""
        layer: Any = call.operation
        if _learns(layer):
            layer = _fresh(layer, self.name_of(layer))
            given = call.args[0]
            several = isinstance(given, list | tuple)
            layer.build([ref.shape for ref in given] if several else given.shape)
            self._start(layer, call.operation)
        return self.part(call, layer, outputs, inputs, *columns)

    def call_operation(self, operation: Any, args: Any, kwargs: Any) -> list[Any]:
        """Calls a new operation like this one, which has one."""
        if not _learns(operation):  # the same, vocabularies included
            return super().call_operation(operation, args, kwargs)
        layer: Any = self._branches.get(id(operation))
        if layer is not None:
            return keras.tree.flatten(layer(*args, **kwargs))
        layer = _fresh(operation, self._unique(self.name_of(operation)))
        self._branches[id(operation)] = layer
        outputs = keras.tree.flatten(layer(*args, **kwargs))
        self._start(layer, operation)
        return outputs

    def _start(self, layer: Any, old: Any) -> None:
        """Gives a new layer the weights of a shared one that the task took."""
        if id(old) in self._own.taken:
            check_weights(old, layer)
            layer.set_weights(old.get_weights())

    def name_of(self, operation: keras.Operation) -> str:
        """The name of a new operation, unless it is taken."""
        return f"{self._prefix}_{operation.name}"

    def varying(self, refs: list[Ref], wanted: np.ndarray) -> list[int]:
        """The wanted slots, in order, of a layer's inputs."""
        if len(refs) == 1 and len(refs[0].shape) == 2:
            return [0]
        return np.flatnonzero(wanted).tolist()

    def order(self, ref: Ref) -> list[int]:
        """The slots that a new tensor holds, in order."""
        if self.facts.slots[ref] is None:
            return list(range(ref.shape[1] or 0))
        return self._order.get(ref, self.facts.kept(ref))

    def slot(self, ref: Ref, slot: int, name: str) -> Any:
        """One slot without the slot axis, new where it is the task's own."""
        tensor, position = self._place(ref, slot)
        take = stock.get_item()(name=self._unique(f"{self._prefix}_{name}"))
        return take(tensor, (slice(None), position))

    def unstack(self, ref: Ref, name: str) -> dict[int, Any]:
        """All slots, each without the slot axis."""
        return {k: self.slot(ref, k, name) for k in range(self.facts.slots[ref] or 0)}

    def _gather(self, ref: Ref, wanted: list[int] | None) -> Any:
        if self.facts.slots[ref] is None:
            own = self._own.own[ref][0]
            tensor = (self if own else self._trunk).tensors[ref]
            if wanted in (None, list(range(ref.shape[1] or 0))):
                return tensor
            return self._selected(tensor, wanted or [])
        slots = range(self.facts.slots[ref] or 0) if wanted is None else wanted
        places = [self._place(ref, k) for k in slots]
        sources = list({id(tensor): tensor for tensor, _ in places}.values())
        starts = np.cumsum([0, *(tensor.shape[1] for tensor in sources)])
        indices = [
            int(starts[[tensor is source for source in sources].index(True)]) + position
            for tensor, position in places
        ]
        joined = sources[0] if len(sources) == 1 else ops.concatenate(sources, axis=1)
        return self._selected(joined, indices)

    def _selected(self, tensor: Any, indices: list[int]) -> Any:
        if indices == list(range(tensor.shape[1])):
            return tensor
        name = self._unique(f"{self._prefix}_slots")
        return GatherSlots(indices, name=name, dtype=tensor.dtype)(tensor)

    def _place(self, ref: Ref, slot: int) -> tuple[Any, int]:
        """The tensor that holds a slot, and where."""
        if not self._own.own[ref][slot]:
            return self._trunk.tensors[ref], slot
        if ref in self._views:
            source, slots = self._views[ref]
            return self._place(source, slots[slot])
        return self.tensors[ref], self.order(ref).index(slot)


def _fresh(layer: Any, name: str) -> Any:
    """A layer like this one, with weights of its own, that trains."""
    new = copy_of(layer, name)
    new.trainable = True
    return new


def _learns(operation: Any) -> bool:
    """Whether an operation has weights to learn, also where they are frozen."""
    if isinstance(operation, GatherSlots | BroadcastConstant):
        return False
    return bool(getattr(operation, "weights", ())) and not hasattr(
        operation, "load_assets"
    )
