"""A Functional model as a list of calls, recorded through public Keras API."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import keras


@dataclass(frozen=True)
class Ref:
    """A tensor of a recorded graph; `shape` includes the batch."""

    number: int
    shape: tuple[int | None, ...]
    dtype: str

    def of_width(self, width: int | None) -> "Ref":
        """The same tensor with another size of its last axis."""
        return replace(self, shape=(*self.shape[:-1], width))


@dataclass(frozen=True)
class Call:
    """One call of an operation; tensors among its arguments are `Ref`s."""

    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    @property
    def inputs(self) -> list[Ref]:
        """Tensors among the arguments, in order, with repetitions."""
        return [leaf for leaf in _leaves((self.args, self.kwargs)) if _is_ref(leaf)]

    @property
    def results(self) -> list[Ref]:
        """The output tensors, flat."""
        return _leaves(self.outputs)

    @property
    def is_plain(self) -> bool:
        """Whether it has no arguments beside tensors, such as `training=True`."""
        leaves = _leaves((self.args, self.kwargs))
        return all(_is_ref(x) or x is None or x is False for x in leaves)

    def renamed(self, refs: Mapping[Ref, Ref]) -> "Call":
        """The same call with other tensors in some tensors' places."""
        args, kwargs, outputs = keras.tree.map_structure(
            lambda leaf: refs.get(leaf, leaf) if _is_ref(leaf) else leaf,
            (self.args, self.kwargs, self.outputs),
        )
        return Call(self.operation, args, kwargs, outputs)

    def with_tensors(self, tensors: list[Any]) -> tuple[tuple[Any, ...], dict]:
        """Arguments with `inputs` replaced, one by one, by `tensors`."""
        remaining = iter(tensors)
        return keras.tree.map_structure(
            lambda leaf: next(remaining) if _is_ref(leaf) else leaf,
            (self.args, self.kwargs),
        )


@dataclass(frozen=True)
class Graph:
    """Calls in an order in which each comes after those it reads."""

    inputs: Any
    calls: list[Call]
    outputs: Any

    def readers(self, ref: Ref) -> list[Call]:
        """The calls that read a tensor."""
        return [call for call in self.calls if ref in call.inputs]

    def makers(self) -> dict[Ref, Call]:
        """The call that gives each tensor, of those that are no inputs."""
        return {ref: call for call in self.calls for ref in call.results}

    def is_output(self, ref: Ref) -> bool:
        """Whether a tensor is an output of the model."""
        return ref in _leaves(self.outputs)

    def with_operations(self, others: Mapping[int, keras.Operation]) -> "Graph":
        """The graph with other operations, by `id` of those whose place they take."""
        calls = [
            replace(call, operation=others.get(id(call.operation), call.operation))
            for call in self.calls
        ]
        return replace(self, calls=calls)

    def with_calls(self, calls: list[Call], refs: Mapping[Ref, Ref]) -> "Graph":
        """The graph of other calls, with other tensors in some tensors' places."""
        outputs = keras.tree.map_structure(lambda ref: refs.get(ref, ref), self.outputs)
        return Graph(self.inputs, [call.renamed(refs) for call in calls], outputs)


class _StandIn(keras.Operation):
    """Is called in an operation's place, so that the operation gets no new node."""

    def __init__(self, operation: keras.Operation) -> None:
        super().__init__()
        self.operation = operation

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.operation(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.operation.compute_output_spec(*args, **kwargs)


def record(model: keras.Model) -> Graph:
    """Records the calls of a Functional or Sequential model.

    Functional and Sequential models inside it are recorded too and put in the
    place of their call.

    Args:
        model: A built Functional or Sequential model.

    Raises:
        ValueError: If the model is neither.
    """
    return _Recorder().record(model)


def is_graph(operation: Any) -> bool:
    """Whether an operation is a model whose calls can be recorded."""
    kinds = (keras.Sequential, _functional_class())
    return any(
        isinstance(operation, kind) and type(operation).call is kind.call
        for kind in kinds
    ) and bool(operation.built)


def as_functional(model: keras.Model) -> keras.Model:
    """The graph of a Functional or Sequential model, as a plain Functional model.

    Raises:
        ValueError: If the model is neither.
    """
    if not is_graph(model):
        raise ValueError(
            "`model` should be a built Functional or Sequential Keras model. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


@cache
def _functional_class() -> Any:
    tensor = keras.Input((1,))
    return type(keras.Model(tensor, tensor))


class _Recorder:
    def __init__(self) -> None:
        self._refs: dict[int, Ref] = {}
        self._alive: list[Any] = []  # ids stay unique while their tensors live
        self._count = 0

    def record(self, model: keras.Model) -> Graph:
        recorded: list[tuple[Any, Any, Any, Any]] = []

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = _StandIn(operation)(*args, **kwargs)
            recorded.append((operation, args, kwargs, outputs))
            return outputs

        # of the graph itself, since a subclass may not be re-creatable
        plain = as_functional(model)
        clone = keras.models.clone_model(
            plain, clone_function=lambda layer: layer, call_function=call
        )
        calls: list[Call] = []
        for operation, args, kwargs, outputs in recorded:
            args, kwargs = self._as_refs((args, kwargs))
            if is_graph(operation) and _is_plain_call(operation, args, kwargs):
                calls.extend(self._splice(operation, args, kwargs, outputs))
            else:
                calls.append(Call(operation, args, kwargs, self._as_refs(outputs)))
        return Graph(
            self._as_refs(clone.input),
            calls,
            self._as_refs(clone.output),
        )

    def _splice(
        self, model: Any, args: Any, kwargs: Any, outputs: Any
    ) -> Iterator[Call]:
        inner = self.record(model)
        given = [leaf for leaf in _leaves((args, kwargs)) if _is_ref(leaf)]
        replace = dict(zip(_leaves(inner.inputs), given, strict=True))
        for call in inner.calls:
            args, kwargs = call.with_tensors(
                [replace.get(ref, ref) for ref in call.inputs]
            )
            yield Call(call.operation, args, kwargs, call.outputs)
        for tensor, ref in zip(_leaves(outputs), _leaves(inner.outputs), strict=True):
            self._refs[id(tensor)] = replace.get(ref, ref)
            self._alive.append(tensor)

    def _as_refs(self, structure: Any) -> Any:
        return keras.tree.map_structure(self._as_ref, structure)

    def _as_ref(self, leaf: Any) -> Any:
        if not isinstance(leaf, keras.KerasTensor):
            return leaf
        if id(leaf) not in self._refs:
            self._refs[id(leaf)] = Ref(self._count, tuple(leaf.shape), leaf.dtype)
            self._alive.append(leaf)
            self._count += 1
        return self._refs[id(leaf)]


def _is_plain_call(model: Any, args: Any, kwargs: Any) -> bool:
    """Whether a nested model does nothing but run its graph on what it is given."""
    masks = keras.tree.flatten(kwargs.get("mask"))
    if kwargs.get("training") or any(mask is not None for mask in masks):
        return False
    given = [leaf for leaf in _leaves((args, kwargs)) if _is_ref(leaf)]
    inner = model.inputs
    return len(given) == len(inner) and all(
        len(ref.shape) == len(tensor.shape) and ref.dtype == tensor.dtype
        for ref, tensor in zip(given, inner, strict=True)
    )


def _leaves(structure: Any) -> list[Any]:
    return keras.tree.flatten(structure)


def _is_ref(leaf: Any) -> bool:
    return isinstance(leaf, Ref)
