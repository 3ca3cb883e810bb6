"""What recipes have in common: experts, gates, towers, and how they are named."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import keras

from tfmtl.layers import (
    Experts,
    JointProbability,
    PositionBias,
    SoftmaxGate,
    Tower,
)
from tfmtl.layers.checks import entries, mapping, some_widths
from tfmtl.layers.initializers import copy_of, reseeded
from tfmtl.models.multi_task_model import MultiTaskModel
from tfmtl.tasks.task import Task

Tensor = Any
Arguments = Mapping[str, Any]
Units = int | Sequence[int]
# A number of equal experts, or unlike ones as layers to make copies of.
ExpertList = int | Sequence[keras.layers.Layer]
# Arguments of a `SoftmaxGate`, or what makes a gate as that class does; it is copied.
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
    size = count(experts)
    if not isinstance(experts, list | tuple):
        given = arguments("expert", expert, name, ("num_experts", "units", "slots"))
        return Experts(size, units, slots=slots, name=name, **given)(inputs)
    if not experts:
        raise ValueError(f"{_EXPERTS} Received: {experts!r}")
    for template in experts:
        if not isinstance(template, keras.layers.Layer):
            raise ValueError(f"{_EXPERTS} Received: {template!r}")
    check_unused(expert)
    read = [inputs] * size
    if slots is not None:
        read = [inputs[:, slot] for slot in slots]
    outputs = [
        copy_of(template, f"{name}_{k}")(x)
        for k, (template, x) in enumerate(zip(experts, read, strict=True), 1)
    ]
    check_widths([tuple(getattr(y, "shape", ())) for y in outputs])
    return keras.ops.stack(outputs, axis=1)


def check_unused(expert: Arguments | None) -> None:
    """Raises `ValueError` for arguments of experts that are given as layers."""
    if expert:
        raise ValueError(
            "`expert` should be left out where experts are given as layers, which "
            f"have arguments of their own. Received: expert={expert!r}"
        )


def check_widths(shapes: Sequence[tuple[Any, ...]]) -> None:
    """Raises `ValueError` unless all experts have outputs `(batch, d)` of one d."""
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(
            "Experts of a level should all have outputs of one shape (batch, d). "
            f"Received: shapes={list(shapes)}"
        )


def count(experts: ExpertList) -> int:
    """Number of experts.

    Raises:
        ValueError: If it is neither a number nor a list.
    """
    if isinstance(experts, Integral):
        return int(experts)
    if isinstance(experts, list | tuple):
        return len(experts)
    raise ValueError(f"{_EXPERTS} Received: {experts!r}")


def arguments(
    kind: str, given: Arguments | None, name: str, taken: Sequence[str]
) -> dict[str, Any]:
    """A user's arguments for the layer `name`, with seeds of its own.

    Args:
        kind: What they are called in a recipe.
        given: The arguments.
        name: Name of the layer, which decides its seeds.
        taken: What the recipe says itself, beside the name.

    Raises:
        ValueError: If they are no dict, or say what the recipe says.
    """
    return reseeded(mapping(kind, given, (*taken, "name")), name)


def make_gate(
    gate: Gate | None,
    num_outputs: int,
    num_experts: int,
    name: str,
    reads: Sequence[Sequence[bool]] | None = None,
) -> keras.layers.Layer:
    """A gate as a recipe's `gate` says, with seeds of its own.

    Args:
        gate: Arguments of a `SoftmaxGate`, or what makes a layer, which is copied.
        num_outputs: Number of gates.
        num_experts: Number of experts.
        name: Name of the layer, which decides its seeds.
        reads: Which experts each gate weighs. Defaults to all.

    Raises:
        ValueError: If `gate` is neither, or makes no layer.
    """
    is_layer = isinstance(gate, keras.layers.Layer)
    if is_layer or not isinstance(gate, Mapping | Callable | None):
        raise ValueError(
            "`gate` should be a dict of arguments of SoftmaxGate, or a class or "
            f"function that makes a gate. Received: gate={gate!r}"
        )
    if callable(gate):
        made = gate(num_outputs, num_experts, reads=reads, name=name)
        if not isinstance(made, keras.layers.Layer):
            raise ValueError(
                f"`gate` should make a Keras layer. Received: gate={gate!r}, which "
                f"made {made!r}"
            )
        return copy_of(made, name)
    given = arguments("gate", gate, name, ("num_outputs", "num_experts", "reads"))
    return SoftmaxGate(num_outputs, num_experts, reads=reads, name=name, **given)


def assemble(
    inputs: dict[str, Tensor],
    streams: Sequence[Tensor],
    tasks: Sequence[Task],
    tower: Arguments | None,
    name: str,
) -> MultiTaskModel:
    """Puts a tower on each task's stream and makes the model.

    A task with a position gets the position's logit added, and the model its column
    as a further input. A later step of a funnel is multiplied with the step before.

    Raises:
        ValueError: If a column is named like a layer.
    """
    columns = list(inputs)
    outputs: dict[str, Tensor] = {}
    for task, stream in zip(tasks, streams, strict=True):
        predict(task, stream, inputs, outputs, tower, columns)
    try:
        return MultiTaskModel(inputs, outputs, name=name, tasks=tasks)
    except ValueError as error:
        taken = [column for column in inputs if f'"{column}" is used' in str(error)]
        if not taken:
            raise
        raise ValueError(
            "Columns should have other names than the layers of the model. "
            f"Received: column={taken[0]!r}, but {error}"
        ) from error


def predict(
    task: Task,
    stream: Tensor,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
    tower: Arguments | None,
    columns: Sequence[str],
) -> None:
    """Adds a task's outputs, and the column of its position to the inputs.

    Args:
        task: The task.
        stream: What its tower reads, `(batch, d)`.
        inputs: Inputs by name.
        outputs: Outputs by name, with that of the step before in a funnel.
        tower: Arguments of the `Tower`.
        columns: Names of the inputs that are known when serving.
    """
    prediction = _prediction(task, stream, inputs, columns, tower)
    if task.after is not None:
        outputs[task.conditional_name] = prediction
        joint = JointProbability(name=f"{task.name}_joint", dtype=prediction.dtype)
        prediction = joint([outputs[task.after], prediction])
    outputs[task.name] = prediction


def _prediction(
    task: Task,
    stream: Tensor,
    inputs: dict[str, Tensor],
    columns: Sequence[str],
    tower: Arguments | None,
) -> Tensor:
    """The output of a task's tower, `(batch, output_units)`."""
    own_name = f"{task.name}_tower"
    given = {
        "head_activation": task.head_activation,
        **arguments("tower", tower, own_name, ("output_units",)),
    }
    position = task.position
    if position is None:
        return Tower(output_units=task.output_units, name=own_name, **given)(stream)
    if position.column in columns:
        raise ValueError(
            "A position should be no feature, since it is not known when serving. "
            f"Received: column={position.column!r} for both"
        )
    if position.column not in inputs:
        column = keras.Input((1,), name=position.column, dtype="int32")
        inputs[position.column] = column
    head = given.pop("head_activation")
    logit = Tower(output_units=task.output_units, name=own_name, **given)(stream)
    bias = PositionBias(
        position.num_positions, position.dropout, name=f"{task.name}_position_bias"
    )
    add = keras.layers.Add(name=f"{task.name}_logit", dtype=logit.dtype)
    score = keras.layers.Activation(head, name=f"{task.name}_score", dtype=logit.dtype)
    return score(add([logit, bias(inputs[position.column])]))


def check_levels(levels: Any, *experts: ExpertList) -> list[Units]:
    """The widths of each level's experts, as a list.

    Args:
        levels: Widths of an expert for each level.
        *experts: The experts of a level; layers keep their own widths.

    Raises:
        ValueError: If there are none, or an entry is no width.
    """
    found = entries(levels)
    if not found:
        raise ValueError(
            "`levels` should be the widths of an expert for each level, one or more. "
            f"Received: levels={levels!r}"
        )
    if any(not isinstance(e, list | tuple) and count(e) > 0 for e in experts):
        return [some_widths("levels", units) for units in found]
    return found
