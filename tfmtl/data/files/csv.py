"""Batches from CSV files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from pyarrow import csv

from tfmtl.data.files import arrow
from tfmtl.data.files.paths import Files, check_headers, matching, share
from tfmtl.data.files.reading import Reading
from tfmtl.data.files.schema import Column, Labels, Schema, columns_to_read

INFERENCE_ROWS = 1000

_MISSING = pa.array(csv.ConvertOptions().null_values, pa.binary())


def from_csv(
    files: Files,
    labels: Labels,
    batch_size: int,
    *,
    schema: Schema | None = None,
    lengths: Mapping[str, int] | None = None,
    delimiter: str = ",",
    separator: str = "|",
    header: Sequence[str] | None = None,
    shuffle: bool = False,
    buffer: int = 65_536,
    seed: int = 0,
    cache: bool = False,
    drop_remainder: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Makes a dataset of `(features, labels)` batches from CSV files.

    Features are all other columns of the schema, `(batch, 1)`, or `(batch, width)` for
    columns of lists. Missing values are NaN, -1 or `""`: numbers are missing in cells
    that are empty or say so (`NA`, `NaN`, `null` …), strings in empty cells. Files are
    UTF-8, plain or `.gz`; quoted cells may hold delimiters, `""` and line ends.

    Args:
        files: A path, a glob, or a list of them; local ones.
        labels: The columns that are labels, or a function of a batch's columns,
            `{column: (batch, width)}`, that returns `(features, labels)`. Labels become
            `float32`, NaN where missing.
        batch_size: Number of rows in a batch.
        schema: Column to `"float32"`, `"int64"` or `"string"`, or a list of one of them
            for lists: `{"age": "int64", "tags": ["string"]}`. Only these and the labels
            are read. Defaults to what the first 1,000 rows of the first file show, see
            `infer_schema`; lists are never inferred.
        lengths: Column of lists to the width that lists are cut and padded to. Without
            it they are padded to the longest of the batch. Defaults to `None`.
        delimiter: What stands between cells. Defaults to ",".
        separator: What stands between the values of a list. Defaults to "|".
        header: Names of the columns, for files whose first row is not their names.
            Defaults to `None`.
        shuffle: Whether rows come in a random order, another one in every epoch: files
            in a random order, four at a time, and `buffer` rows are mixed with one
            another. Defaults to `False`, the files' order.
        buffer: How many rows to mix, rounded up to whole batches. Defaults to 65536.
        seed: Seed of the orders. Two datasets of one seed give the same sequence of
            epochs (and of one `tf.random.set_seed`, where it is used). Defaults to 0.
        cache: Whether to keep the rows in memory after the first epoch. Later epochs
            mix each buffer's rows anew, all rows where the buffer holds them. Defaults
            to `False`.
        drop_remainder: Whether to drop a last batch smaller than `batch_size`.
            Defaults to `False`.
        shard: `(index, count)` for one of several workers, which gets every `count`-th
            file. Defaults to `None`, all.

    Returns:
        A prefetched dataset of one epoch; `.repeat()` gives the next ones. The files
        do not say the number of batches, which makes Keras warn once that "your input
        ran out of data"; `tf.data.experimental.assert_cardinality` tells it.

    Raises:
        FileNotFoundError: If a path or a glob has no file.
        ValueError: If an argument is out of its range or files lack columns.
        tf.errors.InvalidArgumentError: While rows are read, if a value is not of its
            type. It names the file, the row, the column and the value.

    Example:

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "log.csv")
    >>> with open(path, "w") as file:
    ...     _ = file.write('age,tags,click\\n31,"a|b",1\\n,,0\\n')
    >>> schema = {"age": "float32", "tags": ["string"]}
    >>> data = from_csv(path, ["click"], batch_size=2, schema=schema)
    >>> for x, y in data.as_numpy_iterator():
    ...     print(x["age"].tolist(), x["tags"].tolist(), y["click"].tolist())
    [[31.0], [nan]] [[b'a', b'b'], [b'', b'']] [[1.0], [0.0]]
    """
    paths = matching(files)
    chosen = schema or infer(paths[0], INFERENCE_ROWS, delimiter, header)
    columns = columns_to_read(chosen, labels, lengths)
    names = [column.name for column in columns]
    headers = {path: _header(path, delimiter, header) for path in paths}
    check_headers(headers, names, inferred=not schema)
    reading = Reading(batch_size, shuffle, buffer, seed, cache, drop_remainder)
    types = {
        c.name: pa.binary() if c.is_list else arrow.TYPES[c.dtype] for c in columns
    }

    def read(path: str) -> Iterator[pa.RecordBatch]:
        first = 1 if header else 2
        with _named(path, headers[path]):
            for batch in _open(path, delimiter, header, types):
                arrays = [
                    _lists(batch[c.name], c, separator, path, first)
                    if c.is_list
                    else batch[c.name]
                    for c in columns
                ]
                first += len(batch)
                yield pa.RecordBatch.from_arrays(arrays, names)

    return arrow.batches_of(share(paths, shard), read, columns, labels, reading)


def infer(
    path: str, rows: int, delimiter: str, header: Sequence[str] | None
) -> dict[str, str | list[str]]:
    """What the first rows of a file show, see `infer_schema`."""
    names = _header(path, delimiter, header)
    with _named(path, names):
        reader = _open(path, delimiter, header, dict.fromkeys(names, pa.binary()))
        tables, count = [reader.schema.empty_table()], 0
        for batch in reader:
            tables.append(pa.Table.from_batches([batch]))
            count += len(batch)
            if count >= rows:
                break
    table = pa.concat_tables(tables)[:rows]
    return {name: _dtype(table[name].combine_chunks()) for name in names}


def _dtype(cells: pa.Array) -> str:
    cells = cells.filter(pc.invert(pc.is_in(cells, _MISSING)))
    try:
        cells = pc.ascii_trim_whitespace(cells.cast(pa.string()))
        if not len(cells):
            return "string"
        is_integer = pc.all(pc.match_substring_regex(cells, r"^[+-]?\d+$")).as_py()
        cells.cast(pa.int64() if is_integer else pa.float32())
    except pa.ArrowInvalid:  # Text, or an integer of too many digits.
        return "string"
    return "int64" if is_integer else "float32"


def _header(path: str, delimiter: str, header: Sequence[str] | None) -> list[str]:
    with _named(path, []):
        names = _open(path, delimiter, header, {}).schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"`{path}` should have columns of different names. Received: {twice} more "
            "than once"
        )
    return names


def _open(
    path: str,
    delimiter: str,
    header: Sequence[str] | None,
    types: Mapping[str, pa.DataType],
) -> csv.CSVStreamingReader:
    return csv.open_csv(
        path,
        # Errors say the row only where one thread reads.
        csv.ReadOptions(use_threads=False, column_names=header),
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        csv.ConvertOptions(column_types=types, include_columns=list(types)),
    )


def _lists(
    array: pa.Array, column: Column, separator: str, path: str, first: int
) -> pa.Array:
    """Splits cells into lists; an empty cell is an empty list."""
    cells = pc.if_else(pc.equal(array, b""), None, array)
    lists = pc.split_pattern(cells, separator.encode())
    values = lists.values
    if column.dtype != "string":
        values = pc.if_else(pc.is_in(values, _MISSING), None, values)
    return arrow.cast(
        pa.ListArray.from_arrays(lists.offsets, values), column, path, first
    )


@contextmanager
def _named(path: str, header: Sequence[str]) -> Iterator[None]:
    """Says the file, and the column's name for its number, in Arrow's errors."""
    try:
        yield
    except pa.ArrowException as error:
        # Arrow's "column #3" is the file's fourth.
        text = re.sub(
            r"(?<=column )#(\d+)", lambda k: f"`{header[int(k[1])]}`", str(error)
        )
        raise ValueError(
            f"`{path}` should be a CSV file of the schema's types. Received: {text}"
        ) from error
