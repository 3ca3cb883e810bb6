"""Arrow's record batches as windows of tensors.

Strings of a window are numbered and its distinct ones alone become TensorFlow's, which
is what costs: a column of categories has a few.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfmtl.data.files.reading import Reading, cut
from tfmtl.data.files.schema import MISSING, Column, Labels

Piece = TypeVar("Piece")
Parts = dict[str, tuple[Any, ...]]
"""Column to its values, before them the distinct strings, behind them the lists'
bounds: `([strings,] values [, splits])`."""

TYPES = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.binary()}

_INTERLEAVED = 4  # Pieces that are read in turns where rows are shuffled.


def batches_of(
    pieces: Sequence[Piece],
    read: Callable[[Piece], Iterator[pa.RecordBatch]],
    columns: list[Column],
    labels: Labels,
    reading: Reading,
) -> tf.data.Dataset:
    """Makes batches of pieces of files.

    Args:
        pieces: Files, or parts of files.
        read: A piece to its rows, with the columns in the types that `cast` gives.
        columns: The columns.
        labels: Which of them are labels.
        reading: How rows come.

    Returns:
        Batches of `(features, labels)`.
    """

    def windows(seed: np.integer) -> Iterator[Parts]:
        order = list(pieces)
        if reading.shuffle:
            random.Random(int(seed)).shuffle(order)
        parts = (read(piece) for piece in order)
        rows = _interleaved(parts, _INTERLEAVED if reading.shuffle else 1)
        for table in _tables(rows, reading.window):
            yield {c.name: _parts(c, table[c.name].combine_chunks()) for c in columns}

    signature = {column.name: _signature(column) for column in columns}
    datasets = reading.seeds().take(1)
    return cut(
        datasets.flat_map(
            lambda seed: tf.data.Dataset.from_generator(
                windows, output_signature=signature, args=(seed,)
            )
        ),
        lambda window: _count(columns[0], window[columns[0].name]),
        lambda window, rows: {c.name: _take(c, window[c.name], rows) for c in columns},
        columns,
        labels,
        reading,
    )


def cast(array: pa.Array, column: Column, path: str, first: int) -> pa.Array:
    """Gives a column its type.

    Args:
        array: The column as it was read.
        column: What it should be.
        path: Its file, for errors.
        first: Number of its first row, for errors.

    Raises:
        ValueError: If a value is not of the type.
    """
    try:
        return _cast(array, column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        row = next(i for i in range(len(array)) if _fails(array[i : i + 1], column))
        kind = f"a list of {column.dtype}" if column.is_list else column.dtype
        raise ValueError(
            f"`{column.name}` should be {kind} in every row of `{path}`. Received: "
            f"{array[row].as_py()!r} in row {first + row}"
        ) from error


def _cast(array: pa.Array, column: Column) -> pa.Array:
    target = TYPES[column.dtype]
    if pa.types.is_floating(array.type) and column.dtype == "int64":
        array = pc.if_else(pc.is_nan(array), None, array)
    # Not safe: an int64 may have more digits than a float32, which is as asked.
    return array.cast(
        pa.list_(target) if column.is_list else target, safe=column.dtype != "float32"
    )


def _fails(array: pa.Array, column: Column) -> bool:
    try:
        _cast(array, column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return True
    return False


def _interleaved(
    parts: Iterator[Iterator[pa.RecordBatch]], width: int
) -> Iterator[pa.RecordBatch]:
    """A record batch of each of some pieces in turns."""
    open_parts = deque(islice(parts, width))
    while open_parts:
        part = open_parts.popleft()
        found = next(part, None)
        if found is None:
            open_parts.extend(islice(parts, 1))
        else:
            open_parts.append(part)
            yield found


def _tables(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of equal size, the last one of fewer."""
    held: list[pa.Table] = []
    count = 0
    for batch in batches:
        held.append(pa.Table.from_batches([batch]))
        count += len(batch)
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole[:rows]
            held, count = [whole[rows:]], count - rows
    if count:
        yield pa.concat_tables(held)


def _parts(column: Column, array: pa.Array) -> tuple[np.ndarray, ...]:
    splits = []
    if column.is_list:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        splits.append(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        array = pc.list_flatten(array)
    array = pc.fill_null(array, pa.scalar(MISSING[column.dtype], array.type))
    if column.dtype == "string":
        coded = array.dictionary_encode()
        strings = coded.dictionary.to_numpy(zero_copy_only=False)
        return (strings, coded.indices.to_numpy(), *splits)
    return (array.to_numpy(), *splits)


def _signature(column: Column) -> tuple[tf.TensorSpec, ...]:
    dtypes = ["string", "int32"] if column.dtype == "string" else [column.dtype]
    return tuple(
        tf.TensorSpec([None], dtype)
        for dtype in dtypes + (["int64"] if column.is_list else [])
    )


def _count(column: Column, parts: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return tf.size(parts[-1]) - (1 if column.is_list else 0)


def _take(
    column: Column, parts: tuple[tf.Tensor, ...], rows: tf.Tensor
) -> tf.Tensor | tf.RaggedTensor:
    if not column.is_list:
        taken = tf.gather(parts[-1], rows)
        return tf.gather(parts[0], taken) if column.dtype == "string" else taken
    *_, values, splits = parts
    lists = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
    taken = tf.gather(lists, rows)
    if column.dtype == "string":
        return taken.with_values(tf.gather(parts[0], taken.values))
    return taken
