"""Columns to TFRecord files."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.data.pipeline import num_rows

Column = np.ndarray | Sequence[Any]


def write_tfrecord(
    path: str | os.PathLike[str],
    features: Mapping[str, Column],
    labels: Mapping[str, Column] | None = None,
) -> Path:
    """Writes columns as a file of `tf.train.Example`, for `from_tfrecord` to read.

    It is written beside its place and then put there, so that no one reads half a file.

    Args:
        path: The new file; GZIP where it ends in `.gz`. Its folder is made.
        features: Column to `(n,)` or `(n, width)` numbers or strings, or to n lists of
            any lengths. Integers and booleans become `int64`, floats `float32`.
        labels: Columns in the same way. Defaults to `None`, no further ones.

    Returns:
        The path.

    Raises:
        FileExistsError: If the file exists.
        ValueError: If a column is neither of numbers nor of strings, columns differ in
            length, or a name is both a feature and a label.

    Example:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "log.tfrecord"
    >>> write_tfrecord(path, {"age": [31, 25]}, {"click": [1.0, 0.0]}).name
    'log.tfrecord'
    """
    path, labels = Path(path), labels or {}
    both = sorted(features.keys() & labels.keys())
    if both:
        raise ValueError(
            "`features` and `labels` should have columns of different names. "
            f"Received: {both} in both"
        )
    if path.exists():
        raise FileExistsError(
            f"`path` should be a new file. Received: path={os.fspath(path)!r}, which "
            "exists"
        )
    count = num_rows(features, labels)
    given = {**features, **labels}
    columns = {name: _cells(name, column) for name, column in given.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with tf.io.TFRecordWriter(
            os.fspath(partial), "GZIP" if path.suffix == ".gz" else ""
        ) as writer:
            for row in range(count):
                writer.write(_example(columns, row))
        path.open("x").close()  # Fails where another was faster.
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


Pack = Callable[[list[Any]], tf.train.Feature]
Cells = tuple[Pack, list[list[Any]]]


def _example(columns: Mapping[str, Cells], row: int) -> bytes:
    # What is empty has no type either.
    cells = {n: pack(rows[row]) for n, (pack, rows) in columns.items() if rows[row]}
    example = tf.train.Example(features=tf.train.Features(feature=cells))
    return example.SerializeToString()


def _cells(name: str, column: Column) -> Cells:
    """What packs a cell of the column, and the cells as lists of Python's values."""
    if _is_ragged(column):
        parts = [np.asarray(cell).reshape(-1) for cell in column]
        filled = [part for part in parts if part.size] or [np.zeros(0)]
        kind = np.concatenate(filled).dtype.kind
        rows = [part.tolist() for part in parts]
    else:
        array = np.asarray(column)
        kind = array.dtype.kind
        rows = array.reshape(len(array), -1).tolist()
    if kind in "OSU" and all(isinstance(v, str | bytes) for row in rows for v in row):
        return _strings, rows
    if kind in "iub":
        return _integers, rows
    if kind == "f":
        return _floats, rows
    raise ValueError(
        f"`{name}` should be numbers, or strings (str or bytes). Received: "
        f"{next((v for row in rows for v in row if not isinstance(v, str)), None)!r}"
    )


def _is_ragged(column: Column) -> bool:
    is_regular = isinstance(column, np.ndarray) and column.dtype != object
    return not is_regular and any(
        isinstance(cell, np.ndarray | list | tuple) for cell in column
    )


def _strings(cell: list[str | bytes]) -> tf.train.Feature:
    values = [v.encode() if isinstance(v, str) else v for v in cell]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _integers(cell: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, cell)))


def _floats(cell: list[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=cell))
