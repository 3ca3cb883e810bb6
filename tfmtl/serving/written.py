"""What every export does: write the SavedModel, and refuse one that is unfit."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.serving.scan import Scan, scan


class ExportError(RuntimeError):
    """A written SavedModel did not pass the checks before publishing."""


def write(
    module: tf.Module, folder: Path, functions: Mapping[str, Any] | Any, reader: str
) -> None:
    """Writes a SavedModel.

    Args:
        module: What holds all variables and tables that the functions read.
        folder: Where it is written.
        functions: Concrete functions by signature, or that of the default one.
        reader: What would read something that the module lacks, for the error.

    Raises:
        ExportError: If a function reads a variable or table that the module lacks.
    """
    try:
        tf.saved_model.save(module, str(folder), signatures=functions)
    except AssertionError as error:
        raise ExportError(
            f"{reader} reads a variable or table that is none of its own: "
            f"{str(error)[:500]}"
        ) from error
    (folder / "assets").mkdir(exist_ok=True)


def fit(folder: Path, weights: Iterable[np.ndarray]) -> Scan:
    """The scan of a written SavedModel.

    Args:
        folder: Where it is.
        weights: The weights that it should hold.

    Raises:
        ExportError: If it is unfit to be served.
    """
    found = scan(folder, weights=weights)
    problems = found.problems + found.repetitions
    if problems:
        raise ExportError("The SavedModel is unfit: " + "; ".join(problems))
    return found
