"""Labels of a batch as tasks need them: one for each task, NaN where it is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from tfmtl.tasks.task import Task

Tensor = Any


def complete_labels(
    tasks: Sequence[Task], labels: Any, columns: Any, outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The label of every task, NaN where it is missing.

    Args:
        tasks: Tasks.
        labels: Labels by task name, `(batch,)` or `(batch, label_units)` each, and
            other columns that a task's `where` names; tasks may be left out. Where
            there is one task, the label itself.
        columns: Input columns by name, in which `where` is looked up too.
        outputs: Predictions by task name, which tell the batch size.

    Returns:
        Labels `(batch, label_units)` by task name, float32.

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
    if not isinstance(labels, Mapping):
        alone = len(tasks) == 1 and labels is not None
        labels = {tasks[0].name: labels} if alone else {}
    columns = columns if isinstance(columns, Mapping) else {}
    _check(tasks, labels)
    sentinels = {task.name: task.missing for task in tasks}
    return {
        task.name: _label(task, labels, columns, outputs, sentinels) for task in tasks
    }


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
    label = _rows(labels[task.name])
    _check_width(f"The label of task {task.name!r}", label, task.label_units)
    label = _known(label, task.missing)
    if task.where is not None:
        condition = _column(task.where, task.name, labels, columns)
        _check_width(f"The column {task.where!r} of task {task.name!r}", condition, 1)
        condition = _known(condition, sentinels.get(task.where))
        label = ops.where(condition > 0, label, float("nan"))
    return label


def _known(values: Tensor, missing: float | None) -> Tensor:
    """NaN where a value is missing."""
    if missing is None:
        return values
    return ops.where(values != missing, values, float("nan"))


def _check_width(what: str, values: Tensor, width: int) -> None:
    if tuple(values.shape[1:]) != (width,):
        raise ValueError(
            f"{what} should be of shape (batch, {width}). "
            f"Received: shape={tuple(values.shape)}"
        )


def _column(
    name: str, task: str, labels: Mapping[str, Tensor], columns: Mapping[str, Tensor]
) -> Tensor:
    for found in (labels, columns):
        if found.get(name) is not None:
            return _rows(found[name])
    raise ValueError(
        f"The labels or inputs should have the column {name!r} that says where "
        f"task {task!r} has a label. Received: labels={sorted(labels)}, "
        f"inputs={sorted(columns)}"
    )


def _check(tasks: Sequence[Task], labels: Mapping[str, Tensor]) -> None:
    names = [task.name for task in tasks]
    read = {*names, *(task.where for task in tasks)}
    if not set(labels) & set(names) or set(labels) - read:
        raise ValueError(
            f"Labels should be given by name for tasks among {names}. "
            f"Received: labels={sorted(labels)}"
        )


def _rows(values: Tensor) -> Tensor:
    values = ops.cast(values, "float32")
    return ops.expand_dims(values, 1) if len(values.shape) == 1 else values
