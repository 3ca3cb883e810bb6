"""Batches from outside, checked before a model reads them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.features.columns import column_kind
from tfmtl.features.learning.counts import plain
from tfmtl.tasks.labels import by_task
from tfmtl.tasks.task import Task

Tensor = Any


def each_checked(
    batches: Iterable[Any],
    columns: Callable[[Any], Any],
    labels: Callable[[Any], None] | None,
) -> Iterator[Any]:
    """Batches of a generator, checked one by one.

    Args:
        batches: Columns, or tuples of columns, labels and weights.
        columns: From columns to those that a model can read.
        labels: Raises where labels do not fit; `None` where they are not read.
    """
    for batch in batches:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if labels is not None and y is not None:
            labels(y)
        x = columns(x)
        yield (x, *batch[1:]) if isinstance(batch, tuple | list) else x


def check_first(
    batches: keras.utils.PyDataset,
    columns: Callable[[Any], Any],
    labels: Callable[[Any], None] | None,
) -> None:
    """Checks the first batch of a `PyDataset`, whose others are read elsewhere.

    Args:
        batches: The batches.
        columns: As of `each_checked`.
        labels: As of `each_checked`.

    Raises:
        ValueError: If a column of strings is no tensor, which Keras needs there.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batches[0])
    if labels is not None and y is not None:
        labels(y)
    columns(x)
    for name, column in x.items() if isinstance(x, Mapping) else ():
        if isinstance(column, np.ndarray) and column_kind(column.dtype) == "string":
            raise ValueError(
                f"Column {name!r} of a PyDataset should be a tensor, as strings are "
                "there: use `keras.ops.convert_to_tensor(…, 'string')`. "
                f"Received: an array, dtype={column.dtype}"
            )


def with_labels_in_range(tasks: Sequence[Task], dataset: tf.data.Dataset) -> Any:
    """A dataset that raises where a label is none that its task can have.

    It looks where batches are made, so that a step that XLA compiles is checked too.

    Args:
        tasks: Tasks. Where one has a `where`, its label may be any number.
        dataset: Batches of columns, labels and perhaps weights.

    Raises:
        ValueError: If the labels are not by name, or one is that of no task.
    """

    @tf.autograph.experimental.do_not_convert
    def checked(*batch: Any) -> Any:
        given = by_task(tasks, batch[1])
        for task in tasks:
            if task.where is None and tf.is_tensor(given.get(task.name)):
                _assert_in_range(task, given[task.name])
        return batch

    spec = dataset.element_spec
    has_labels = isinstance(spec, tuple) and len(spec) > 1
    return dataset.map(checked) if has_labels else dataset


def readable(name: str, column: Any) -> Any:
    """A column as Keras takes it: of strings a tensor, "" where there is none.

    Args:
        name: Name of the column, for errors.
        column: An array or a tensor.
    """
    if not isinstance(column, np.ndarray) or column.dtype.kind not in "OSU":
        return column
    if column.dtype.kind == "O":
        texts = [plain(name, str, value) for value in column.ravel().tolist()]
        column = np.reshape(np.array(texts, str), column.shape)
    return keras.ops.convert_to_tensor(column, "string")


def _assert_in_range(task: Task, label: Tensor) -> None:
    lowest, highest = task.label_range
    if label.dtype == tf.string or (lowest, highest) == (-np.inf, np.inf):
        return
    label = tf.cast(label, tf.float32)
    outside = (label < lowest) | (label > highest)  # false for NaN
    if task.missing is not None:
        outside &= label != task.missing
    wrong = tf.where(outside, label, lowest)
    text = (
        f"The label of task {task.name!r} should be from {lowest:g} to {highest:g}, or "
        "missing. Received: from"
    )
    tf.raw_ops.Assert(  # not `tf.debugging.Assert`, whose branch costs more than this
        condition=tf.logical_not(tf.reduce_any(outside)),
        data=[text, tf.reduce_min(wrong), "to", tf.reduce_max(wrong)],
    )
