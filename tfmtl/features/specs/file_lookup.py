"""Keras' look-ups of a vocabulary that is a file and stays one.

Keras puts a vocabulary that it loads from a model's archive into the graph as a
constant. Here it is a file again, hence an asset of the SavedModel, also where the
model was saved and loaded, or folded, before the export.
"""

import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import keras

from tfmtl.features.learning.counts import is_missing

NO_ID = -2  # stands for the unknown ids where they are listed; it is none itself
_FILE = "vocabulary.txt"
_BYTE_ORDER_MARK = "\ufeff"
_LONE_RETURN = re.compile("\r(?!\n)")  # Python ends a line there, TensorFlow does not
_INTEGER = re.compile(r"\s*[+-]?\d{1,19}\s*", re.ASCII)  # as TensorFlow reads it


@keras.saving.register_keras_serializable(package="tfmtl")
class StringFileLookup(keras.layers.StringLookup):
    """A `StringLookup` of a file with one value per line."""

    def load_assets(self, dir_path: str) -> None:
        """Reads the vocabulary of a saved layer."""
        self.set_vocabulary(_own_file(self, dir_path))


@keras.saving.register_keras_serializable(package="tfmtl")
class IntegerFileLookup(keras.layers.IntegerLookup):
    """An `IntegerLookup` of a file with one id per line."""

    def __init__(self, oov_token: int = NO_ID, **kwargs: Any) -> None:
        super().__init__(oov_token=oov_token, **kwargs)

    def load_assets(self, dir_path: str) -> None:
        """Reads the vocabulary of a saved layer."""
        self.set_vocabulary(_own_file(self, dir_path))


def check_file(feature: str, path: str, kind: type[str | int]) -> None:
    """Raises `ValueError` unless a local file holds a vocabulary.

    Args:
        feature: Name of the feature, for the error.
        path: Path of the file; of a remote one, `gs://…`, nothing is checked.
        kind: Type of the values.
    """
    if "://" in path:
        return
    fault = _fault(Path(path), kind)
    if fault:
        raise ValueError(
            f"`vocabulary` of {feature!r} should be a file with one or more different "
            f"values of type {kind.__name__}, one per line, none of them missing. "
            f"Received: {path!r}, {fault}"
        )


def _fault(path: Path, kind: type[str | int]) -> str | None:
    """What is wrong with a file."""
    if not path.is_file():
        return "which is no file"
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        return f"which is not in UTF-8: {error}"
    if text.startswith(_BYTE_ORDER_MARK):
        return "which starts with a byte order mark: save it as UTF-8 without one"
    if _LONE_RETURN.search(text):
        return (
            "with a carriage return that no line feed follows: end lines in line feeds"
        )
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if lines == [""]:
        return "which is empty"
    seen: set[str | int] = set()
    for number, line in enumerate(lines, 1):
        if kind is int and not _is_int64(line):
            return f"with {line!r} in line {number}"
        value = kind(line)
        if value in seen or is_missing(value):
            again = " again" if value in seen else ""
            return f"with {line!r}{again} in line {number}"
        seen.add(value)
    return None


def _is_int64(line: str) -> bool:
    return bool(_INTEGER.fullmatch(line)) and -(2**63) <= int(line) < 2**63


def _own_file(layer: Any, folder: str) -> str:
    """A copy of a saved vocabulary, without special values, that the layer keeps."""
    text = Path(folder, _FILE).read_text("utf-8")
    kept = tempfile.mkdtemp()
    weakref.finalize(layer, shutil.rmtree, kept, ignore_errors=True)
    values = text.split("\n")[2:]  # after the missing and the unknown value
    path = Path(kept, _FILE)
    path.write_text("\n".join(values), "utf-8")
    return str(path)
