"""Keras' look-ups of a vocabulary that is a file and stays one.

Keras puts a vocabulary that it loads from a model's archive into the graph as a
constant. Here it is a file again, hence an asset of the SavedModel, also where the
model was saved and loaded, or folded, before the export.
"""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import keras

NO_ID = -2  # stands for the unknown ids where they are listed; it is none itself
_FILE = "vocabulary.txt"


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


def _own_file(layer: Any, folder: str) -> str:
    """A copy of a saved vocabulary, without special values, that the layer keeps."""
    text = Path(folder, _FILE).read_text("utf-8")
    kept = tempfile.mkdtemp()
    weakref.finalize(layer, shutil.rmtree, kept, ignore_errors=True)
    values = text.split("\n")[2:]  # after the missing and the unknown value
    path = Path(kept, _FILE)
    path.write_text("\n".join(values), "utf-8")
    return str(path)
