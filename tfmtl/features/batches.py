"""Columns to learn from: arrays, or batches of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfmtl.features.columns import check_columns

_ROWS = 1 << 16  # of arrays that are read at once


def num_batches(data: Any) -> int | None:
    """Number of batches, where it is known before.

    Args:
        data: Arrays by name, or batches.

    Raises:
        ValueError: If the data is infinite.

    Example:
        >>> from tfmtl.features.batches import num_batches
        >>> num_batches([{"age": [31]}]) is None
        True
    """
    if not hasattr(data, "cardinality"):
        return None
    count = int(data.cardinality())
    if count == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(
            "`data` should be finite: use `take`. Received: an infinite dataset"
        )
    return count if count >= 0 else None


def batches(data: Mapping[str, Any] | Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """The columns of every batch; arrays are one.

    Args:
        data: Columns by name; or batches of them, such as a finite `tf.data.Dataset`,
            each a dict or a tuple that starts with one.

    Raises:
        ValueError: If the data is infinite, or a batch is neither.

    Example:
        >>> from tfmtl.features.batches import batches
        >>> list(batches([({"age": [31]}, "labels")]))
        [{'age': [31]}]
    """
    num_batches(data)
    for batch in [data] if isinstance(data, Mapping) else data:
        columns = batch[0] if isinstance(batch, tuple) and batch else batch
        if not isinstance(columns, Mapping):
            raise ValueError(
                "`data` should have dicts of columns, or tuples that start with one. "
                f"Received: {type(columns).__name__}"
            )
        yield columns


def checked_batches(
    wanted: Any, data: Mapping[str, Any] | Iterable[Any], ragged: bool = False
) -> Iterator[Mapping[str, Any]]:
    """Batches that have the columns wanted; arrays are read part by part.

    Args:
        wanted: Features, or a model's inputs by name; see `check_columns`.
        data: Columns by name, or batches of them.
        ragged: Whether a column of any length may be ragged.

    Raises:
        ValueError: If a column is missing or does not fit, arrays are of unlike length,
            or the data is infinite.

    Example:
        >>> import numpy as np, tfmtl
        >>> from tfmtl.features.batches import checked_batches
        >>> age = tfmtl.features.Numeric("age")
        >>> [batch] = checked_batches([age], {"age": np.ones((3, 1)), "other": [1, 2]})
        >>> list(batch)
        ['age']
    """
    for columns in batches(data):
        check_columns(wanted, columns, ragged)
        if isinstance(data, Mapping):
            yield from _parts(wanted, columns)
        else:
            yield columns


def _parts(wanted: Any, columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = wanted if isinstance(wanted, Mapping) else [f.name for f in wanted]
    rows = {name: _rows(columns[name]) for name in names}
    if len(set(rows.values())) > 1:
        raise ValueError(
            f"`data` should have as many rows in every column. Received: rows={rows}"
        )
    for start in range(0, max(rows.values()), _ROWS):
        yield {name: columns[name][start : start + _ROWS] for name in names}


def _rows(column: Any) -> int:
    return column.shape[0] if hasattr(column, "shape") else len(column)
