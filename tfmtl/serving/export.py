"""Export of a Keras model to a version folder that a C++ model server can serve."""

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.folding import without_training_inputs
from tfmtl.folding.proof import rounding
from tfmtl.folding.rows import made_up_rows
from tfmtl.serving.publish import choose_version, publish, staging
from tfmtl.serving.rows import coerce
from tfmtl.serving.saved_model import PathLike, read_signature
from tfmtl.serving.scan import Scan, scan
from tfmtl.serving.session import run_in_cpp_session
from tfmtl.serving.stateless import read_weights, serving_function

GOLDEN_ROWS = 8
INPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*")


class ExportError(RuntimeError):
    """A written SavedModel did not pass the checks before publishing."""


@dataclass(frozen=True)
class Export:
    """A published version.

    Args:
        path: The version's folder.
        version: The version.
        bytes: The size of all its files.
        difference: The largest difference between the C++ session and the Keras
            model on the golden rows, relative for outputs beyond 1.
        scan: The facts of the static scan.
    """

    path: Path
    version: int
    bytes: int
    difference: float
    scan: Scan


def export(
    model: keras.Model,
    base: PathLike,
    *,
    version: int | None = None,
    golden: Mapping[str, Any] | None = None,
) -> Export:
    """Exports a model to `<base>/<version>`, checked in TensorFlow's C++ session.

    The one signature, `serving_default`, takes the model's inputs, without those that
    matter in training alone, and gives float32 outputs named by task. The version
    appears in one step, after a static scan and after the C++ session has answered
    the golden rows as the Keras model does; on failure nothing is left behind.

    Args:
        model: A built Functional model whose inputs and outputs are dicts.
        base: The model's folder, whose children are the versions.
        version: A version that does not exist. Defaults to the largest plus one.
        golden: One array per input, a few rows. Defaults to generated rows; give
            some if the model refuses ids 0 and 1 or normal floats.

    Returns:
        The published version.

    Raises:
        ValueError: If the model or the golden rows cannot be exported.
        FileExistsError: If the version exists.
        ExportError: If the written SavedModel does not pass the checks.
        CppSessionError: If it does not load or run in the C++ session.

    Example:
        `export(model, "models/ranker").path  # models/ranker/1`
    """
    _check_model(model)
    choose_version(base, version)
    model, columns = without_training_inputs(model), model.input
    weights = read_weights(model)
    function, module = serving_function(model)
    if golden is None:
        rows = made_up_rows(model, GOLDEN_ROWS)
    else:
        left_out = set(columns) - set(model.input)
        rows = {name: golden[name] for name in golden if name not in left_out}
    with staging(base) as folder:
        _save(module, function, folder)
        facts = scan(folder, weights=weights.values())
        if facts.problems:
            raise ExportError("The SavedModel is unfit: " + "; ".join(facts.problems))
        difference = _compare(model, folder, rows)
        chosen = choose_version(base, version)
        path = publish(folder, base, chosen)
    return Export(path, chosen, facts.file_bytes, difference, facts)


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
    for name, tensor in model.input.items():
        _check_input(name, tensor)


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
    if tensor.sparse or getattr(tensor, "ragged", False):
        raise ValueError(
            f"`model.input[{name!r}]` should be dense. Received: {tensor!r}"
        )


def _save(module: tf.Module, function: Any, folder: Path) -> None:
    try:
        tf.saved_model.save(module, str(folder), signatures=function)
    except AssertionError as error:
        raise ExportError(
            "The model reads a variable or table that is none of its own: "
            f"{str(error)[:500]}"
        ) from error
    (folder / "assets").mkdir(exist_ok=True)


def _compare(model: keras.Model, folder: Path, rows: Mapping[str, Any]) -> float:
    arrays = coerce(rows, read_signature(folder).inputs)
    tensors = {
        name: tf.convert_to_tensor(array, model.input[name].dtype)
        for name, array in arrays.items()
    }
    expected = model(tensors, training=False)
    served = run_in_cpp_session(folder, arrays)
    if set(served) != set(expected):
        raise ExportError(
            f"The outputs should be {sorted(expected)}. Received: {sorted(served)}"
        )
    tolerance = rounding(model)
    return max(
        _difference(task, served[task], keras.ops.convert_to_numpy(value), tolerance)
        for task, value in sorted(expected.items())
    )


def _difference(
    task: str, served: np.ndarray, expected: np.ndarray, tolerance: float
) -> float:
    expected = expected.astype(np.float32)
    if served.shape != expected.shape:
        raise ExportError(
            f"Output {task!r} should have the shape {expected.shape} in the C++ "
            f"session. Received: shape={served.shape}"
        )
    scale = np.maximum(1.0, np.abs(expected))
    difference = float(np.max(np.abs(served - expected) / scale, initial=0.0))
    if not difference <= tolerance:
        raise ExportError(
            f"Output {task!r} should differ by at most {tolerance:g} between the Keras "
            f"model and the C++ session. Received: difference={difference}"
        )
    return difference
