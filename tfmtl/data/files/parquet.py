"""Batches from Parquet files, a row group at a time."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

from tfmtl.data.files import arrow
from tfmtl.data.files.paths import Files, check_headers, matching, share
from tfmtl.data.files.reading import Reading
from tfmtl.data.files.schema import Labels, Schema, columns_to_read

_ROWS = 8192  # Of a record batch.


class _RowGroup(NamedTuple):
    path: str
    number: int
    first: int  # Number of its first row in the file, from 1.
    num_rows: int


def from_parquet(
    files: Files,
    labels: Labels,
    batch_size: int,
    *,
    schema: Schema | None = None,
    lengths: Mapping[str, int] | None = None,
    shuffle: bool = False,
    buffer: int = 65_536,
    seed: int = 0,
    cache: bool = False,
    drop_remainder: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Makes a dataset of `(features, labels)` batches from Parquet files.

    Features are all other columns of the schema, `(batch, 1)`, or `(batch, width)` for
    columns of lists. Missing values are NaN, -1 or `""`; a missing list of a fixed size
    needs PyArrow 26, which is the first to read one.

    Args:
        files: A path, a glob, or a list of them; local ones.
        labels: The columns that are labels, or a function of a batch's columns,
            `{column: (batch, width)}`, that returns `(features, labels)`. Labels become
            `float32`, NaN where missing.
        batch_size: Number of rows in a batch.
        schema: Column to `"float32"`, `"int64"` or `"string"`, or a list of one of them
            for lists: `{"age": "int64", "tags": ["string"]}`. Only these and the labels
            are read. Defaults to all columns of the first file, see `infer_schema`.
        lengths: Column of lists to the width that lists are cut and padded to. Without
            it they are padded to the longest of the batch. Defaults to `None`.
        shuffle: Whether rows come in a random order, another one in every epoch: row
            groups in a random order, four at a time, and `buffer` rows are mixed with
            one another. Defaults to `False`, the files' order.
        buffer: How many rows to mix, rounded up to whole batches. Defaults to 65536.
        seed: Seed of the orders. Two datasets of one seed give the same sequence of
            epochs (and of one `tf.random.set_seed`, where it is used). Defaults to 0.
        cache: Whether to keep the rows in memory after the first epoch. Later epochs
            mix each buffer's rows anew, all rows where the buffer holds them. Defaults
            to `False`.
        drop_remainder: Whether to drop a last batch smaller than `batch_size`.
            Defaults to `False`.
        shard: `(index, count)` for one of several workers, which gets every `count`-th
            row group. Defaults to `None`, all.

    Returns:
        A prefetched dataset of one epoch and of known cardinality; `.repeat()` gives
        the next ones.

    Raises:
        FileNotFoundError: If a path or a glob has no file.
        ValueError: If an argument is out of its range, a file is not Parquet, or files
            lack columns.
        tf.errors.InvalidArgumentError: While rows are read, if a value is not of its
            type. It names the file, the row, the column and the value.

    Example:

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "log.parquet")
    >>> rows = {"age": [31, None], "tags": [["a", "b"], []], "click": [True, False]}
    >>> parquet.write_table(pa.table(rows), path)
    >>> for x, y in from_parquet(path, ["click"], batch_size=2).as_numpy_iterator():
    ...     print(x["age"].tolist(), x["tags"].tolist(), y["click"].tolist())
    [[31], [-1]] [[b'a', b'b'], [b'', b'']] [[1.0], [0.0]]
    """
    paths = matching(files)
    opened = {path: _open(path) for path in paths}
    chosen = schema or schema_of(opened[paths[0]].schema_arrow)
    columns = columns_to_read(chosen, labels, lengths)
    names = [column.name for column in columns]
    headers = {path: file.schema_arrow.names for path, file in opened.items()}
    check_headers(headers, names, inferred=not schema)
    groups = [group for path in paths for group in _row_groups(path, opened[path])]
    reading = Reading(batch_size, shuffle, buffer, seed, cache, drop_remainder)
    groups = share(groups, shard)

    def read(group: _RowGroup) -> Iterator[pa.RecordBatch]:
        first = group.first
        with parquet.ParquetFile(group.path) as file:
            for batch in file.iter_batches(_ROWS, [group.number], names):
                arrays = [
                    arrow.cast(batch[c.name], c, group.path, first) for c in columns
                ]
                first += len(batch)
                yield pa.RecordBatch.from_arrays(arrays, names)

    num_batches = reading.num_batches(sum(group.num_rows for group in groups))
    return arrow.batches_of(groups, read, columns, labels, reading).apply(
        tf.data.experimental.assert_cardinality(num_batches)
    )


def schema_of(schema: pa.Schema) -> dict[str, str | list[str]]:
    """The columns whose types can be read, see `infer_schema`."""
    found = {field.name: _dtype(field.type) for field in schema}
    return {name: dtype for name, dtype in found.items() if dtype is not None}


def _dtype(kind: pa.DataType) -> str | list[str] | None:
    types = pa.types
    if types.is_dictionary(kind):
        return _dtype(kind.value_type)
    if types.is_integer(kind) or types.is_boolean(kind):
        return "int64"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "float32"
    if kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return "string"
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        inner = _dtype(kind.value_type)
        return [inner] if isinstance(inner, str) else None
    return None


def _open(path: str) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(
            f"`{path}` should be a Parquet file. Received: {error}"
        ) from error


def _row_groups(path: str, file: parquet.ParquetFile) -> Iterator[_RowGroup]:
    first = 1
    for number in range(file.num_row_groups):
        num_rows = file.metadata.row_group(number).num_rows
        yield _RowGroup(path, number, first, num_rows)
        first += num_rows
