"""Labels of a batch as tasks need them: one for each task, NaN where it is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from tfmtl.tasks.losses import column
from tfmtl.tasks.task import Task

Tensor = Any


def complete_labels(
    tasks: Sequence[Task], labels: Any, columns: Any, outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The label of every task, NaN where it is missing.

    A step of a funnel has the label 0 where that of the step before is 0, whatever is
    given: who did not click did not buy. Behind the label of a task with `within`
    comes the number of the row's list, NaN where it is of none.

    Args:
        tasks: Tasks.
        labels: Labels by task name, `(batch,)` or `(batch, label_units)` each, and
            other columns that a task's `where` or `within` names; tasks may be left
            out. Where there is one task, the label itself.
        columns: Input columns by name, in which these are looked up too.
        outputs: Predictions by task name, which tell the batch size.

    Returns:
        Labels `(batch, label_units)` by task name, one wider with `within`; float32,
        or float64 where `floatx` is that.

    Raises:
        ValueError: If a label is that of no task, or its shape does not fit.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> from tfmtl.tasks.labels import complete_labels
        >>> tasks = [tfmtl.tasks.Binary("click")]
        >>> tasks += [tfmtl.tasks.Regression("seconds", where="click")]
        >>> labels = {"click": ops.array([1, 0]), "seconds": ops.array([7.0, 0.0])}
        >>> found = complete_labels(tasks, labels, {}, {})
        >>> [float(value) for value in found["seconds"][:, 0]]
        [7.0, nan]
    """
    labels = by_task(tasks, labels)
    columns = columns if isinstance(columns, Mapping) else {}
    sentinels = {task.name: task.missing for task in tasks}
    found: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}  # as found, for a later task's `where`
    for task in tasks:
        label = _label(task, {**labels, **given}, columns, outputs, sentinels)
        if task.after is not None and labels.get(task.name) is not None:
            label = ops.where(found[task.after] == 0, 0.0, label)
        if labels.get(task.name) is not None:
            given[task.name] = label
        if task.within is not None:
            lists = _lists(_found(task.within, task, labels, columns))
            label = ops.concatenate([label, lists], axis=1)
        found[task.name] = label
    return found


def by_task(tasks: Sequence[Task], labels: Any) -> Mapping[str, Any]:
    """Labels by task name, also where they are the one label of the only task.

    Raises:
        ValueError: If they are not by name, or one is that of no task.
    """
    names = [task.name for task in tasks]
    read = {*names, *(name for task in tasks for name in task.further_columns)}
    if len(tasks) == 1 and labels is not None and not isinstance(labels, Mapping):
        return {tasks[0].name: labels}
    if not isinstance(labels, Mapping):
        received = f"{type(labels).__name__}"
    elif set(labels) & set(names) and not set(labels) - read:
        return labels
    else:
        received = f"labels={sorted(labels)}"
    raise ValueError(
        f"Labels should be given by name for tasks among {names}. Received: {received}"
    )


def _label(
    task: Task,
    labels: Mapping[str, Tensor],
    columns: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    sentinels: Mapping[str, float | None],
) -> Tensor:
    if labels.get(task.name) is None:
        batch = ops.shape(outputs[task.name])[0]
        return ops.full((batch, task.label_units), float("nan"))
    if "string" in str(getattr(labels[task.name], "dtype", "")):
        raise ValueError(
            f"The label of task {task.name!r} should be numbers. Received: dtype=string"
        )
    label = column(labels[task.name])
    check_width(f"The label of task {task.name!r}", label, task.label_units)
    label = _known(label, task.missing)
    if task.where is not None:
        condition = _found(task.where, task, labels, columns)
        if "string" in str(getattr(condition, "dtype", "")):
            raise ValueError(
                f"The column {task.where!r} of task {task.name!r} should be numbers. "
                "Received: dtype=string"
            )
        condition = column(condition)
        check_width(f"The column {task.where!r} of task {task.name!r}", condition, 1)
        condition = _known(condition, sentinels.get(task.where))
        label = ops.where(condition > 0, label, float("nan"))
    return label


def _known(values: Tensor, missing: float | None) -> Tensor:
    """NaN where a value is missing."""
    if missing is None:
        return values
    return ops.where(values != missing, values, float("nan"))


def check_width(what: str, values: Tensor, width: int) -> None:
    """Raises `ValueError` unless values are `(batch, width)`, or `(batch,)` for 1.

    Args:
        what: What the values are, for the error.
        values: An array or a tensor.
        width: The width.
    """
    shape = tuple(values.shape)
    shape = (*shape, 1) if len(shape) == 1 else shape
    if shape[1:] != (width,):
        raise ValueError(
            f"{what} should be of shape (batch, {width}). Received: shape={shape}"
        )


def _found(
    name: str, task: Task, labels: Mapping[str, Tensor], columns: Mapping[str, Tensor]
) -> Tensor:
    for found in (labels, columns):
        if found.get(name) is not None:
            return found[name]
    says = "where" if name == task.where else "in which list"
    raise ValueError(
        f"The labels or inputs should have the column {name!r} that says {says} "
        f"task {task.name!r} has a label. Received: labels={sorted(labels)}, "
        f"inputs={sorted(columns)}"
    )


def _lists(values: Tensor) -> Tensor:
    """The first row of each row's list, `(batch, 1)`; NaN where it is of none."""
    values = ops.reshape(values, (-1,))
    is_text = "string" in str(values.dtype)
    known = values != "" if is_text else values >= 0
    alike = ops.equal(ops.expand_dims(values, 1), ops.expand_dims(values, 0))
    first = column(ops.argmax(ops.cast(alike, "int32"), axis=1))
    return ops.where(ops.expand_dims(known, 1), first, float("nan"))
