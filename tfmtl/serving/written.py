"""What every export does: write the SavedModel, and refuse one that is unfit."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.serving.one_graph import Signatures, default_alone, with_signatures
from tfmtl.serving.scan import Scan, scan


class ExportError(RuntimeError):
    """A written SavedModel did not pass the checks before publishing."""


def write(
    module: tf.Module,
    folder: Path,
    function: Any,
    reader: str,
    signatures: Signatures = default_alone,
) -> None:
    """Writes a SavedModel.

    Args:
        module: What holds all variables and tables that the function reads.
        folder: Where it is written.
        function: The concrete function.
        reader: What would read something that the module lacks, for the error.
        signatures: Makes the signatures, see `tfmtl.serving.one_graph`. Defaults to
            `serving_default` alone.

    Raises:
        ExportError: If the function reads a variable or table that the module lacks.
    """
    try:
        tf.saved_model.save(module, str(folder), signatures=function)
    except AssertionError as error:
        raise ExportError(
            f"{reader} reads a variable or table that is none of its own: "
            f"{str(error)[:500]}"
        ) from error
    with_signatures(folder, signatures)
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
