"""Scores files of rows with an exported version: batch inference on Apache Beam.

    python export/score.py --model runs/models/ranker/1 --input 'log/*.parquet' \
        --output runs/scores --key user_id video_id [-- Beam's options]

Reads Parquet, or TFRecord of `tf.train.Example` (GZIP where a path ends in `.gz`); a
file's first bytes tell which. The signature says which columns a row needs and of what
type; values are read as `tfmtl.data` reads them. Writes, into a new folder:

- `scores-*.parquet`: the key columns, or `file` and `row` (from 0) where none is named,
  and one column for each output; a list where an output has several values per row.
- `dead_letter-*.jsonl`: each row that could not be scored, with the reason. No row
  fails the batch and none is lost: rows read = rows scored + dead letters. Where a file
  breaks off, or is no such file, one line says which rows were not read.

Rows go through Beam in blocks of one file, by column, so that nothing is done row by
row but in a block that holds a bad one: that is halved until the bad row is alone.

Runs in this process without further options. `--runner FlinkRunner`, `SparkRunner` or
`DataflowRunner` and what these take go behind `--`. The workers, who need `tfmtl`, then
read the model's folder and the files under the same paths: a shared volume, or, of the
files, what Beam's file systems (Parquet, results) and TensorFlow's (TFRecord) reach.

Needs the extra `.[beam]`. One file, since Beam sends a script's functions by value.
"""

import argparse
import base64
import contextlib
import json
import math
import os
import re
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from google.protobuf.message import DecodeError
from pyarrow import parquet
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.data.files.parquet import schema_of
from tfmtl.data.files.schema import MISSING
from tfmtl.serving.saved_model import PathLike, read_signature
from tfmtl.serving.signatures import EXAMPLES, REGRESS

try:
    import apache_beam as beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.metrics import Metrics, MetricsFilter
    from apache_beam.ml.inference.base import (
        ModelHandler,
        PredictionResult,
        RunInference,
    )
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult, PipelineState
except ImportError as error:
    raise ImportError(
        "Batch scoring needs Apache Beam: pip install 'tfmtl[beam]'"
    ) from error

# `DirectRunner` is this one too, after an attempt to download another, Prism.
LOCAL = "--runner=FnApiRunner"
NAMESPACE = "tfmtl"  # Of Beam's metrics.
DEAD, DAMAGED = "dead", "damaged"
SAMPLE = 1000  # Records that show in what types TFRecord's keys are stored.
PIECE = 100_000  # Rows within which row groups begin that are read together.
TABLES = 128  # Blocks of a row group of the result.

KINDS = {"float_list": "float32", "int64_list": "int64", "bytes_list": "string"}
KEY_TYPES = {"int64": pa.int64(), "string": pa.string()}
REFUSED = (ValueError, tf.errors.InvalidArgumentError)
NODES = re.compile(
    r"Graph execution error:|Name: <unknown>,|\[*\{\{[^}]*\}\}\]*|\[Op:\w+\]"
)
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    zlib.error,
    pa.ArrowException,
    tf.errors.OpError,
)

Rows: TypeAlias = pa.RecordBatch | np.ndarray
"""Columns of Parquet, or TFRecord's records, `(rows,)` of bytes."""

# What Beam passes on are plain tuples: its workers cannot look up a script's classes.
Piece: TypeAlias = tuple[str, tuple[int, ...], int, int]
"""What one worker reads at a time: a file, row groups that follow one another (none for
all of the file), the number of the first row, from 0, and that behind the last (0 where
it is unknown)."""

Block: TypeAlias = tuple[str, int, Rows]
"""Rows that follow one another: a file, the number of the first row, and the rows."""

Model = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Input(NamedTuple):
    """What the signature says of a column.

    Attributes:
        dtype: The name of its type.
        shape: The shape of a row's values, -1 where any size will do.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The type of an example that holds it: float32, int64 or string."""
        dtype = tf.as_dtype(self.dtype)
        if dtype.is_floating:
            return "float32"
        return "string" if dtype == tf.string else "int64"

    @property
    def width(self) -> int | None:
        """Values per row, `None` for any number."""
        return None if -1 in self.shape else math.prod(self.shape)


@dataclass(frozen=True)
class Columns:
    """The columns of a row.

    Attributes:
        inputs: What the model reads.
        keys: What tells rows apart in the result, with the type: int64 or string.
    """

    inputs: Mapping[str, Input]
    keys: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return sorted({*self.inputs, *self.keys})

    def are_lists(self, name: str) -> bool:
        """Whether a column has several values per row."""
        return name in self.inputs and self.inputs[name].width != 1


@dataclass(frozen=True)
class Summary:
    """What a batch came to.

    Attributes:
        read: Rows that were read.
        scored: Rows in the result.
        dead: Rows among the dead letters.
        damaged: Files that could not be read to their end.
        seconds: The whole job's time.
        scoring_seconds: Time in which rows were decoded and scored, the sum of all
            workers'. Each has one thread.
    """

    read: int
    scored: int
    dead: int
    damaged: int
    seconds: float
    scoring_seconds: float

    def __str__(self) -> str:
        per_core = self.read / max(self.scoring_seconds, 1e-9)
        return (
            f"rows read      {self.read:>12,}\n"
            f"scored         {self.scored:>12,}\n"
            f"dead letters   {self.dead:>12,}\n"
            f"damaged files  {self.damaged:>12,}\n"
            f"rows/s         {self.read / self.seconds:>12,.0f}  of the whole job\n"
            f"rows/s         {per_core:>12,.0f}  of one core, decoding and scoring"
        )


def score(
    model: PathLike,
    inputs: Sequence[str],
    output: str,
    *,
    keys: Sequence[str] = (),
    signature: str = "serving_default",
    batch_size: int = 512,
    options: Sequence[str] = (),
) -> Summary:
    """Scores the rows of files.

    Args:
        model: A version's folder.
        inputs: Paths and globs of Parquet and TFRecord files.
        output: The folder of the results, new or empty.
        keys: Columns of integers or strings that the result takes over. Defaults to
            none, then it has the file and the row's number.
        signature: The signature's name, of one that takes columns. Defaults to
            `"serving_default"`.
        batch_size: Most rows that the model gets at once. Defaults to 512.
        options: Beam's own options. Defaults to none: this process does it.

    Returns:
        Counts and times. Runners that report no metrics leave them 0.

    Raises:
        FileNotFoundError: If an input has no file.
        FileExistsError: If the output holds files.
        ValueError: If a key, the output, the signature or the batch size is unfit.
        RuntimeError: If Beam did not finish.

    Example:
        `print(score("models/ranker/1", ["log/*.parquet"], "scores", keys=["user"]))`
    """
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` should be positive. Received: batch_size={batch_size}"
        )
    definition = read_signature(model, signature)
    if signature == EXAMPLES or definition.method_name == REGRESS:
        raise ValueError(
            "`signature` should be one that takes columns, by which files are read, "
            "such as 'serving_default'. Received: "
            f"signature={signature!r}, which takes serialised examples"
        )
    paths = list(dict.fromkeys(p for pattern in inputs for p in _matching(pattern)))
    _check_is_empty(output)
    columns = Columns(_inputs(definition), _key_types(keys, paths))
    handler = SavedModelHandler(model, definition, columns)
    pipeline = beam.Pipeline(options=PipelineOptions([LOCAL, *options]))
    _build(pipeline, paths, output, handler, batch_size)
    start = time.perf_counter()
    result = pipeline.run()
    state = result.wait_until_finish()
    if state != PipelineState.DONE:
        raise RuntimeError(f"Beam should have finished. Received: state={state}")
    return _summary(result, time.perf_counter() - start)


class SavedModelHandler(ModelHandler[Block, PredictionResult, Model]):
    """Beam's view of a SavedModel: loaded once per process, into a session.

    A result's `inference` is a table of keys and outputs, or, of a block of one row,
    the reason why it has none.

    Args:
        path: The folder of the SavedModel.
        signature: The signature to run.
        columns: The columns of a row.

    Raises:
        ValueError: If an output is not of numbers, or a column of the result would
            have the name of another.
    """

    def __init__(
        self,
        path: PathLike,
        signature: meta_graph_pb2.SignatureDef,
        columns: Columns,
    ) -> None:
        super().__init__()
        self.path = str(Path(path).resolve())
        self.columns = columns
        self.feeds = {name: info.name for name, info in signature.inputs.items()}
        self.fetches = {name: info.name for name, info in signature.outputs.items()}
        self.schema = _result_schema(columns.keys, signature)

    def load_model(self) -> Model:
        """Loads the SavedModel as a model server does, with one thread."""
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
        )
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with session.graph.as_default():
            tf.compat.v1.saved_model.load(session, ["serve"], self.path)

        def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            feeds = {self.feeds[name]: array for name, array in arrays.items()}
            return session.run(self.fetches, feeds)

        return run

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """One block at a time: its rows are a batch already."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def run_inference(
        self,
        batch: Sequence[Block],
        model: Model,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterator[PredictionResult]:
        """Scores blocks; rows that fail end up in blocks of their own."""
        for block in batch:
            for part, outcome in apart(block, lambda part: self._score(part, model)):
                yield PredictionResult(part, outcome)

    def get_num_bytes(self, batch: Sequence[Block]) -> int:
        """The size of the rows as far as Arrow or NumPy know it."""
        return sum(rows.nbytes for _, _, rows in batch)

    def get_metrics_namespace(self) -> str:
        """The namespace of Beam's metrics."""
        return NAMESPACE

    def _score(self, block: Block, model: Model) -> pa.Table:
        path, first, rows = block
        found = read_columns(rows, self.columns)
        inputs = self.columns.inputs
        outputs = model({n: dense(n, found[n], inputs[n]) for n in inputs})
        keys = {n: _key(n, found[n], kind) for n, kind in self.columns.keys.items()}
        place = {
            "file": pa.array([path] * len(rows)),
            "row": pa.array(np.arange(first, first + len(rows))),
        }
        scores = {name: _result(array) for name, array in outputs.items()}
        columns = {**(keys or place), **scores}
        return pa.table([columns[n] for n in self.schema.names], schema=self.schema)


def apart(
    block: Block, work: Callable[[Block], pa.Table]
) -> Iterator[tuple[Block, pa.Table | str]]:
    """Does work on a block, without the rows that make it fail.

    Args:
        block: The rows.
        work: What may refuse a block for one of its rows.

    Yields:
        Parts of the block, with what the work made of them, or, of a row by itself,
        why it failed.

    Example:
        `reasons = [made for _, made in apart(block, work) if isinstance(made, str)]`
    """
    path, first, rows = block
    try:
        made: pa.Table | str = work(block)
    except REFUSED as error:
        middle = len(rows) // 2
        if middle:
            yield from apart((path, first, rows[:middle]), work)
            yield from apart((path, first + middle, rows[middle:]), work)
            return
        made = _reason(error)
    yield block, made


def _reason(error: Exception) -> str:
    if isinstance(error, tf.errors.OpError):
        return " ".join(NODES.sub("", error.message).split())
    return str(error)


def read_columns(rows: Rows, columns: Columns) -> dict[str, pa.Array]:
    """Gives rows by column, still in the types in which they are stored.

    Args:
        rows: The rows as they are stored.
        columns: Which columns.

    Returns:
        Values, or lists of them, by column.

    Raises:
        ValueError: If a column is missing or of a type that is never read.
        tf.errors.InvalidArgumentError: If a record has no such column, or in another
            type, or is no `tf.train.Example`.

    Example:
        `read_columns(rows, columns)["age"]`
    """
    if isinstance(rows, pa.RecordBatch):
        return _columns_of_parquet(rows, columns.names)
    return _columns_of_examples(rows, columns)


def _columns_of_parquet(rows: pa.RecordBatch, names: list[str]) -> dict[str, pa.Array]:
    readable = schema_of(rows.schema)
    for name in names:
        count = rows.schema.names.count(name)
        if count != 1:
            raise ValueError(
                f"`{name}` should be one of the columns. Received: {count} of this name"
            )
        if name not in readable:
            raise ValueError(
                f"`{name}` should hold numbers, strings, or lists of them. Received: "
                f"{rows.schema.field(name).type}"
            )
    return {name: rows[name] for name in names}


def _columns_of_examples(rows: np.ndarray, columns: Columns) -> dict[str, pa.Array]:
    stored = {name: kind for name, (kind, _) in _values(rows[0]).items()}
    features = {name: _feature(name, columns, stored) for name in columns.names}
    parsed = tf.io.parse_example(rows, features)
    return {name: _to_arrow(values) for name, values in parsed.items()}


def _feature(name: str, columns: Columns, stored: Mapping[str, str]) -> Any:
    """How to parse a column, `stored` as the first of the rows has it."""
    wanted = columns.inputs.get(name)
    kind = wanted.kind if wanted else columns.keys[name]
    if (stored.get(name), kind) == ("int64", "float32"):
        kind = "int64"
    if columns.are_lists(name):
        return tf.io.RaggedFeature(kind, row_splits_dtype=tf.int64)
    if name not in stored:
        raise ValueError(
            f"`{name}` should be in the example. Received: no such feature"
        )
    return tf.io.FixedLenFeature([], kind)


def _to_arrow(values: tf.Tensor | tf.RaggedTensor) -> pa.Array:
    if isinstance(values, tf.RaggedTensor):
        splits = pa.array(values.row_splits.numpy())
        return pa.LargeListArray.from_arrays(splits, _to_arrow(values.values))
    return pa.array(values.numpy(), pa.binary() if values.dtype == tf.string else None)


def _values(record: bytes) -> dict[str, tuple[str, list[Any]]]:
    """The type and the values of a record's features, by name."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(
            "The record should be a serialised tf.train.Example. Received: "
            f"{record[:20]!r} …, {len(record)} bytes"
        ) from error
    return {
        name: (KINDS[kind], list(getattr(feature, kind).value))
        for name, feature in sorted(features.items())
        if (kind := feature.WhichOneof("kind"))
    }


def dense(name: str, array: pa.Array, column: Input) -> np.ndarray:
    """Gives a column as the model takes it.

    What is missing is NaN, -1 or `""`, and so is what a list lacks to the signature's
    width, or to the longest of the block where that is open.

    Args:
        name: The column, for errors.
        array: Values, or lists of them.
        column: What the signature says.

    Returns:
        `(rows, …)`, in the signature's type.

    Raises:
        ValueError: If a value has another type, or a row too many of them.

    Example:

    >>> dense("tags", pa.array([[5, 7], []]), Input("int64", (-1,))).tolist()
    [[5, 7], [-1, -1]]
    """
    is_list = hasattr(array.type, "value_field")
    values = _cast(name, pc.list_flatten(array) if is_list else array, column)
    if not is_list and column.width in (1, None):
        return values.reshape(len(array), *column.shape)
    lengths = np.ones(len(array), np.int64)
    if is_list:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    longest = int(lengths.max(initial=1))
    width = column.width or longest
    if longest > width or not is_list:
        wanted = f"{width} values" if width > 1 else "one value"
        raise ValueError(f"`{name}` should have {wanted}. Received: {longest}")
    filled = np.full((len(array), width), _missing(column), values.dtype)
    filled[np.arange(width) < lengths[:, None]] = values
    return filled.reshape(len(array), *column.shape)


def _cast(name: str, array: pa.Array, column: Input) -> np.ndarray:
    dtype = tf.as_dtype(column.dtype)
    is_string = dtype == tf.string
    target = pa.binary() if is_string else pa.from_numpy_dtype(dtype.as_numpy_dtype)
    if pa.types.is_floating(array.type) and dtype.is_integer:
        array = pc.if_else(pc.is_nan(array), None, array)
    try:
        # Not safe: an integer may have more digits than a float32, which is as asked.
        values = array.cast(target, safe=not dtype.is_floating)
        if values.null_count:
            values = values.fill_null(pa.scalar(_missing(column), target))
    except (pa.ArrowException, OverflowError) as error:
        received = ", ".join(repr(value) for value in array[:3].to_pylist())
        raise ValueError(
            f"`{name}` should be {column.dtype}. Received: {received}"
        ) from error
    return values.to_numpy(zero_copy_only=False)


def _missing(column: Input) -> Any:
    value = MISSING[column.kind]
    return value.encode() if isinstance(value, str) else value


def _key(name: str, array: pa.Array, kind: str) -> pa.Array:
    try:
        values = array.cast(KEY_TYPES[kind])
    except pa.ArrowException as error:
        raise ValueError(
            f"`{name}` should be {kind}, as a key. Received: {array[0].as_py()!r}"
        ) from error
    if values.null_count:
        raise ValueError(f"`{name}` should not be missing, as a key. Received: None")
    return values


def _result(array: np.ndarray) -> pa.Array:
    values = array.reshape(len(array), -1)
    if array.ndim == 1 or array.shape[1:] == (1,):
        return pa.array(values[:, 0])
    splits = np.arange(len(array) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(splits, values.ravel())


def _result_schema(
    keys: Mapping[str, str], signature: meta_graph_pb2.SignatureDef
) -> pa.Schema:
    fields = [(name, KEY_TYPES[kind]) for name, kind in keys.items()]
    fields = fields or [("file", pa.string()), ("row", pa.int64())]
    for name, info in sorted(signature.outputs.items()):
        if name in dict(fields):
            raise ValueError(
                "`keys` should have other names than the outputs, and `file` and `row` "
                f"are taken where there are none. Received: the output {name!r}"
            )
        dtype = tf.as_dtype(info.dtype)
        if dtype == tf.string:
            raise ValueError(
                "`signature` should have outputs of numbers. Received: the output "
                f"{name!r} of strings"
            )
        kind = pa.from_numpy_dtype(dtype.as_numpy_dtype)
        sizes = [dim.size for dim in info.tensor_shape.dim][1:]
        fields.append((name, kind if sizes in ([], [1]) else pa.list_(kind)))
    return pa.schema(fields)


def _build(
    pipeline: beam.Pipeline,
    paths: list[str],
    output: str,
    handler: SavedModelHandler,
    batch_size: int,
) -> None:
    """Files become blocks, these become tables and dead letters, and those files."""
    read = (
        pipeline
        | "Files" >> beam.Create(paths)
        | "Pieces" >> beam.FlatMap(pieces)
        | "Spread" >> beam.Reshuffle()
        | "Read"
        >> beam.ParDo(Read(handler.columns.names, batch_size)).with_outputs(
            DEAD, DAMAGED, main="blocks"
        )
    )
    _ = (
        read[DAMAGED]
        | "Damaged files" >> beam.Distinct()
        | "Count them" >> beam.Map(lambda _: _count(DAMAGED))
    )
    scored = (
        read.blocks
        | "Score" >> RunInference(handler)
        | "Sort" >> beam.ParDo(Sort()).with_outputs(DEAD, main="tables")
    )
    _ = (
        scored.tables
        | "Gather" >> beam.BatchElements(min_batch_size=TABLES, max_batch_size=TABLES)
        | "Row groups" >> beam.Map(pa.concat_tables)
        | "Scores"
        >> beam.io.WriteToParquetBatched(
            FileSystems.join(output, "scores"),
            handler.schema,
            codec="snappy",
            file_name_suffix=".parquet",
        )
    )
    _ = (
        (read[DEAD], scored[DEAD])
        | "All dead letters" >> beam.Flatten()
        | "Dead letters"
        >> beam.io.WriteToText(
            FileSystems.join(output, "dead_letter"), ".jsonl", skip_if_empty=True
        )
    )


def pieces(path: str) -> Iterator[Piece]:
    """Cuts a file into what several workers may read.

    Args:
        path: The file.

    Yields:
        Row groups of Parquet, about 100,000 rows, or all of another file. A file that
        does not open stays one piece, to fail when it is read.

    Example:
        `len(list(pieces("log/1.parquet")))`
    """
    try:
        with _open_parquet(path) as file:
            groups = range(file.num_row_groups)
            counts = [file.metadata.row_group(group).num_rows for group in groups]
    except UNREADABLE:
        yield path, (), 0, 0
        return
    starts = [0, *accumulate(counts)]
    for _, run in groupby(groups, lambda group: starts[group] // PIECE):
        together = tuple(run)
        yield path, together, starts[together[0]], starts[together[-1] + 1]


class Read(beam.DoFn):
    """Reads pieces of files in blocks; where one breaks off is a dead letter.

    Args:
        names: The columns to read of Parquet, all where one of them is missing.
        batch_size: Most rows of a block.
    """

    def __init__(self, names: list[str], batch_size: int) -> None:
        self.names = names
        self.batch_size = batch_size

    def process(self, piece: Piece) -> Iterator[Any]:
        """Yields blocks; where a piece breaks off, a dead letter and the file."""
        path, groups, row, end = piece
        try:
            for rows in self._rows(path, groups):
                _count("read", len(rows))
                yield path, row, rows
                row += len(rows)
        except UNREADABLE as error:
            lost = "The file was not read from this row on"
            if end:
                lost = f"Rows {row} to {end - 1} were not read"
            letter = _line(path, row, f"{lost}: {_reason(error)}", None)
            yield beam.pvalue.TaggedOutput(DEAD, letter)
            yield beam.pvalue.TaggedOutput(DAMAGED, path)

    def _rows(self, path: str, groups: tuple[int, ...]) -> Iterator[Rows]:
        if not groups and not _is_parquet(path):
            yield from _records(path, self.batch_size)
            return
        with _open_parquet(path) as file:
            there = set(self.names) <= set(file.schema_arrow.names)
            yield from file.iter_batches(
                self.batch_size, groups or None, self.names if there else None
            )


class Sort(beam.DoFn):
    """Parts what was scored from dead letters."""

    def process(self, result: PredictionResult) -> Iterator[Any]:
        """Yields a table, or the dead letter of a row."""
        block: Any = result.example
        made: Any = result.inference
        path, row, rows = block
        if isinstance(made, pa.Table):
            _count("scored", len(made))
            yield made
        else:
            _count(DEAD)
            letter = _line(path, row, made, _readable(rows))
            yield beam.pvalue.TaggedOutput(DEAD, letter)


def _count(name: str, number: int = 1) -> None:
    Metrics.counter(NAMESPACE, name).inc(number)


def _matching(pattern: str) -> list[str]:
    found = sorted(file.path for file in FileSystems.match([pattern])[0].metadata_list)
    if not found:
        raise FileNotFoundError(
            f"`inputs` should be files or globs of files. Received: {pattern!r}, which "
            "no file matches"
        )
    return found


def _check_is_empty(output: str) -> None:
    if set(output) & set("*?["):  # Beam would take it for a glob.
        raise ValueError(
            f"`output` should be without '*', '?' and '['. Received: output={output!r}"
        )
    inside = FileSystems.match([FileSystems.join(output, "*")])[0].metadata_list
    if inside:
        raise FileExistsError(
            "`output` should be a new or empty folder. Received: "
            f"output={output!r}, which holds {inside[0].path!r}"
        )


def _open(path: str) -> Any:
    """A file's own bytes, whatever the name promises."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def _is_parquet(path: str) -> bool:
    with _open(path) as file:
        return file.read(4) == b"PAR1"


@contextlib.contextmanager
def _open_parquet(path: str) -> Iterator[parquet.ParquetFile]:
    with _open(path) as file:
        yield parquet.ParquetFile(file, page_checksum_verification=True)


def _records(path: str, batch_size: int) -> Iterator[np.ndarray]:
    """The records of a file in blocks, or one by one up to where it is damaged."""
    records = tf.data.TFRecordDataset(path, "GZIP" if path.endswith(".gz") else "")
    count = 0
    try:
        for block in records.batch(batch_size).as_numpy_iterator():
            yield block
            count += len(block)
    except tf.errors.DataLossError:
        yield from records.skip(count).batch(1).as_numpy_iterator()


def _stored_types(paths: Sequence[str]) -> dict[str, str]:
    """The types of the columns, from the first file that shows some."""
    for path in paths:
        try:
            found = _types_of_file(path)
        except UNREADABLE:
            continue
        if found:
            return found
    return {}


def _types_of_file(path: str) -> dict[str, str]:
    if _is_parquet(path):
        with _open_parquet(path) as file:
            schema = schema_of(file.schema_arrow)
        return {
            n: k if isinstance(k, str) else f"lists of {k}" for n, k in schema.items()
        }
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    # What comes before the damage shows something.
    with contextlib.suppress(tf.errors.OpError):
        for block in islice(_records(path, 1), SAMPLE):
            with contextlib.suppress(ValueError):
                for name, (kind, values) in _values(block[0]).items():
                    kinds[name][kind if len(values) < 2 else f"lists of {[kind]}"] += 1
    return {name: found.most_common(1)[0][0] for name, found in kinds.items()}


def _inputs(signature: meta_graph_pb2.SignatureDef) -> dict[str, Input]:
    return {
        name: Input(
            tf.as_dtype(info.dtype).name,
            tuple(dim.size for dim in info.tensor_shape.dim[1:]),
        )
        for name, info in signature.inputs.items()
    }


def _key_types(keys: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    stored = _stored_types(paths) if keys else {}
    for name in keys:
        if stored.get(name) not in KEY_TYPES:
            raise ValueError(
                "`keys` should be columns of integers or strings. Received: "
                f"{name!r}, which is {stored.get(name, 'none of the columns')}"
            )
    return {name: stored[name] for name in keys}


def _line(path: str, row: int, reason: str, content: Any) -> str:
    letter = {"file": path, "row": row, "reason": reason, "content": content}
    return json.dumps(letter, ensure_ascii=False)


def _readable(rows: Rows) -> Any:
    """The one row of a block as JSON has it."""
    if isinstance(rows, pa.RecordBatch):
        names = rows.schema.names
        return {n: _plain(c[0].as_py()) for n, c in zip(names, rows, strict=True)}
    try:
        return {name: _plain(values) for name, (_, values) in _values(rows[0]).items()}
    except ValueError:
        return {"base64": base64.b64encode(rows[0]).decode()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such numbers.
    return value if isinstance(value, str | int | float | None) else str(value)


def _summary(result: PipelineResult, seconds: float) -> Summary:
    metrics = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    counts = {m.key.metric.name: m.result for m in metrics["counters"]}
    times = {m.key.metric.name: m.result.sum for m in metrics["distributions"]}
    return Summary(
        read=counts.get("read", 0),
        scored=counts.get("scored", 0),
        dead=counts.get(DEAD, 0),
        damaged=counts.get(DAMAGED, 0),
        seconds=seconds,
        scoring_seconds=times.get("inference_batch_latency_micro_secs", 0) / 1e6,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores what the command line names, and prints the summary.

    Args:
        arguments: Words of the command line. Defaults to the process's own.

    Returns:
        The exit status: 65 if a file could not be read to its end, or of rows none
        was scored.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    given = _parser().parse_args(words[:cut])
    summary = score(
        given.model,
        given.input,
        given.output,
        keys=given.key,
        signature=given.signature,
        batch_size=given.batch_size,
        options=words[cut + 1 :],
    )
    print(summary)
    failed = summary.damaged or (summary.read and not summary.scored)
    return os.EX_DATAERR if failed else os.EX_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score.py",
        description="Scores files of rows with an exported version, on Apache Beam.",
        epilog="Beam's own options go behind `--`.",
    )
    parser.add_argument("--model", required=True, help="a version's folder")
    parser.add_argument(
        "--input", required=True, nargs="+", help="Parquet or TFRecord: paths, globs"
    )
    parser.add_argument("--output", required=True, help="a new or empty folder")
    parser.add_argument(
        "--key", nargs="+", default=[], help="columns that the result takes over"
    )
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--batch-size", type=int, default=512, help="rows at once")
    return parser


if __name__ == "__main__":
    sys.exit(main())
