"""The smaller model, built from what is kept."""

import re
import tempfile
from typing import Any

import keras
import numpy as np

from tfmtl.folding import stock
from tfmtl.folding.facts import Facts, training_only_inputs
from tfmtl.folding.graph import Call, Ref, as_functional
from tfmtl.layers import BroadcastConstant, GatherSlots

_UNNAMED = re.compile(r"^variable_\d+$")  # Keras counts weights without a name


def rebuild(
    model: keras.Model,
    facts: Facts,
    drop_inputs: bool = False,
    layout: tuple[int | None, str] | None = None,
) -> keras.Model:
    """Builds the model of what is kept, with the same inputs and outputs.

    Where the inputs are a dict, those that matter in training alone are left out, and
    of a dict or list with `drop_inputs` all that reach no output. A
    model class of its own stays the same where it has a method
    `of_graph(inputs, outputs, name)`, which makes it anew. Layers that have layouts are
    in the one for a `layout`, a batch size and a device.
    """
    return Builder(facts, model, drop_inputs, layout).build()


class Builder:
    """Tensors of the new model, by the tensors of the recorded one.

    A tensor with slots holds its kept slots only, in the order that suits the
    layer which computes them; `read` gives the slots that are asked for, with
    constants filled in.
    """

    def __init__(
        self,
        facts: Facts,
        model: keras.Model,
        drop_inputs: bool = False,
        layout: tuple[int | None, str] | None = None,
    ) -> None:
        self.facts = facts
        self.layout = layout
        self.model = model
        self.inputs = _same_inputs(as_functional(model))
        self.tensors: dict[Ref, Any] = dict(
            zip(
                keras.tree.flatten(facts.graph.inputs),
                keras.tree.flatten(self.inputs),
                strict=True,
            )
        )
        self.kept_inputs = self._kept_inputs(drop_inputs)
        self._read: dict[tuple[Ref, tuple[int, ...] | None], Any] = {}
        self._order: dict[Ref, list[int]] = {}
        self._views: dict[Ref, tuple[Ref, list[int]]] = {}
        self._apart: dict[Ref, dict[int, Any]] = {}
        self._copies: dict[int, keras.Operation] = {}
        self.names = {tensor.name for tensor in keras.tree.flatten(self.inputs)}
        makers = facts.graph.makers()
        self._producer = {ref: call.operation.name for ref, call in makers.items()}

    def build(self) -> keras.Model:
        """Makes every call that something kept needs, and the model."""
        for call, rule in zip(self.facts.graph.calls, self.facts.rules, strict=True):
            if any(self.facts.kept(ref) for ref in call.results):
                tensors = rule.rebuild(call, self)
                self.tensors.update(zip(call.results, tensors, strict=True))
        outputs = keras.tree.map_structure(self.read, self.facts.graph.outputs)
        make = getattr(self.model, "of_graph", keras.Model)
        return make(self.kept_inputs, outputs, name=self.model.name)

    def read(self, ref: Ref, wanted: list[int] | None = None) -> Any:
        """A tensor with the slots `wanted`, or all of them."""
        key = (ref, None if wanted is None else tuple(wanted))
        if key not in self._read:
            self._read[key] = self._gather(ref, wanted)
        return self._read[key]

    def order(self, ref: Ref) -> list[int]:
        """The slots that a tensor of the new model holds, in order."""
        if self.facts.slots[ref] is None:
            return list(range(ref.shape[1] or 0))
        kept = self.facts.kept(ref)
        if ref in self._views:
            source, own = self._views[ref]
            held = self.order(source)
            return sorted(kept, key=lambda k: held.index(own[k]))
        return self._order.get(ref, kept)

    def set_order(self, ref: Ref, order: list[int]) -> None:
        """Says that a tensor holds its kept slots in another order."""
        self._order[ref] = order

    def set_view(self, ref: Ref, read: Ref, slots: list[int]) -> None:
        """Says that a tensor's slots are slots of another one, which is read instead.

        Args:
            ref: The tensor, which needs not be made.
            read: The other one.
            slots: Slot of the other for each slot that is kept; else anything.
        """
        source, own = self._views.get(read, (read, None))
        of_read = range(read.shape[1] or 0) if own is None else own
        self._views[ref] = source, [of_read[k] for k in slots]

    def kept_slots(self, refs: list[Ref]) -> list[int]:
        """Kept slots of one tensor with slots, or of several single ones."""
        if len(refs) == 1:
            return self.facts.kept(refs[0])
        return [k for k, ref in enumerate(refs) if self.facts.kept(ref)]

    def varying(self, refs: list[Ref], wanted: np.ndarray) -> list[int]:
        """The wanted slots that are not constant, in order, of a layer's inputs."""
        facts = self.facts
        if len(refs) > 1:
            constant = np.array([facts.constant[ref][0] for ref in refs])
            return np.flatnonzero(wanted & ~constant).tolist()
        [ref] = refs
        if len(ref.shape) == 2:
            return [0]
        constant = facts.constant[ref] if facts.slots[ref] else np.zeros(1, bool)
        varying = wanted & ~constant
        return [k for k in self.order(ref) if varying[k]]

    def given(self, refs: list[Ref], inputs: list[int], apart: bool) -> Any:
        """The tensor, or list of tensors, that holds slots of a layer's inputs."""
        if len(refs) > 1:
            return [self.read(refs[k]) for k in inputs]
        [ref] = refs
        if len(ref.shape) == 2:
            return self.read(ref)
        if apart and ref in self._apart:
            return [self._apart[ref][k] for k in inputs]
        return self.read(ref, inputs)

    def constants(self, refs: list[Ref]) -> np.ndarray:
        """Values `(slots, width)` where constant, else 0."""
        values = [self.facts.values(ref) for ref in refs]
        return np.atleast_2d(values[0]) if len(values) == 1 else np.stack(values)

    def read_apart_only(self, ref: Ref) -> bool:
        """Whether every reader of a tensor takes its slots one by one."""
        readers = [
            rule.reads_apart
            for call, rule in zip(self.facts.graph.calls, self.facts.rules, strict=True)
            if ref in call.inputs and any(map(self.facts.kept, call.results))
        ]
        is_output = ref in keras.tree.flatten(self.facts.graph.outputs)
        return all(readers) and not is_output

    def set_apart(self, ref: Ref, slots: dict[int, Any]) -> None:
        """Says that a tensor's kept slots are tensors of their own."""
        self._apart[ref] = slots

    def slot(self, ref: Ref, slot: int, name: str) -> Any:
        """One slot that is kept, without the slot axis."""
        if ref in self._apart:
            return self._apart[ref][slot]
        if ref in self._views:
            source, own = self._views[ref]
            return self.slot(source, own[slot], name)
        position = self.order(ref).index(slot)
        take = stock.get_item()(name=self._unique(name))
        return take(self.tensors[ref], (slice(None), position))

    def unstack(self, ref: Ref, name: str) -> dict[int, Any]:
        """The slots that are kept, each without the slot axis."""
        if ref in self._apart:
            return self._apart[ref]
        held = self.order(ref)
        apart = stock.unstack()(len(held), axis=1, name=self._unique(name))
        return dict(zip(held, apart(self.read(ref, held)), strict=True))

    def smaller(
        self, call: Call, outputs: np.ndarray, inputs: np.ndarray, *columns: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        """A layer with slots for some of them, and its outputs in order."""
        layer: Any = call.operation
        return layer.fold(outputs, inputs, self.constants(call.inputs), *columns)

    def call(self, call: Call, tensors: list[Any]) -> list[Any]:
        """Makes a call again, on other tensors."""
        args, kwargs = call.with_tensors(tensors)
        return self.call_operation(call.operation, args, kwargs)

    def call_operation(self, operation: Any, args: Any, kwargs: Any) -> list[Any]:
        """Calls a copy of an operation; an operation has one copy."""
        copy = self._copies.get(id(operation))
        if copy is not None:
            return keras.tree.flatten(copy(*args, **kwargs))
        copy = _copy(operation, self._unique(self.name_of(operation)))
        self._copies[id(operation)] = copy
        outputs = keras.tree.flatten(copy(*args, **kwargs))
        _copy_state(operation, copy)
        return outputs

    def name_of(self, operation: keras.Operation) -> str:
        """The name of an operation's copy, unless it is taken."""
        return operation.name

    def add(self, layer: keras.layers.Layer, tensor: Any) -> Any:
        """Calls a layer that is new, under a name that is free."""
        layer.name = self._unique(layer.name)
        return layer(tensor)

    def _kept_inputs(self, drop: bool) -> Any:
        refs: Any = self.facts.graph.inputs
        flat = keras.tree.flatten(refs)
        dropped = flat if drop else training_only_inputs(self.facts.graph)
        unread = {ref for ref in dropped if not self.facts.live(ref).any()}
        if isinstance(refs, dict):
            kept = {n: x for n, x in self.inputs.items() if refs[n] not in unread}
            return kept or dict([*self.inputs.items()][:1])  # a Keras model has one
        if drop and isinstance(refs, list | tuple):
            pairs = zip(self.inputs, refs, strict=True)
            return [x for x, ref in pairs if ref not in unread] or self.inputs[:1]
        return self.inputs

    def _gather(self, ref: Ref, wanted: list[int] | None) -> Any:
        facts, slots = self.facts, self.facts.slots[ref]
        if slots is None:
            if facts.constant[ref][0]:
                return self._constant(ref, facts.values(ref))
            if wanted is None:
                return self.tensors[ref]
        wanted = list(range(slots or 0)) if wanted is None else wanted
        source, own = self._views.get(ref, (ref, range(ref.shape[1] or 0)))
        held = self.order(source)
        kept = held if slots is None else facts.kept(ref)
        indices = [held.index(own[k]) if k in kept else -1 for k in wanted]
        if indices == list(range(len(held))):
            return self.tensors[source]
        if not set(wanted) & set(kept):
            return self._constant(ref, self._values(ref)[wanted])
        tensor = self.tensors[source]
        name = self._named(ref, "slots")
        if ref in self._views:
            name = self._unique(self._producer[ref])
        layer = GatherSlots(indices, name=name, dtype=tensor.dtype)
        layer.build(tensor.shape)
        if layer.constants is not None:
            filled = [k for k in wanted if k not in kept]
            layer.constants.assign(self._values(ref)[filled])
        return layer(tensor)

    def _values(self, ref: Ref) -> np.ndarray:
        """Values of constant slots; of a gate's weights for the experts kept."""
        values = self.facts.values(ref)
        if ref in self.facts.pairs:
            values = values[:, self.facts.columns(ref)]
        return values

    def _constant(self, ref: Ref, value: np.ndarray) -> Any:
        layer = BroadcastConstant(
            value.shape, name=self._named(ref, "constant"), dtype=str(value.dtype)
        )
        carrier = keras.tree.flatten(self.kept_inputs)[0]
        layer.autocast = False
        layer.build(carrier.shape)
        layer.value.assign(value)
        return layer(carrier)

    def _named(self, ref: Ref, what: str) -> str:
        return self._unique(f"{self._producer.get(ref, 'input')}_{what}")

    def _unique(self, name: str) -> str:
        free, count = name, 1
        while free in self.names:
            free, count = f"{name}_{count}", count + 1
        self.names.add(free)
        return free


def _same_inputs(model: keras.Model) -> Any:
    layers = {
        id(layer.output): layer
        for layer in model.layers
        if isinstance(layer, keras.layers.InputLayer)
    }
    return keras.tree.map_structure(
        lambda tensor: _copy(layers[id(tensor)], tensor.name).output, model.input
    )


def _copy(operation: keras.Operation, name: str) -> keras.Operation:
    try:
        return type(operation).from_config({**operation.get_config(), "name": name})
    except ValueError as error:
        raise ValueError(
            f"Layer {operation.name!r} should be one that its configuration makes "
            "again. A Lambda is none, unless its function is registered by "
            "`keras.saving.register_keras_serializable`: write a subclass of "
            "`keras.layers.Layer` with the function as its `call`. "
            f"Received: {type(operation).__name__}"
        ) from error


def _copy_state(operation: Any, copy: Any) -> None:
    if not isinstance(operation, keras.layers.Layer):
        return
    check_weights(operation, copy)
    copy.trainable = operation.trainable
    for old, new in zip(operation.weights, copy.weights, strict=True):
        new.trainable = old.trainable
    copy.set_weights(operation.get_weights())
    if hasattr(operation, "load_assets"):  # vocabularies learned by `adapt`
        with tempfile.TemporaryDirectory() as folder:
            operation.save_assets(folder)
            copy.load_assets(folder)


def check_weights(operation: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Refuses a copy whose weights are not those of the layer, one by one."""
    found, expected = (
        [
            (_UNNAMED.sub("variable", weight.name), weight.shape)
            for weight in each.weights
        ]
        for each in (operation, copy)
    )
    if found != expected:
        raise ValueError(
            f"Layer {operation.name!r} should have the weights that its configuration "
            "gives it, in that order; fold and export before what adds others, such as "
            "`quantize('float8')`. Received: "
            f"{[name for name, _ in found]}, not {[name for name, _ in expected]}"
        )
