"""Rows of files in the columns that versions read; no schema is needed."""

import os
from collections.abc import Sequence

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.data import from_csv, from_parquet, from_tfrecord
from tfmtl.serving.saved_model import PathLike, read_signature, spelled

BATCH = 1024
READERS = {".parquet": from_parquet, ".csv": from_csv, ".tfrecord": from_tfrecord}


def rows_of_files(
    files: Sequence[PathLike], versions: Sequence[PathLike], labels: Sequence[str] = ()
) -> tf.data.Dataset:
    """Reads the columns that versions ask for, and labels.

    Args:
        files: Paths or globs of Parquet, CSV or TFRecord, by their ending `.parquet`,
            `.csv` or `.tfrecord`, the latter two also with `.gz`.
        versions: Folders of versions.
        labels: The columns that are labels, named like outputs. Defaults to `()`.

    Returns:
        Batches of `(columns, labels)`, in the files' order.

    Raises:
        FileNotFoundError: If a path or a glob has no file.
        ValueError: If files are of another ending or lack columns, or a version reads
            a column that a file cannot have.

    Example:
        `rows_of_files(["log/*.parquet"], ["models/ranker/3"], ["click"])`
    """
    endings = {os.path.splitext(str(file).removesuffix(".gz"))[1] for file in files}
    if len(endings) != 1 or not endings <= set(READERS):
        raise ValueError(
            f"Files should have one of the endings {list(READERS)}, the same for all. "
            f"Received: {[str(file) for file in files]}"
        )
    schema: dict[str, str | list[str]] = {}
    lengths: dict[str, int] = {}
    for version in versions:
        for name, info in read_signature(version).inputs.items():
            dtype, width = _column(name, info)
            schema[name] = dtype if width == 1 else [dtype]
            lengths |= {name: width} if width > 1 else {}
    read = READERS[endings.pop()]
    return read(list(files), list(labels), BATCH, schema=schema, lengths=lengths)


def _column(name: str, info: meta_graph_pb2.TensorInfo) -> tuple[str, int]:
    """The type in files, and values in a row: -1 for any number."""
    dtype, sizes = tf.as_dtype(info.dtype), [d.size for d in info.tensor_shape.dim][1:]
    if len(sizes) > 1:
        raise ValueError(
            f"Input {name!r} should have the shape (batch,) or (batch, width) to be "
            f"read from files. Received: {spelled(info)}"
        )
    kind = "string" if dtype == tf.string else "int64"
    return "float32" if dtype.is_floating else kind, sizes[0] if sizes else 1
