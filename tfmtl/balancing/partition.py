"""Which parameters tasks share: read from the graph of a Functional model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

Tensor = Any


@dataclass(frozen=True)
class Partition:
    """A model's trainable variables, by the tasks whose outputs depend on them.

    Attributes:
        tasks: Names of the tasks.
        shared: Variables that two or more tasks' outputs depend on.
        own: Those that a single task's output depends on, by task.
        cut: The model's graph, cut where a task reads what is shared.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.shared_bottom([x], tasks)
        >>> print(tfmtl.balancing.partition(model, ["click", "like"]))
        shared   level_1 (2,272 parameters)
        click    click_tower (545 parameters)
        like     like_tower (545 parameters)
    """

    tasks: tuple[str, ...]
    shared: list[Any]
    own: dict[str, list[Any]]
    cut: "Cut" = field(repr=False)

    def __str__(self) -> str:
        groups = {"shared": self.shared, **self.own}
        width = max(len(name) for name in groups)
        lines = []
        for name, variables in groups.items():
            names = dict.fromkeys(variable.path.split("/")[0] for variable in variables)
            count = sum(_size(variable) for variable in variables)
            listed = ", ".join(names) or "nothing"
            lines.append(f"{name:<{width}}   {listed} ({count:,} parameters)")
        return "\n".join(lines)


@dataclass(frozen=True)
class Cut:
    """A model's graph anew, on the same layers, with copies at the frontier.

    What is shared does not read the copies, so that a gradient that stops at them is
    that of the tasks' own part alone.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs by name.
        frontier: Copies of the tensors of what is shared that a task alone reads on.
    """

    inputs: Any
    outputs: dict[str, Tensor]
    frontier: list[Tensor]


def partition(model: keras.Model, tasks: Sequence[str]) -> Partition:
    """Finds what the tasks of a model share.

    Args:
        model: A Functional model with a dict of outputs; a model inside counts as one
            layer.
        tasks: Names of the outputs that are tasks.

    Returns:
        The partition of its trainable variables. What no task depends on is in none.

    Raises:
        ValueError: If an output is missing.
    """
    lacking = [task for task in tasks if task not in model.output]
    if lacking:
        raise ValueError(
            f"`model` should have an output for each task. Received: none for {lacking}"
        )
    graph = _Graph(model)
    reached = {task: graph.before([graph.outputs[task]]) for task in tasks}
    variables: dict[int, Any] = {}
    users: dict[int, set[str]] = {}
    for call in graph.calls:
        for variable in call.variables:
            variables[id(variable)] = variable
            found = {task for task in tasks if call.number in reached[task]}
            users.setdefault(id(variable), set()).update(found)
    return Partition(
        tuple(tasks),
        [variable for key, variable in variables.items() if len(users[key]) > 1],
        {
            task: [v for key, v in variables.items() if users[key] == {task}]
            for task in tasks
        },
        graph.cut({key for key in variables if len(users[key]) > 1}, reached),
    )


@dataclass(frozen=True)
class _Call:
    number: int
    operation: keras.Operation
    args: Any
    kwargs: Any
    outputs: Any

    @property
    def inputs(self) -> list[Tensor]:
        """Tensors among the arguments."""
        return _tensors((self.args, self.kwargs))

    @property
    def variables(self) -> list[Any]:
        """Trainable variables; operations that are no layers have none."""
        return list(getattr(self.operation, "trainable_variables", []))


class _Graph:
    """The calls of a model, each after those whose outputs it reads."""

    def __init__(self, model: keras.Model) -> None:
        self.calls: list[_Call] = []

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = _StandIn(operation)(*args, **kwargs)
            self.calls.append(_Call(len(self.calls), operation, args, kwargs, outputs))
            return outputs

        clone = keras.models.clone_model(
            keras.Model(model.input, model.output),  # a subclass may not be clonable
            clone_function=lambda layer: layer,
            call_function=call,
        )
        self.inputs, self.outputs = clone.input, clone.output
        self._maker = {
            id(tensor): call.number
            for call in self.calls
            for tensor in _tensors(call.outputs)
        }

    def before(self, tensors: list[Tensor]) -> set[int]:
        """Numbers of the calls that tensors depend on."""
        found: set[int] = set()
        waiting = [self._maker.get(id(tensor)) for tensor in tensors]
        while waiting:
            number = waiting.pop()
            if number is not None and number not in found:
                found.add(number)
                inputs = self.calls[number].inputs
                waiting += [self._maker.get(id(tensor)) for tensor in inputs]
        return found

    def cut(self, shared: set[int], reached: dict[str, set[int]]) -> Cut:
        """See `Cut`; `shared` are ids of variables."""
        of_several, learned = [], set()
        for call in self.calls:
            has = any(id(variable) in shared for variable in call.variables)
            tasks = [task for task, calls in reached.items() if call.number in calls]
            if has or len(tasks) > 1:
                of_several += _tensors(call.outputs)
            if has or any(self._maker.get(id(t)) in learned for t in call.inputs):
                learned.add(call.number)
        together = self.before(of_several)
        fresh: dict[int, Tensor] = {}
        copies: dict[int, Tensor] = {}

        def read(tensor: Any) -> Any:
            return fresh.get(id(tensor), tensor)

        def read_apart(tensor: Any) -> Any:
            if self._maker.get(id(tensor)) not in together & learned:
                return read(tensor)
            if id(tensor) not in copies and "float" in tensor.dtype:
                copies[id(tensor)] = _Copy()(read(tensor))
            return copies.get(id(tensor), read(tensor))

        for call in self.calls:
            how = read if call.number in together else read_apart
            args, kwargs = keras.tree.map_structure(how, (call.args, call.kwargs))
            outputs = _tensors(_StandIn(call.operation)(*args, **kwargs))
            old = [id(tensor) for tensor in _tensors(call.outputs)]
            fresh.update(zip(old, outputs, strict=True))
        named = {name: read_apart(tensor) for name, tensor in self.outputs.items()}
        return Cut(self.inputs, named, list(copies.values()))


class _StandIn(keras.Operation):
    """Is called in an operation's place, so that the operation gets no new node."""

    def __init__(self, operation: keras.Operation) -> None:
        super().__init__()
        self.operation = operation
        # a Functional model then passes `training` on, in place of that of the node
        named: set[str] = getattr(operation, "_call_context_args", set())
        self._call_context_args = named

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.operation(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.operation.compute_output_spec(*args, **kwargs)


class _Copy(keras.Operation):
    def call(self, x: Tensor) -> Tensor:
        return tf.identity(x)

    def compute_output_spec(self, x: Tensor) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


def _tensors(structure: Any) -> list[Tensor]:
    leaves = keras.tree.flatten(structure)
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def _size(variable: Any) -> int:
    size = 1
    for n in variable.shape:
        size *= n
    return size
