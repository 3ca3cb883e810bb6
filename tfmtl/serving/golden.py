"""Golden rows: inputs of a version with the outputs that its Keras model gave.

They stay with the version, so that any machine can ask whether it still answers alike.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmtl.serving.rows import encode
from tfmtl.serving.saved_model import PathLike

GOLDEN = "assets.extra/golden.npz"


class Golden(NamedTuple):
    """Rows and answers.

    Attributes:
        rows: One array per input, strings as objects of bytes.
        outputs: One array per output.
        tolerance: The difference up to which another answer is the same, relative for
            outputs beyond 1.
    """

    rows: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    tolerance: float


def write_golden(
    folder: PathLike,
    rows: Mapping[str, Any],
    outputs: Mapping[str, Any],
    tolerance: float = 1e-5,
) -> None:
    """Writes golden rows into a version that is not yet published.

    Args:
        folder: The version.
        rows: One array per input of `serving_default`.
        outputs: The Keras model's outputs for these rows, by name.
        tolerance: The difference up to which another answer is the same, relative for
            outputs beyond 1.

    Raises:
        ValueError: If an array holds objects other than strings.

    Example:
        `write_golden(folder, {"age": [31.0]}, {"ctr": [[0.25]]})`
    """
    arrays: dict[str, Any] = {"tolerance": np.array(tolerance)}
    for group, columns in (("rows", rows), ("outputs", outputs)):
        for name, values in columns.items():
            arrays.update(_pack(group, name, np.asarray(values)))
    file = Path(folder) / GOLDEN
    file.parent.mkdir(exist_ok=True)
    np.savez(file, **arrays)


def read_golden(folder: PathLike) -> Golden:
    """Reads the golden rows of a version.

    Args:
        folder: The version.

    Returns:
        Rows, outputs and tolerance.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the file holds something else.

    Example:
        `rows, outputs, tolerance = read_golden("models/ranker/1")`
    """
    try:
        with np.load(Path(folder) / GOLDEN, allow_pickle=False) as archive:
            arrays = dict(archive)
        rows, outputs = (_unpack(group, arrays) for group in ("rows", "outputs"))
        return Golden(rows, outputs, float(arrays["tolerance"]))
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{GOLDEN} cannot be read: {error!r}") from error


def _pack(group: str, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays without pickle: of strings their bytes and their lengths."""
    if array.dtype.kind not in "SUOT":
        return {f"{group}/{name}": array}
    texts = [encode(name, text) for text in array.ravel().tolist()]
    lengths = np.array([len(text) for text in texts], np.int64)
    return {
        f"{group}_bytes/{name}": np.frombuffer(bytearray(b"".join(texts)), np.uint8),
        f"{group}_lengths/{name}": lengths.reshape(array.shape),
    }


def _unpack(group: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    unpacked = {}
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        if kind == group:
            unpacked[name] = array
        elif kind == f"{group}_lengths":
            unpacked[name] = _texts(arrays[f"{group}_bytes/{name}"].tobytes(), array)
    return unpacked


def _texts(content: bytes, lengths: np.ndarray) -> np.ndarray:
    texts, position = np.empty(lengths.size, object), 0
    for index, length in enumerate(lengths.ravel().tolist()):
        texts[index] = content[position : position + length]
        position += length
    return texts.reshape(lengths.shape)
