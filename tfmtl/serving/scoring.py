"""Scores of two versions for the same rows, streamed through the C++ session."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.serving.rows import as_array
from tfmtl.serving.saved_model import PathLike, read_signature
from tfmtl.serving.session import Rows, request

BATCH = 1024  # rows of a batch that is cut from columns
WINDOW = 1 << 16  # rows, or more by a batch, that a process is started for
Arrays = dict[str, np.ndarray]


class Batch(NamedTuple):
    """Some rows.

    Attributes:
        columns: By name, `(rows, …)`.
        labels: By output, `(rows,)` or `(rows, width)`; of some outputs.
    """

    columns: Arrays
    labels: Arrays


class Scored(NamedTuple):
    """What two versions said of the same rows.

    Attributes:
        old: Scores by output, `(rows, width)`, float32.
        new: The same of the new version.
        labels: By output, `(rows, 1)` or `(rows, width)`, float32, NaN where missing;
            of the outputs that have any.
    """

    old: Arrays
    new: Arrays
    labels: Arrays


def score(
    old: PathLike,
    new: PathLike,
    outputs: Sequence[str],
    batches: Iterable[Batch],
    timeout: float,
) -> Scored:
    """Scores batches with both versions, 65,536 rows in a process each.

    What is kept is the scores and labels, 4 bytes each, and one window of the columns.

    Args:
        old: The old version's folder.
        new: The new version's.
        outputs: Outputs that both have.
        batches: Of all columns that one of them reads; others are left out.
        timeout: The seconds after which a process is ended.

    Returns:
        The scores.

    Raises:
        ValueError: If there are no rows, or a column is missing or of another type.
        CppSessionError: If a version does not load or run.

    Example:
        `score("ranker/3", "ranker/4", ["click"], batches_of(rows), 60.0).old["click"]`
    """
    befores, afters, known = [], [], []
    for window in _windows(batches):
        befores.append(_answers(old, window, outputs, timeout))
        afters.append(_answers(new, window, outputs, timeout))
        known += [_two_axes(batch) for batch in window]
    if not known:
        raise ValueError("`rows` should have at least one row. Received: none")
    before, after = (
        {name: np.concatenate([part[name] for part in parts]) for name in outputs}
        for parts in (befores, afters)
    )
    return Scored(before, after, _joined(known))


def batches_of(rows: Any, labels: Rows | None = None) -> Iterator[Batch]:
    """Cuts columns into batches, or takes batches as they come.

    Args:
        rows: Columns by name, or batches: of columns by name, or `(columns, labels)`.
        labels: By output, where `rows` are columns. Defaults to `None`, none.

    Yields:
        Batches of one row or more.

    Raises:
        ValueError: If columns differ in length, or a batch is something else.

    Example:
        >>> from tfmtl.serving.scoring import batches_of
        >>> [len(batch.columns["age"]) for batch in batches_of({"age": [1.0] * 1500})]
        [1024, 476]
    """
    if isinstance(rows, Mapping):
        whole = _batch(rows, labels or {})
        for start in range(0, _num_rows(whole), BATCH):
            cut = slice(start, start + BATCH)
            yield Batch(
                *({name: a[cut] for name, a in group.items()} for group in whole)
            )
        return
    if labels is not None:
        raise ValueError(
            "`labels` should be given where `rows` are columns by name; batches are "
            f"(columns, labels). Received: rows of type {type(rows).__name__}"
        )
    for given in rows:
        pair = given if isinstance(given, tuple) else (given, {})
        if len(pair) != 2 or not all(isinstance(group, Mapping) for group in pair):
            kinds = ", ".join(type(part).__name__ for part in pair)
            raise ValueError(
                "A batch of `rows` should be columns by name, or (columns, labels), "
                f"labels by output. Received: ({kinds})"
            )
        batch = _batch(*pair)
        if _num_rows(batch):
            yield batch


def _batch(columns: Rows, labels: Rows) -> Batch:
    batch = Batch(
        {name: as_array(values) for name, values in columns.items()},
        {name: np.asarray(values, np.float32) for name, values in labels.items()},
    )
    lengths = {name: array.shape[:1] for name, array in batch.columns.items()}
    lengths |= {f"label {name}": a.shape[:1] for name, a in batch.labels.items()}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(
            "`rows` and `labels` should have the same number of rows, the first "
            f"dimension, in every column. Received: {lengths}"
        )
    return batch


def _num_rows(batch: Batch) -> int:
    return len(next(iter(batch.columns.values())))


def _windows(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    held: list[Batch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += _num_rows(batch)
        if count >= WINDOW:
            yield held
            held, count = [], 0
    if held:
        yield held


def _answers(
    version: PathLike, window: Sequence[Batch], outputs: Sequence[str], timeout: float
) -> Arrays:
    signature = read_signature(version)
    rows = [_read(version, signature, batch) for batch in window]
    _, answers = request([version], rows, timeout=timeout)
    count = sum(map(_num_rows, window))
    found = {}
    for index, name in enumerate(sorted(signature.outputs)):
        scores = answers[f"output_{index}"]
        if name in outputs and scores.shape[:1] != (count,):
            raise ValueError(
                f"Output {name!r} of {version} should have a score for each of {count} "
                f"rows. Received: shape={scores.shape}"
            )
        if name in outputs:
            found[name] = scores.reshape(count, -1).astype(np.float32)
    return found


def _read(
    version: PathLike, signature: meta_graph_pb2.SignatureDef, batch: Batch
) -> Arrays:
    """The columns of a signature; those of one value in a row get its rank."""
    missing = sorted(set(signature.inputs) - set(batch.columns))
    if missing:
        raise ValueError(
            f"`rows` should have the columns {sorted(signature.inputs)}, which "
            f"{version} reads. Received: {sorted(batch.columns)}, without {missing}"
        )
    read = {}
    for name, info in signature.inputs.items():
        array, rank = batch.columns[name], len(info.tensor_shape.dim)
        if rank and array.size == len(array):
            array = array.reshape(-1, *(1,) * (rank - 1))
        read[name] = array
    return read


def _two_axes(batch: Batch) -> tuple[int, Arrays]:
    count = _num_rows(batch)
    return count, {name: a.reshape(count, -1) for name, a in batch.labels.items()}


def _joined(parts: Sequence[tuple[int, Arrays]]) -> Arrays:
    """The labels of all rows, NaN in batches that have none of an output."""
    widths = {name: a.shape[1] for _, labels in parts for name, a in labels.items()}
    return {
        name: np.concatenate(
            [
                labels.get(name, np.full((count, width), np.nan, np.float32))
                for count, labels in parts
            ]
        )
        for name, width in widths.items()
    }
