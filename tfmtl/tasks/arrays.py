"""Labels and weights that are arrays, before a model reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmtl.tasks.labels import by_task, check_width, complete_labels
from tfmtl.tasks.task import Task, check_by_task


def check_arrays(tasks: Sequence[Task], labels: Any) -> None:
    """Raises `ValueError` unless arrays are labels that their tasks can have.

    Args:
        tasks: Tasks.
        labels: Labels by task name; of a single task also the label itself. Where a
            task has a `where`, its label may be any number.
    """
    given = by_task(tasks, labels)
    for task in tasks:
        if given.get(task.name) is None:
            continue
        values = np.asarray(given[task.name])
        if values.dtype.kind in "OSU":
            raise ValueError(
                f"The label of task {task.name!r} should be numbers. "
                f"Received: dtype={values.dtype}"
            )
        check_width(f"The label of task {task.name!r}", values, task.label_units)
        lowest, highest = task.label_range
        known = values[~np.isnan(values) & (values != task.missing)]
        if task.where is None and ((known < lowest) | (known > highest)).any():
            raise ValueError(
                f"The label of task {task.name!r} should be from {lowest:g} to "
                f"{highest:g}, or missing. Received: from {known.min():g} to "
                f"{known.max():g}"
            )


def row_weights(
    tasks: Sequence[Task], x: Any, y: Any, sample_weight: Any, class_weight: Any
) -> Any:
    """Weights of the rows as Keras takes them: for all tasks, or one for each label.

    ```
    w_ik = sample_weight[k]_i class_weight[k][y_ik];  1 for what is not given
    ```

    Args:
        tasks: Tasks.
        x: Columns.
        y: Labels by task name; of a single task also the label itself.
        sample_weight: Weights of the rows, `(rows,)`, or a dict of them by task name.
        class_weight: A dict of weights of the label's values, by task name; of a
            single task also these themselves.

    Raises:
        ValueError: If a name is that of no task.
    """
    if not class_weight and not isinstance(sample_weight, Mapping):
        return sample_weight
    given = by_task(tasks, y)
    names = [task.name for task in tasks]
    class_weight = class_weight or {}
    by_value = not any(isinstance(w, Mapping) for w in class_weight.values())
    if len(tasks) == 1 and by_value:
        class_weight = {names[0]: class_weight}
    check_by_task("class_weight", class_weight, names)
    if not isinstance(sample_weight, Mapping):
        sample_weight = dict.fromkeys(names, sample_weight)
    check_by_task("sample_weight", sample_weight, [*names, *(set(given) - set(names))])
    rows = len(next(iter(given.values())))
    of_classes = _of_classes(tasks, x, given, class_weight)
    weights = {}
    for name in given:
        own = sample_weight.get(name)
        own = np.ones(rows, "f4") if own is None else np.asarray(own)
        if name in of_classes:
            own = np.reshape(own, (rows, -1)) * of_classes[name]
        weights[name] = own.reshape(rows) if own.size == rows else own
    return weights if isinstance(y, Mapping) else weights[names[0]]


def _of_classes(
    tasks: Sequence[Task],
    x: Any,
    labels: Mapping[str, Any],
    class_weight: Mapping[str, Mapping[float, float]],
) -> dict[str, np.ndarray]:
    """Weights of the labels' values, `(rows, label_units)` by task name."""
    if not class_weight:
        return {}
    first = next(iter(labels.values()))
    completed = complete_labels(tasks, labels, x, {task.name: first for task in tasks})
    units = {task.name: task.label_units for task in tasks}
    found = {}
    for name, weights in class_weight.items():
        values = ops.convert_to_numpy(completed[name])[:, : units[name]]
        found[name] = np.ones(values.shape, "f4")
        for value, weight in weights.items():
            found[name][values == value] = weight
    return found
