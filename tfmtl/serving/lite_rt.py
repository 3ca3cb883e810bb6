"""A side door: an exported version as one file for LiteRT, formerly TensorFlow Lite.

For single examples inside an application, without a server. LiteRT has no look-up
tables, so ids should be hashed: `Categorical("user", dtype="int64", hash_bins=…)`.
"""

import importlib
import re
from types import ModuleType

import numpy as np
import tensorflow as tf

from tfmtl.serving.converted import (
    Converted,
    Rows,
    check_convertible,
    lacking,
    write_checked,
)
from tfmtl.serving.saved_model import PathLike


def to_lite_rt(
    path: PathLike,
    file: PathLike,
    signature: str = "serving_default",
    *,
    rows: Rows | None = None,
    tolerance: float = 1e-5,
) -> Converted:
    """Converts a version to a `.tflite` file that gives the same outputs.

    The file has the signature, so inputs and outputs go by name. The batch is any:

        runner = Interpreter("ranker.tflite").get_signature_runner("serving_default")
        runner(age=ages, user=users)["click"]  # (batch, 1)

    It appears after it has answered rows as TensorFlow's C++ session does.

    Args:
        path: The version's folder.
        file: The file to write.
        signature: The signature to convert.
        rows: One array per input to compare on, a few rows; give some with ids as
            large as yours. Defaults to the version's golden rows.
        tolerance: The largest difference, relative for outputs beyond 1.

    Returns:
        The file, its size and the largest difference.

    Raises:
        ImportError: If LiteRT is not installed.
        FileExistsError: If the file exists.
        ValueError: If an input holds strings, or the rows do not fit.
        ConversionError: If LiteRT has no such operations, or an output differs.

    Example:
        `to_lite_rt("models/ranker/1", "ranker.tflite").difference`
    """
    check_convertible(path, file, signature)
    runtime = _runtime()
    content = _convert(path, signature)

    def answer(content: bytes, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        interpreter = runtime.Interpreter(model_content=content)
        return interpreter.get_signature_runner(signature)(**arrays)

    return write_checked(content, answer, path, file, signature, rows, tolerance)


def _runtime() -> ModuleType:
    try:
        return importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise ImportError(
            "LiteRT is missing: `pip install tfmtl[side-doors]`."
        ) from error


def _convert(path: PathLike, signature: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(path), signature_keys=[signature]
    )
    try:
        return converter.convert()
    except Exception as error:  # the converter's own class is not public
        names = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", str(error))))
        raise lacking("LiteRT", ", ".join(names) or str(error)[:500]) from error
