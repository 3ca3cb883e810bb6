"""What conversions to other runtimes have in common: inputs, check, file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.folding.proof import difference
from tfmtl.serving.golden import GOLDEN, read_golden
from tfmtl.serving.publish import replace_file
from tfmtl.serving.rows import coerce
from tfmtl.serving.saved_model import PathLike, read_signature
from tfmtl.serving.session import run_in_cpp_session

Rows = Mapping[str, Any]
Answer = Callable[[bytes, dict[str, np.ndarray]], Mapping[str, np.ndarray]]


class ConversionError(RuntimeError):
    """A SavedModel that another runtime does not run, or not with the same outputs."""


@dataclass(frozen=True)
class Converted:
    """A file for another runtime.

    Args:
        path: The file.
        bytes: Its size.
        difference: The largest difference of its outputs from those of TensorFlow's
            C++ session, relative for outputs beyond 1.
    """

    path: Path
    bytes: int
    difference: float


def check_convertible(path: PathLike, file: PathLike, signature: str) -> None:
    """Refuses what cannot be converted before anything is done.

    Args:
        path: The version's folder.
        file: The file to write.
        signature: The signature to convert.

    Raises:
        FileExistsError: If the file exists.
        ValueError: If there is no such signature, or one of its inputs holds strings.

    Example:
        `check_convertible("models/ranker/1", "ranker.tflite", "serving_default")`
    """
    if Path(file).exists():
        raise FileExistsError(
            f"`file` should be one that does not exist. Received: file={file}"
        )
    inputs = read_signature(path, signature).inputs
    strings = sorted(n for n, info in inputs.items() if info.dtype == tf.string)
    if strings:
        raise ValueError(
            f"`signature` should have inputs of numbers only, such as int64 ids with "
            f"`hash_bins`. Received: signature={signature!r} with the strings {strings}"
        )


def lacking(runtime: str, what: str) -> ConversionError:
    """The error where a runtime lacks operations.

    Args:
        runtime: Its name.
        what: Their names, or the converter's words.

    Example:
        `raise lacking("LiteRT", "LookupTableFindV2")`
    """
    return ConversionError(
        f"{runtime} should have all operations of the version. It has no loops of "
        "`micro_batch` and no look-up tables: ids with `hash_bins` need none. "
        f"Received: {what}"
    )


def write_checked(
    content: bytes,
    answer: Answer,
    path: PathLike,
    file: PathLike,
    signature: str,
    rows: Rows | None,
    tolerance: float,
) -> Converted:
    """Writes a converted model if it answers as the SavedModel does.

    Args:
        content: The converted model.
        answer: From the content and one array per input to one array per output.
        path: The version's folder.
        file: The file to write, beside its place and then renamed.
        signature: The converted signature.
        rows: One array per input. Defaults to the version's golden rows.
        tolerance: The largest difference, relative for outputs beyond 1.

    Returns:
        The file's facts.

    Raises:
        ValueError: If the rows do not fit, or there are none.
        ConversionError: If an output differs by more.

    Example:
        `write_checked(content, answer, path, "a.tflite", signature, None, 1e-5)`
    """
    if rows is None and not Path(path, GOLDEN).is_file():
        raise ValueError(f"`rows` should be given, as {path} has no golden rows.")
    rows = read_golden(path).rows if rows is None else rows
    arrays = coerce(rows, read_signature(path, signature).inputs)
    if not all(map(len, arrays.values())):
        raise ValueError("`rows` should be one or more. Received: none")
    expected = run_in_cpp_session(path, arrays, signature)
    received = answer(content, arrays)
    if set(received) != set(expected):
        raise ConversionError(
            f"The outputs should be {sorted(expected)}. Received: {sorted(received)}"
        )
    found = {name: difference(received[name], expected[name]) for name in expected}
    worst = max(found, key=lambda name: np.nan_to_num(found[name], nan=np.inf))
    if not found[worst] <= tolerance:
        raise ConversionError(
            f"The converted model's outputs should differ by at most {tolerance:g} "
            f"from those of TensorFlow's C++ session. Received: {worst!r}, "
            f"difference={found[worst]:g}"
        )
    replace_file(file, content)
    return Converted(Path(file), len(content), found[worst])
