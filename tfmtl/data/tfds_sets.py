"""Batches from the datasets of tensorflow-datasets, by name."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from tfmtl.data import prepared
from tfmtl.data.files import tfrecord
from tfmtl.data.files.reading import Reading
from tfmtl.data.files.schema import Columns, Labels, columns_to_read
from tfmtl.data.files.schema import split as cut


def from_tfds(
    name: str | tfds.core.DatasetBuilder,
    labels: Labels,
    batch_size: int,
    *,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    lengths: Mapping[str, int] | None = None,
    shuffle: bool = False,
    buffer: int = 65_536,
    seed: int = 0,
    cache: bool = False,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Makes a dataset of `(features, labels)` batches from a TFDS dataset.

    Prepares the dataset first where needed. Columns are what is stored: numbers as
    `float32` or `int64`, `(batch, 1)`, strings as they are, sequences of one axis
    padded with NaN, -1 or `""` to `(batch, width)`; parts of nested features are called
    `"part_of_it"`, since no column of a model may have a `/` in its name; images and
    other features of more axes are left out.

    `tfmtl.features.suggest` makes features of what comes.

    Args:
        name: Name of the dataset, such as `"movielens/latest-small-ratings"`, or its
            builder, where that has options of its own.
        labels: The columns that are labels, or a function of a batch's columns that
            returns `(features, labels)`. Labels become `float32`.
        batch_size: Number of rows in a batch.
        split: Name of the split, or a part of it, `"train[:80%]"`. Defaults to
            `"train"`.
        data_dir: Where prepared datasets are kept. Defaults to TFDS's own place,
            `~/tensorflow_datasets`.
        manual_dir: Folder of downloaded files to prepare from, without a network where
            it holds all of them. Defaults to a download.
        lengths: Column of sequences to the width that they are cut and padded to.
            Without it they are padded to the longest of the batch, or to the one length
            that the dataset states. Defaults to `None`.
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

    Returns:
        A prefetched dataset of one epoch and of known cardinality; `.repeat()` gives
        the next ones.

    Raises:
        ValueError: If an argument is out of its range, the split or a label is unknown,
            two parts of nested features get one name, or the dataset was prepared in
            another file format than TFRecord.

    Example:

    ```python
    def task(columns):
        features = {name: columns[name] for name in ("user_id", "movie_id")}
        return features, {"liked": columns["user_rating"] >= 4}

    ratings = "movielens/latest-small-ratings"
    train = from_tfds(ratings, task, 1024, split="train[:80%]", shuffle=True)
    test = from_tfds(ratings, task, 1024, split="train[80%:]")
    ```
    """
    builder = (
        tfds.builder(name, data_dir=data_dir, try_gcs=False)
        if isinstance(name, str)
        else name
    )
    prepared.prepare(builder, manual_dir)
    info = builder.info.splits[split]
    parts = [
        tfrecord.Part(os.fspath(part.filename), part.skip, part.take)
        for part in info.file_instructions
    ]
    stored = _columns(builder.info.features.get_serialized_info())
    paths = _paths(stored)
    widths = {_name(key): k for key, (_, shape) in stored.items() for k in shape if k}
    schema = {
        _name(key): [kind] if shape else kind for key, (kind, shape) in stored.items()
    }
    unknown = [] if callable(labels) else sorted(set(labels) - set(schema))
    if unknown:
        raise ValueError(
            f"`labels` should be of the columns {sorted(schema)}. Received: {unknown}"
        )
    columns = [
        column._replace(name=paths[column.name])
        for column in columns_to_read(schema, labels, widths | dict(lengths or {}))
    ]

    def named(read: Columns) -> tuple[Columns, Columns]:
        return cut({_name(path): column for path, column in read.items()}, labels)

    reading = Reading(batch_size, shuffle, buffer, seed, cache, drop_remainder)
    return tfrecord.batches_of(parts, columns, named, reading).apply(
        tf.data.experimental.assert_cardinality(reading.num_batches(info.num_examples))
    )


def _name(path: str) -> str:
    return path.replace("/", "_")


def _paths(stored: Mapping[str, Any]) -> dict[str, str]:
    """Column to the path under which it is stored."""
    paths = {_name(path): path for path in stored}
    for path in stored:
        other = paths[_name(path)]
        if other != path:
            raise ValueError(
                "Columns should have different names when their parts are joined by "
                f"'_'. Received: {path!r} and {other!r}"
            )
    return paths


def _columns(info: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Column to its type and shape, of those of one axis at most."""
    found = {key: (_dtype(i.tf_dtype), tuple(i.shape)) for key, i in _leaves(info, "")}
    return {
        key: (kind, shape)
        for key, (kind, shape) in found.items()
        if kind is not None and len(shape) < 2
    }


def _leaves(info: Any, path: str) -> Iterator[tuple[str, tfds.features.TensorInfo]]:
    if isinstance(info, Mapping):
        for name, part in info.items():
            yield from _leaves(part, f"{path}/{name}" if path else name)
    else:
        yield path, info


def _dtype(dtype: tf.DType) -> str | None:
    if dtype == tf.string:
        return "string"
    if dtype.is_floating:
        return "float32"
    return "int64" if dtype.is_integer or dtype.is_bool else None
