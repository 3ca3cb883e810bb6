"""Whether a version is what was exported, and serves as it did then."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tfmtl.folding.proof import difference
from tfmtl.serving.golden import read_golden
from tfmtl.serving.manifest import check_manifest
from tfmtl.serving.saved_model import DEFAULT, PathLike, read_signature
from tfmtl.serving.scan import scan
from tfmtl.serving.session import CppSessionError, request
from tfmtl.serving.warm_up import read_warm_up

FAILURES = (
    CppSessionError,
    DecodeError,
    OSError,
    ValueError,
    subprocess.TimeoutExpired,
    tf.errors.OpError,
)


@dataclass(frozen=True)
class Verification:
    """What the checks of a version found.

    Args:
        path: The version's folder.
        problems: Why it should not be served; empty if it may be.
        difference: The largest difference between the C++ session and the golden
            outputs, relative for outputs beyond 1; `None` if it was not asked.
        load_ms: The milliseconds that the C++ session took to load it, or `None`.
    """

    path: Path
    problems: tuple[str, ...]
    difference: float | None = None
    load_ms: float | None = None


def verify(path: PathLike) -> Verification:
    """Checks a version: files against manifest, static scan, rows in C++.

    The C++ session answers the golden rows, as the Keras model did, and the warm-up
    records, each through its signature and, if the golden outputs are finite, in
    finite numbers.

    A step runs only if those before found nothing: files that were changed are not
    loaded.

    Args:
        path: The version's folder.

    Returns:
        What was found. Nothing is raised for a problem.

    Example:
        `verify("models/ranker/1").problems  # ()`
    """
    path = Path(path)
    problems = check_manifest(path)
    if problems:
        return Verification(path, tuple(problems))
    try:
        return _serve(path)
    except FAILURES as error:
        return Verification(path, (" ".join(str(error).split()),))


def _serve(path: Path) -> Verification:
    problems = scan(path).problems
    if problems:
        return Verification(path, problems)
    golden, names = read_golden(path), sorted(read_signature(path).outputs)
    if names != sorted(golden.outputs):
        problem = f"golden rows have {sorted(golden.outputs)}, the signature {names}"
        return Verification(path, (problem,))
    batches = {DEFAULT: [golden.rows]}
    for signature, rows in read_warm_up(path):
        batches.setdefault(signature, []).append(rows)
    replies = {name: request([path], b, name) for name, b in batches.items()}
    report, answers = replies[DEFAULT]
    count = len(next(iter(golden.rows.values())))
    found = {
        name: difference(answers[f"output_{index}"][:count], golden.outputs[name])
        for index, name in enumerate(names)
    }
    wrong = [
        f"output {name!r} should differ from the golden rows by at most "
        f"{golden.tolerance:g}. Received: difference={value:g}"
        for name, value in found.items()
        if not value <= golden.tolerance
    ]
    is_bounded = all(map(_is_finite, golden.outputs.values()))
    infinite = [
        f"signature {name!r} should answer the warm-up records in finite numbers. "
        "Received: NaN or infinity"
        for name, (_, outputs) in replies.items()
        if is_bounded and not all(map(_is_finite, outputs.values()))
    ]
    [load_ms] = report["load_ms"]
    return Verification(path, (*wrong, *infinite), max(found.values()), load_ms)


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
