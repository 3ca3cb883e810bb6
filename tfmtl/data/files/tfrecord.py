"""Batches from TFRecord files of `tf.train.Example`."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import tensorflow as tf

from tfmtl.data.files.paths import Files, matching, share
from tfmtl.data.files.reading import Reading, cut
from tfmtl.data.files.schema import MISSING, Column, Labels, Schema, columns_to_read

INFERENCE_ROWS = 1000

_STORED = {"float_list": "float32", "int64_list": "int64", "bytes_list": "string"}
_NO_INTEGER = tf.int64.min  # Missing, where integers become floats.
_BLOCK = 1024  # Records that are read at once.
_INTERLEAVED = 4  # Files that are read in turns where rows are shuffled.


class Part(NamedTuple):
    """Some records of a file.

    Attributes:
        path: The file.
        skip: How many records are before them.
        take: How many records they are, -1 for all.
    """

    path: str
    skip: int = 0
    take: int = -1


def from_tfrecord(
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
    """Makes a dataset of `(features, labels)` batches from files of `tf.train.Example`.

    Features are all other columns of the schema, `(batch, 1)`, or `(batch, width)` for
    columns of lists. Missing values, that is keys that are left out or have no kind of
    value, are NaN, -1 or `""`. A key with an empty list is one of a column of lists;
    `lengths={"age": 1}` makes it one of single values.

    Args:
        files: A path, a glob, or a list of them; GZIP where the first ends in `.gz`.
        labels: The columns that are labels, or a function of a batch's columns,
            `{column: (batch, width)}`, that returns `(features, labels)`. Labels become
            `float32`, NaN where missing.
        batch_size: Number of rows in a batch.
        schema: Column to `"float32"`, `"int64"` or `"string"`, or a list of one of them
            for lists: `{"age": "int64", "tags": ["string"]}`. Only these and the labels
            are read. Defaults to what the first 1,000 records show, see `infer_schema`.
        lengths: Column of lists to the width that lists are cut and padded to. Without
            it they are padded to the longest of the batch. Defaults to `None`.
        shuffle: Whether rows come in a random order, another one in every epoch: files
            in a random order, four at a time, and `buffer` rows are mixed with one
            another. Defaults to `False`, the files' order.
        buffer: How many rows to mix, rounded up to whole batches. Defaults to 65536.
        seed: Seed of the orders. Two datasets of one seed give the same sequence of
            epochs (and of one `tf.random.set_seed`, where it is used). Defaults to 0.
        cache: Whether to keep the records in memory after the first epoch. Later epochs
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
        ValueError: If an argument is out of its range, or none of the first 1,000
            records has a column, or has it in another type.
        tf.errors.InvalidArgumentError: While records are read, if a value is not of its
            type, or a column that is not of lists has not one. It names the file, the
            record, the column and what came.

    Example:

    >>> import os, tempfile
    >>> from tfmtl.data import write_tfrecord
    >>> path = os.path.join(tempfile.mkdtemp(), "log.tfrecord")
    >>> rows = {"age": [31.0, float("nan")], "tags": [["a", "b"], []]}
    >>> path = write_tfrecord(path, rows, {"click": [1, 0]})
    >>> for x, y in from_tfrecord(path, ["click"], batch_size=2).as_numpy_iterator():
    ...     print(x["age"].tolist(), x["tags"].tolist(), y["click"].tolist())
    [[31.0], [nan]] [[b'a', b'b'], [b'', b'']] [[1.0], [0.0]]
    """
    paths = matching(files)
    columns = columns_to_read(schema or infer(paths, INFERENCE_ROWS), labels, lengths)
    reading = Reading(batch_size, shuffle, buffer, seed, cache, drop_remainder)
    return batches_of([Part(p) for p in share(paths, shard)], columns, labels, reading)


def batches_of(
    parts: list[Part], columns: list[Column], labels: Labels, reading: Reading
) -> tf.data.Dataset:
    """Makes batches of parts of files.

    Args:
        parts: Which records.
        columns: The columns.
        labels: Which of them are labels.
        reading: How rows come.

    Returns:
        Batches of `(features, labels)`.

    Raises:
        ValueError: If none of the first records has a column, or in another type.
    """
    paths = [part.path for part in parts]
    stored = dict(zip(columns, _stored_types(paths, columns), strict=True))
    features = {column.name: _feature(column, kind) for column, kind in stored.items()}
    compression = _compression(paths)
    numbers = tf.data.Dataset.from_tensor_slices(
        {
            "part": tf.range(len(parts), dtype=tf.int64),
            "path": tf.constant(paths),
            "skip": tf.constant([part.skip for part in parts], tf.int64),
            "take": tf.constant([part.take for part in parts], tf.int64),
        }
    )

    def blocks(part: dict[str, tf.Tensor]) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(part["path"], compression)
        records = records.skip(part["skip"]).take(part["take"]).batch(_BLOCK)
        return records.enumerate().map(lambda k, block: numbered(part, k, block))

    def numbered(
        part: dict[str, tf.Tensor], k: tf.Tensor, block: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        count = tf.size(block, out_type=tf.int64)
        rows = part["skip"] + k * _BLOCK + tf.range(1, count + 1)
        return tf.fill([count], part["part"]), rows, block

    def take(
        window: tuple[tf.Tensor, ...], rows: tf.Tensor
    ) -> dict[str, tf.Tensor | tf.RaggedTensor]:
        part, row, records = (tf.gather(values, rows) for values in window)
        path, number = tf.gather(tf.constant(paths), part), tf.strings.as_string(row)
        names = tf.strings.join([path, number], ", record ")
        parsed = tf.io.parse_example(records, features, names)
        return {c.name: _typed(c, kind, parsed[c.name]) for c, kind in stored.items()}

    if reading.shuffle:
        numbers = numbers.shuffle(len(parts), reading.seed)
        windows = numbers.interleave(blocks, _INTERLEAVED)
    else:
        windows = numbers.flat_map(blocks)
    windows = windows.rebatch(reading.window)
    return cut(
        windows, lambda window: tf.size(window[1]), take, columns, labels, reading
    )


def is_tfrecord(path: str) -> bool:
    """Whether the file starts with a record."""
    records = tf.data.TFRecordDataset(path, _compression([path]))
    try:
        return next(records.as_numpy_iterator(), None) is not None
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        return False


def infer(paths: list[str], rows: int) -> dict[str, str | list[str]]:
    """What the first records show, see `infer_schema`."""
    schema: dict[str, str | list[str]] = {}
    for _, name, kind, count in _values(paths, rows):
        if kind:
            is_list = count != 1 or isinstance(schema.get(name), list)
            schema[name] = [_STORED[kind]] if is_list else _STORED[kind]
    return schema


def _stored_types(paths: list[str], columns: list[Column]) -> list[str]:
    """The types in which columns are stored, which may become those of the schema."""
    unknown = {column.name: column for column in columns}
    stored: dict[str, str] = {}
    seen = set()
    for path, name, kind, _ in _values(paths, INFERENCE_ROWS):
        seen.add(name)
        if name in unknown and kind:
            column, dtype = unknown.pop(name), _STORED[kind]
            if dtype != column.dtype and (dtype, column.dtype) != ("int64", "float32"):
                raise ValueError(
                    f"`{name}` should be {column.dtype} in `{path}`. Received: {dtype}"
                )
            stored[name] = dtype
        if not unknown:
            break
    lacking = [name for name in unknown if name not in seen]
    if lacking:
        raise ValueError(
            f"`{paths[0]}` should have the columns {lacking} in one of the first "
            f"{INFERENCE_ROWS} records. Received: columns {sorted(seen)}"
        )
    return [stored.get(column.name, column.dtype) for column in columns]


def _values(paths: list[str], rows: int) -> Iterator[tuple[str, str, str | None, int]]:
    """File, column, kind and number of values of every feature in the first records."""
    compression = _compression(paths)
    records = (
        (path, record)
        for path in paths
        for record in tf.data.TFRecordDataset(path, compression).as_numpy_iterator()
    )
    for path, record in islice(records, rows):
        example = tf.train.Example.FromString(record)
        for name, feature in sorted(example.features.feature.items()):
            kind = feature.WhichOneof("kind")
            count = len(getattr(feature, kind).value) if kind else 0
            yield path, name, kind, count


def _compression(paths: list[str]) -> str:
    return "GZIP" if paths[0].endswith(".gz") else ""


def _feature(column: Column, stored: str) -> NamedTuple:
    if column.is_list:
        return tf.io.RaggedFeature(stored, row_splits_dtype=tf.int64)
    missing = _NO_INTEGER if stored != column.dtype else MISSING[stored]
    return tf.io.FixedLenFeature([], stored, missing)


def _typed(
    column: Column, stored: str, values: tf.Tensor | tf.RaggedTensor
) -> tf.Tensor | tf.RaggedTensor:
    if stored == column.dtype:
        return values
    numbers = tf.cast(values, column.dtype)
    if column.is_list:
        return numbers
    return tf.where(values == _NO_INTEGER, MISSING[column.dtype], numbers)
