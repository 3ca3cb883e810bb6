"""What recipes have in common: experts, gates, towers, and how they are named."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfmtl.layers import Experts, PositionBias, SoftmaxGate, Tower
from tfmtl.layers.initializers import own, reseeded
from tfmtl.tasks.tasks import Task

Tensor = Any
Arguments = Mapping[str, Any]
Units = int | Sequence[int]
# A number of equal experts, or unlike ones as layers to make copies of.
ExpertList = int | Sequence[keras.layers.Layer]
# Arguments of a `SoftmaxGate`, or what makes a gate as that class does.
Gate = Arguments | Callable[..., keras.layers.Layer]

_EXPERTS = "Experts should be a number, or a list of Keras layers."


def parallel_experts(
    inputs: Tensor,
    experts: ExpertList,
    units: Units,
    slots: Sequence[int] | None,
    expert: Arguments | None,
    name: str,
) -> Tensor:
    """Experts side by side, `(batch, experts, d)`.

    Args:
        inputs: `(batch, d)`, or `(batch, slots, d)`.
        experts: How many, or layers of which copies are made.
        units: Widths of each expert, where `experts` is a number.
        slots: The input slot that each expert reads; `None` where it is `inputs`.
        expert: Further arguments of `Experts`, where `experts` is a number.
        name: Name of the layer, or the start of the experts' names.
    """
    if isinstance(experts, int):
        arguments = own_arguments(expert, name)
        return Experts(experts, units, slots=slots, name=name, **arguments)(inputs)
    if not count(experts):
        raise ValueError(f"{_EXPERTS} Received: {experts!r}")
    read = [inputs] * len(experts)
    if slots is not None:
        read = [inputs[:, slot] for slot in slots]
    outputs = [
        copy_of(template, f"{name}_{k}")(x)
        for k, (template, x) in enumerate(zip(experts, read, strict=True), 1)
    ]
    check_widths(outputs)
    return keras.ops.stack(outputs, axis=1)


def check_widths(outputs: Sequence[Tensor]) -> None:
    """Raises `ValueError` unless all are of one shape `(batch, d)`."""
    shapes = [tuple(getattr(y, "shape", ())) for y in outputs]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(
            "Experts given as layers should all have outputs of one shape (batch, d). "
            f"Received: shapes={shapes}"
        )


def count(experts: ExpertList) -> int:
    """Number of experts.

    Raises:
        ValueError: If it is neither a number nor a list.
    """
    if isinstance(experts, int):
        return experts
    if not isinstance(experts, (list, tuple)):
        raise ValueError(f"{_EXPERTS} Received: {experts!r}")
    return len(experts)


def copy_of(template: keras.layers.Layer, name: str) -> keras.layers.Layer:
    """A new layer with the configuration of another and weights of its own.

    Seeds in the configuration, of initialisers or dropout, are replaced by the copy's
    own, so that no two copies start alike.
    """
    if not isinstance(template, keras.layers.Layer):
        raise ValueError(f"{_EXPERTS} Received: {template!r}")
    config = reseeded(template.get_config(), name)
    return type(template).from_config({**config, "name": name})


def own_arguments(arguments: Arguments | None, name: str) -> dict[str, Any]:
    """Arguments with seeded initialisers replaced by those of the layer `name`."""
    return {
        argument: own(value, name)
        if isinstance(value, keras.initializers.Initializer)
        else value
        for argument, value in (arguments or {}).items()
    }


def make_gate(
    gate: Gate | None,
    num_outputs: int,
    num_experts: int,
    level: int,
    name: str,
    reads: Sequence[Sequence[bool]] | None = None,
) -> keras.layers.Layer:
    """A gate as a recipe's `gate` says: arguments, or what makes one."""
    if gate is not None and not isinstance(gate, Mapping) and not callable(gate):
        raise ValueError(
            "`gate` should be a dict of arguments of SoftmaxGate, or what makes a "
            f"gate. Received: gate={gate!r}"
        )
    if callable(gate):
        return gate(num_outputs, num_experts, reads=reads, name=name)
    gate = own_arguments(gate, name)
    if gate.get("hard_concrete") is not None:
        gate["hard_concrete"] = seeded(gate["hard_concrete"], level)
    return SoftmaxGate(num_outputs, num_experts, reads=reads, name=name, **gate)


def seeded(gate: Arguments | None, level: int) -> dict[str, Any]:
    """Arguments of a hard-concrete gate, with a seed of the level's own."""
    gate = dict(gate or {})
    if gate.get("seed") is not None:
        gate["seed"] += level
    return gate


def assemble(
    inputs: dict[str, Tensor],
    streams: Sequence[Tensor],
    tasks: Sequence[Task],
    tower: Arguments | None,
    name: str,
) -> keras.Model:
    """Puts a tower on each task's stream and makes the model.

    A task with a position gets the position's logit added, and the model its column
    as a further input.
    """
    columns = list(inputs)
    positions = [task.position.column for task in tasks if task.position is not None]
    for column in [*columns, *positions]:
        _check_column(column, tasks)
    outputs = {}
    for task, stream in zip(tasks, streams, strict=True):
        own_name = f"{task.name}_tower"
        arguments = {
            "head_activation": task.head_activation,
            **own_arguments(tower, own_name),
        }
        position = task.position
        head = None if position is None else arguments.pop("head_activation")
        layer = Tower(output_units=task.output_units, name=own_name, **arguments)
        if position is None:
            outputs[task.name] = layer(stream)
            continue
        if position.column in columns:
            raise ValueError(
                "A position should be no feature, since it is not known when serving. "
                f"Received: column={position.column!r} for both"
            )
        if position.column not in inputs:
            inputs[position.column] = keras.Input(
                (1,), name=position.column, dtype="int32"
            )
        bias = PositionBias(
            position.num_positions, position.dropout, name=f"{task.name}_position_bias"
        )
        shown = bias(inputs[position.column])
        logit = keras.layers.Add(name=f"{task.name}_logit", dtype="float32")(
            [layer(stream), shown]
        )
        outputs[task.name] = keras.layers.Activation(
            head, name=f"{task.name}_score", dtype="float32"
        )(logit)
    return keras.Model(inputs, outputs, name=name)


def check_levels(levels: Sequence[Units]) -> None:
    """Raises `ValueError` unless there is a level of experts."""
    if isinstance(levels, (int, str)) or not levels:
        raise ValueError(
            "`levels` should be the widths of an expert for each level, one or more. "
            f"Received: levels={levels!r}"
        )


def _check_column(column: str, tasks: Sequence[Task]) -> None:
    own = "|".join(re.escape(task.name) for task in tasks)
    layers = rf"level_\d+(_\w+)?|task_\w+|({own})_(tower|position_bias|logit|score)"
    if re.fullmatch(layers, column):
        raise ValueError(
            "Columns should not be named like layers of the model. "
            f"Received: columns={[column]}"
        )
