"""Export of retrieval and ranking as one checked SavedModel."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.folding.proof import difference, rounding
from tfmtl.folding.rows import made_up_rows
from tfmtl.interop.tfrs.items import fitting
from tfmtl.interop.tfrs.two_stage import TwoStage
from tfmtl.layers.checks import widths
from tfmtl.serving import Export, ExportError, run_in_cpp_session
from tfmtl.serving.golden import write_golden
from tfmtl.serving.manifest import write_manifest
from tfmtl.serving.publish import choose_version, publish, staging
from tfmtl.serving.saved_model import PathLike
from tfmtl.serving.stateless import Served, read_weights, serving_function
from tfmtl.serving.vocabularies import vocabularies_in_files
from tfmtl.serving.warm_up import write_warm_up
from tfmtl.serving.written import fit, write

GOLDEN_ROWS, MADE_UP_ROWS = 8, 64


def export_two_stage(
    stages: TwoStage,
    base: PathLike,
    *,
    version: int | None = None,
    batch_sizes: Sequence[int] = (1,),
    golden: Mapping[str, Any] | None = None,
) -> Export:
    """Exports an index and a ranker to `<base>/<version>`, one SavedModel.

    `serving_default` takes the user's columns and gives identifiers (int64 or strings)
    and scores, best item first. As with `tfmtl.serving.export` the version appears in
    one step, after a static scan and after TensorFlow's C++ session has answered golden
    rows as TFRS and Keras do; `tfmtl verify` checks it later.

    The order of nearly equal scores hangs on rounding, so the golden rows are those
    users whose order is the clearest. Fold the ranker before, if it should be folded.

    Args:
        stages: Retrieval and ranking.
        base: The model's folder, whose children are the versions.
        version: A version that does not exist. Defaults to `None`, the largest plus
            one.
        batch_sizes: Batch sizes that requests will have: each gets a warm-up record.
            Defaults to `(1,)`.
        golden: Columns of some users, of which at most eight are kept. Defaults to
            `None`, made-up ones.

    Returns:
        The published version.

    Raises:
        ValueError: If an argument does not fit.
        FileExistsError: If the version exists.
        DiskFullError: If there is no room for it.
        ExportError: If the written SavedModel does not pass the checks.
        CppSessionError: If it does not load or run in the C++ session.

    Example:
        `export_two_stage(stages, "models/movies").path  # models/movies/1`
    """
    sizes = widths("batch_sizes", batch_sizes)
    choose_version(base, version)
    rows = _clearest(stages, _made_up(stages) if golden is None else golden)
    expected = {name: y.numpy() for name, y in sorted(stages(rows).items())}
    tolerance = rounding(stages.ranker)
    weights = [*read_weights(stages.ranker).values(), *_arrays(stages)]
    with staging(base, needed=sum(array.nbytes for array in weights)) as folder:
        _save(stages, folder)
        found = fit(folder, weights)
        largest = _compare(folder, rows, expected, tolerance)
        write_golden(folder, rows, expected, tolerance)
        write_warm_up(folder, rows, sizes)
        write_manifest(folder, {"two_stage": stages.facts()})
        path = publish(folder, base, version)
    return Export(path, int(path.name), found.file_bytes, largest, found, {}, None)


def _save(stages: TwoStage, folder: Path) -> None:
    files = folder.parent / "vocabularies"  # swept with the staging folder
    files.mkdir()
    with vocabularies_in_files(stages.ranker, files):
        score, module = serving_function(stages.ranker)
        compiled = tf.function(
            lambda columns: stages.answer(columns, score), autograph=False
        )
        function = compiled.get_concrete_function(dict(stages.columns))
        module.stages = _read(stages, function)
        write(module, folder, function, "The query tower")


def _read(stages: TwoStage, function: tf.types.experimental.Callable) -> Served:
    """The parts that the function reads; layers and optimizers are not saved."""
    handles = {id(tensor) for tensor in function.captured_inputs}
    kind = tf.saved_model.experimental.TrackableResource
    lookups = [part for part in stages.parts if isinstance(part, kind)]
    return Served(
        [v for v in _variables(stages) if id(v.handle) in handles],
        [table for table in lookups if id(table.resource_handle) in handles],
    )


def _variables(stages: TwoStage) -> list[tf.Variable]:
    return [part for part in stages.parts if isinstance(part, tf.Variable)]


def _arrays(stages: TwoStage) -> list[np.ndarray]:
    return [v.numpy() for v in _variables(stages) if v.dtype != tf.string]


def _made_up(stages: TwoStage) -> dict[str, np.ndarray]:
    """Users of what the ranker's look-ups know and of what they do not."""
    rows = made_up_rows(stages.ranker, MADE_UP_ROWS)
    return {
        name: rows[name] if name in rows else _nothing(spec)
        for name, spec in stages.columns.items()
    }


def _nothing(spec: tf.TensorSpec) -> np.ndarray:
    shape = (MADE_UP_ROWS, *(size or 1 for size in spec.shape[1:]))
    return tf.zeros(shape, spec.dtype).numpy()


def _clearest(stages: TwoStage, users: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The users whose items are the furthest from another order."""
    users = fitting("golden", users, stages.columns)
    if not len(next(iter(users.values()))):
        raise ValueError("`golden` should have one row or more. Received: none")
    margins = stages.margins(users)
    chosen = np.sort(np.argsort(-margins, kind="stable")[:GOLDEN_ROWS])
    return {name: values[chosen] for name, values in users.items()}


def _compare(
    folder: Path,
    rows: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float,
) -> float:
    served = run_in_cpp_session(folder, rows)
    found = {name: difference(served[name], y) for name, y in expected.items()}
    wrong = {name: value for name, value in found.items() if not value <= tolerance}
    if wrong:
        raise ExportError(
            f"The outputs should differ by at most {tolerance:g} between TFRS, Keras "
            f"and the C++ session. Received: differences={wrong}; where identifiers "
            "differ, scores may be too equal to order, and `golden` may have users of "
            "clear orders"
        )
    return max(found.values())
