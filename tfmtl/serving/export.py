"""Export of a Keras model to a version folder that a C++ model server can serve."""

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl import folding
from tfmtl.folding import training_inputs, without_training_inputs
from tfmtl.folding.proof import difference, rounding
from tfmtl.folding.rows import made_up_rows
from tfmtl.layers.checks import positive_int, widths
from tfmtl.ops.grouping import device_named
from tfmtl.serving.against import Check
from tfmtl.serving.golden import write_golden
from tfmtl.serving.manifest import write_manifest
from tfmtl.serving.micro_batch import in_micro_batches
from tfmtl.serving.publish import (
    choose_version,
    publish,
    staging,
    temporary_files,
)
from tfmtl.serving.rows import coerce, repeat
from tfmtl.serving.saved_model import PathLike, read_signature
from tfmtl.serving.scan import Scan
from tfmtl.serving.session import run_in_cpp_session
from tfmtl.serving.side_by_side import SideBySide
from tfmtl.serving.signatures import signatures
from tfmtl.serving.stateless import as_served, read_weights, serving_function
from tfmtl.serving.sub_networks import sub_networks
from tfmtl.serving.tables import (
    TableError,
    table_errors,
    with_compact_tables,
    with_tables_apart,
)
from tfmtl.serving.vocabularies import vocabularies_in_files
from tfmtl.serving.warm_up import MOST_RECORDS, write_warm_up
from tfmtl.serving.written import ExportError, fit, write

GOLDEN_ROWS = 8
RANKED_ROWS = 1000
INPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*")


class RegressionError(ExportError):
    """A new version is worse or other than the served one by more than is allowed.

    Attributes:
        report: The two side by side.
        failures: What is beyond the thresholds, a sentence each.
    """

    def __init__(self, report: SideBySide, failures: Sequence[str]) -> None:
        super().__init__(
            f"The new version should pass the check against {report.old}. Received: "
            + "; ".join(failures)
        )
        self.report = report
        self.failures = tuple(failures)


@dataclass(frozen=True)
class Export:
    """A published version.

    Args:
        path: The version's folder.
        version: The version.
        bytes: The size of its files, without `assets.extra`.
        difference: The largest difference between the C++ session and the Keras
            model on the golden rows, relative for outputs beyond 1.
        scan: The facts of the static scan.
        table_errors: By output, what tables in fewer bits changed on rows made up or
            given; empty where tables are as they were.
        fold: What the fold removed; `None` where there was none.
        side_by_side: The version beside the one it was checked against; `None` where
            there was no check, or no earlier version.
    """

    path: Path
    version: int
    bytes: int
    difference: float
    scan: Scan
    table_errors: Mapping[str, TableError]
    fold: folding.FoldReport | None
    side_by_side: SideBySide | None = None


def export(
    model: keras.Model,
    base: PathLike,
    *,
    version: int | None = None,
    fold: bool = False,
    tables: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    device: str = "cpu",
    micro_batch: int | None = None,
    golden: Mapping[str, Any] | None = None,
    against: Check | None = None,
) -> Export:
    """Exports a model to `<base>/<version>`, checked in TensorFlow's C++ session.

    Raw columns in, task names out: the signature `serving_default` takes the model's
    inputs, without those that matter in training alone, and gives float32 outputs, or
    int64 and strings where the model gives whole numbers and strings. Each output has a
    signature of its own, named like it, that computes this output only: a task, or the
    score of `tfmtl.models.with_score`. `serving_examples` takes `tf.train.Example`s, as
    `classify_<task>` and `regress_<task>` do; see
    `tfmtl.serving.signatures`. Large tables are variables, smaller weights constants of
    one function that all signatures call, and vocabularies of 1,000 values and more are
    files in `assets/`.

    The version appears in one step, after a static scan and after the C++ session has
    answered the golden rows as the Keras model does. In its `assets.extra/` are these
    rows, a manifest of all files, and a warm-up record for each batch size. On failure
    nothing is left behind.

    Args:
        model: A built Functional model whose inputs and outputs are dicts.
        base: The model's folder, whose children are the versions.
        version: A version that does not exist. Defaults to the largest plus one.
        fold: Whether to fold the model first, see `tfmtl.folding.fold`. Defaults to
            `False`.
        tables: `"float16"` or `"int8"` for embedding tables of half or a quarter of
            their size (int8 has 4 bytes for each row besides); what that changes is in
            `Export.table_errors`. Defaults to `None`, the model's own type.
        batch_sizes: Batch sizes that requests will have: each gets a warm-up record,
            and a fold lays routings out for the largest. Defaults to `None`, one
            record of a single row, and a layout for all sizes.
        device: Where the version is served, `"cpu"` or `"gpu"`: a fold lays routings
            out for it. Defaults to `"cpu"`; any layout runs on both.
        micro_batch: Rows that are computed at a time: of a request of more, these parts
            are computed one after another. Faster for requests of thousands of rows
            where a server gives each one thread, as 512 rows' activations stay in the
            processor's cache; slower where several threads share a request, and not
            for `tfmtl.serving.to_onnx` and the like. Defaults to `None`, all at once.
        golden: One array per input, a few rows. Defaults to generated rows; give
            some if the model refuses ids 0 and 1 or normal floats.
        against: Rows, labels and thresholds that compare the new version with the one
            that is served, which it must not be worse than; the report is in
            `assets.extra/`. Defaults to `None`, no comparison.

    Returns:
        The published version.

    Raises:
        ValueError: If the model, an argument or the golden rows do not fit.
        FileExistsError: If the version exists.
        DiskFullError: If there is no room for it, or for temporary files.
        ExportError: If the written SavedModel does not pass the checks.
        RegressionError: If it does not pass the check `against` an earlier version.
        CppSessionError: If it does not load or run in the C++ session.

    Example:
        `export(model, "models/ranker", fold=True).path  # models/ranker/1`
    """
    _check_model(model)
    sizes = (1,) if batch_sizes is None else _checked(batch_sizes)
    device_named(device)
    if micro_batch is not None:
        micro_batch = positive_int("micro_batch", micro_batch)
    choose_version(base, version)
    live = None if against is None else against.live(base)
    given = None if golden is None else _golden_rows(model, golden)
    facts: dict[str, Any] = {}
    report = beside = None
    if fold:
        layout = None if batch_sizes is None else max(sizes)
        model, report = _folded(model, given, layout, device)
        facts["fold"] = report.as_dict()
    model = without_training_inputs(model)
    if given is not None:
        given = {name: given[name] for name in model.input}
    errors: dict[str, TableError] = {}
    if tables is not None:
        whole, model = model, with_compact_tables(model, tables)
        rows = made_up_rows(whole, RANKED_ROWS) if given is None else given
        errors = table_errors(_answers(whole, rows), _answers(model, rows))
        facts["tables"] = tables
        facts["table_errors"] = {name: asdict(error) for name, error in errors.items()}
    rows = made_up_rows(model, GOLDEN_ROWS) if given is None else given
    facts["sub_networks"] = sub_networks(model)
    weights = read_weights(model).values()
    with staging(base, needed=sum(array.nbytes for array in weights)) as folder:
        _save(model, folder, micro_batch)
        found = fit(folder, weights)
        rows = coerce(rows, read_signature(folder).inputs)
        expected = _answers(model, rows)
        tolerance = rounding(model)
        largest = _compare(folder, rows, expected, tolerance)
        if micro_batch is not None:
            facts["micro_batch"] = micro_batch
            several = repeat(rows, micro_batch + 1), repeat(expected, micro_batch + 1)
            largest = max(largest, _compare(folder, *several, tolerance))
        write_golden(folder, rows, expected, tolerance)
        write_warm_up(folder, rows, sizes)
        if against is not None:
            beside, failures = against(live, folder)
            if beside is not None and failures:
                raise RegressionError(beside, failures)
        write_manifest(folder, facts)
        path = publish(folder, base, version)
    return Export(
        path, int(path.name), found.file_bytes, largest, found, errors, report, beside
    )


def _check_model(model: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Keras should run on the TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}"
        )
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            f"`model` should be a built Keras model. Received: model={model!r}"
        )
    for kind in ("input", "output"):
        tensors = getattr(model, kind, None)
        if not _is_dict_of_tensors(tensors):
            raise ValueError(
                f"`model.{kind}` should be a dict of tensors by name, as in "
                f"keras.Model(inputs={{...}}, outputs={{...}}). Received: "
                f"model.{kind}={tensors!r}"
            )
    for name, tensor in model.output.items():
        if not tensor.shape:
            raise ValueError(
                f"`model.output[{name!r}]` should have one row for each example. "
                f"Received: {tensor!r}"
            )
    names: dict[str, str] = {}
    for name, tensor in model.input.items():
        _check_input(name, tensor)
        other = names.setdefault(re.sub(r"\W", "_", name).lower(), name)
        if other != name:
            raise ValueError(
                "The names of `model.input` should differ in letters or digits, as "
                f"TensorFlow takes others for the same. Received: {other!r}, {name!r}"
            )


def _is_dict_of_tensors(tensors: Any) -> bool:
    return isinstance(tensors, Mapping) and all(
        isinstance(tensor, keras.KerasTensor) for tensor in tensors.values()
    )


def _check_input(name: str, tensor: keras.KerasTensor) -> None:
    valid = INPUT_NAME.fullmatch(name) and not keyword.iskeyword(name)
    if not valid or name == "self":
        raise ValueError(
            "The names of `model.input` should consist of letters, digits and '_', "
            "'-', '.' or '/', start with a letter or digit, and be no Python keyword. "
            f"Received: {name!r}"
        )
    if tensor.dtype == "bfloat16":
        raise ValueError(
            f"`model.input[{name!r}]` should be of a type that clients have, such as "
            "float32. Received: dtype=bfloat16"
        )
    if tensor.sparse or getattr(tensor, "ragged", False):
        raise ValueError(
            f"`model.input[{name!r}]` should be dense. Received: {tensor!r}"
        )


def _checked(batch_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = widths("batch_sizes", batch_sizes)
    if not 0 < len(sizes) <= MOST_RECORDS:
        raise ValueError(
            f"`batch_sizes` should be 1 to {MOST_RECORDS} numbers. "
            f"Received: batch_sizes={batch_sizes!r}"
        )
    return sizes


def _golden_rows(
    model: keras.Model, golden: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The rows in the types of the inputs; what training alone reads may be absent."""
    optional = training_inputs(model)
    infos = {
        name: meta_graph_pb2.TensorInfo(
            dtype=tf.as_dtype(tensor.dtype).as_datatype_enum,
            tensor_shape=tf.TensorShape([None, *tensor.shape[1:]]).as_proto(),
        )
        for name, tensor in model.input.items()
        if name in golden or name not in optional
    }
    try:
        rows = coerce(golden, infos)
    except ValueError as error:
        raise ValueError(str(error).replace("`inputs", "`golden", 1)) from error
    if not all(map(len, rows.values())):
        raise ValueError("`golden` should have one row or more. Received: none")
    return rows


@temporary_files()
def _folded(
    model: keras.Model,
    given: dict[str, np.ndarray] | None,
    batch_size: int | None,
    device: str,
) -> tuple[keras.Model, folding.FoldReport]:
    rows = given
    if given is not None:  # columns that training alone reads may be left out
        rows = made_up_rows(model, len(next(iter(given.values())))) | given
    folded = folding.fold(model, rows, batch_size=batch_size, device=device)
    return folded, folding.compare(model, folded)


def _save(model: keras.Model, folder: Path, micro_batch: int | None) -> None:
    model = with_tables_apart(model)
    files = folder.parent / "vocabularies"  # swept with the staging folder
    files.mkdir()
    with vocabularies_in_files(model, files):
        function, module = serving_function(model)
        if micro_batch is not None:
            function = in_micro_batches(function, micro_batch)
        write(module, folder, function, "The model", partial(signatures, model))


def _answers(model: keras.Model, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The Keras model's outputs, in the types that are served."""
    tensors = {
        name: tf.convert_to_tensor(rows[name], tensor.dtype)
        for name, tensor in model.input.items()
    }
    outputs = model(tensors, training=False)
    return {name: as_served(y).numpy() for name, y in sorted(outputs.items())}


def _compare(
    folder: Path,
    rows: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float,
) -> float:
    served = run_in_cpp_session(folder, rows)
    if set(served) != set(expected):
        raise ExportError(
            f"The outputs should be {sorted(expected)}. Received: {sorted(served)}"
        )
    differences = {}
    for name, value in expected.items():
        if served[name].shape != value.shape:
            raise ExportError(
                f"Output {name!r} should have the shape {value.shape} in the C++ "
                f"session. Received: shape={served[name].shape}"
            )
        differences[name] = difference(served[name], value)
        if not differences[name] <= tolerance:
            raise ExportError(
                f"Output {name!r} should differ by at most {tolerance:g} between the "
                f"Keras model and the C++ session. Received: "
                f"difference={differences[name]}"
            )
    return max(differences.values())
