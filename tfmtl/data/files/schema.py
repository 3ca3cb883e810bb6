"""What the columns of files are, and what a model gets of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

Schema = Mapping[str, str | Sequence[str]]
"""Column to `"float32"`, `"int64"` or `"string"`; in a list, `["int64"]`, where a cell
has any number of them."""

Columns = dict[str, tf.Tensor]
"""Column to `(batch, width)`."""

Labels = Sequence[str] | Callable[[Columns], tuple[Columns, Columns]]
"""The columns that are labels, or what makes `(features, labels)` of all columns."""

MISSING: dict[str, Any] = {"float32": math.nan, "int64": -1, "string": ""}
"""What stands for a missing value, and behind the last value of a list."""


class Column(NamedTuple):
    """One column to read.

    Attributes:
        name: Its name in the files.
        dtype: `"float32"`, `"int64"` or `"string"`.
        is_list: Whether a cell has any number of values.
        width: Values per row: 1, or what lists are cut and padded to; `None` for the
            longest list of the batch.
    """

    name: str
    dtype: str
    is_list: bool
    width: int | None


def columns_to_read(
    schema: Schema, labels: Labels, lengths: Mapping[str, int] | None
) -> list[Column]:
    """Makes columns of a schema.

    Args:
        schema: The columns to read.
        labels: See `Labels`. Columns named here are read as `"float32"`, whether the
            schema has them or not.
        lengths: Column of lists to its width.

    Raises:
        ValueError: If the schema has an unknown type, the labels are no list, or a
            length is not that of a column of lists.

    Example:

    >>> columns_to_read({"tags": ["string"]}, ["click"], {"tags": 3})[0]
    Column(name='tags', dtype='string', is_list=True, width=3)
    """
    if isinstance(labels, str):
        raise ValueError(
            "`labels` should be a list of columns, or a function. Received: "
            f"labels={labels!r}"
        )
    named = () if callable(labels) else labels
    lengths = dict(lengths or {})
    columns = [
        _column(name, kind, lengths.pop(name, None))
        for name, kind in {**schema, **dict.fromkeys(named, "float32")}.items()
    ]
    if lengths:
        raise ValueError(
            "`lengths` should have columns of the schema. Received: "
            f"lengths={lengths}, which it has not"
        )
    return columns


def dense(column: Column, values: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
    """Gives a column as a model takes it.

    Args:
        column: The column.
        values: `(batch,)`, or `(batch, None)` ragged.

    Returns:
        `(batch, width)`, lists cut and padded; a width of at least 1.
    """
    if not isinstance(values, tf.RaggedTensor):
        return tf.expand_dims(values, -1)
    missing = tf.constant(MISSING[column.dtype], values.dtype)
    if column.width is not None:
        return values.to_tensor(missing, shape=(None, column.width))
    padded = values.to_tensor(missing)
    lacking = tf.maximum(1 - tf.shape(padded)[1], 0)  # Where all lists are empty.
    return tf.pad(padded, [[0, 0], [0, lacking]], constant_values=missing)


def split(columns: Columns, labels: Labels) -> tuple[Columns, Columns]:
    """Parts columns into `(features, labels)`, labels `float32`."""
    if callable(labels):
        features, targets = labels(columns)
    else:
        features = {k: v for k, v in columns.items() if k not in labels}
        targets = {name: columns[name] for name in labels}
    return features, {k: tf.cast(v, tf.float32) for k, v in targets.items()}


def _column(name: str, kind: str | Sequence[str], length: int | None) -> Column:
    is_list = not isinstance(kind, str)
    types = list(kind) if is_list else [kind]
    if len(types) != 1 or types[0] not in MISSING:
        raise ValueError(
            f"`schema[{name!r}]` should be one of {list(MISSING)}, or a list of one of "
            f"them. Received: {kind!r}"
        )
    if length is not None and (not is_list or length < 1):
        raise ValueError(
            f"`lengths[{name!r}]` should be a positive width of a column of lists, "
            f"`schema[{name!r}] = [{types[0]!r}]`. Received: {length} for {kind!r}"
        )
    return Column(name, types[0], is_list, length if is_list else 1)
