"""A TFDS feature that stores many columns as a few arrays and gives them by name.

TFDS encodes and serialises every leaf by itself, at some ten microseconds each: for
38 columns and 300,000 rows that is minutes, and most of the file would be names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

PADDING = -1
"""What sequences hold behind their last value."""


class PackedColumns(tfds.features.FeatureConnector):
    """Columns of a few kinds, packed into one array of each kind.

    Examples go in and come out as `{column: value}`. Stored is an array of all columns
    of a kind, `{"numeric": (…,), "categorical": (…,), "integer": (…,), "sequences":
    (…,)}`, for the kinds that have columns, which is also what a reader gets under
    `tfds.decode.SkipDecoding()`. Sequences are stored one higher than they are: each -1
    that pads them would take ten bytes, a 0 takes one.

    Args:
        numeric: Names of the `float32` columns.
        categorical: Names of the string columns.
        integer: Names of the `int64` columns.
        sequences: Names and widths of the columns of several `int64`, none below -1.

    Example:

    >>> columns = PackedColumns(["age"], ["sex"], sequences={"tags": 3})
    >>> packed = columns.encode_example({"age": 3.0, "sex": b"F", "tags": [5, 7, -1]})
    >>> packed["numeric"], packed["sequences"]
    (array([3.], dtype=float32), array([6, 8, 0]))
    """

    def __init__(
        self,
        numeric: Sequence[str],
        categorical: Sequence[str],
        integer: Sequence[str] = (),
        sequences: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.numeric = tuple(numeric)
        self.categorical = tuple(categorical)
        self.integer = tuple(integer)
        self.sequences = dict(sequences or {})
        kinds = {
            "numeric": (self.numeric, np.float32),
            "categorical": (self.categorical, np.object_),
            "integer": (self.integer, np.int64),
        }
        self._scalars = {kind: value for kind, value in kinds.items() if value[0]}

    def get_tensor_info(self) -> dict[str, tfds.features.TensorInfo]:
        """See base class: one for each column."""
        infos = {
            name: tfds.features.TensorInfo(shape=(), dtype=dtype)
            for names, dtype in self._scalars.values()
            for name in names
        }
        return infos | {
            name: tfds.features.TensorInfo(shape=(width,), dtype=np.int64)
            for name, width in self.sequences.items()
        }

    def get_serialized_info(self) -> dict[str, tfds.features.TensorInfo]:
        """See base class: one for each kind."""
        infos = {
            kind: tfds.features.TensorInfo(shape=(len(names),), dtype=dtype)
            for kind, (names, dtype) in self._scalars.items()
        }
        if self.sequences:
            width = sum(self.sequences.values())
            infos["sequences"] = tfds.features.TensorInfo((width,), np.int64)
        return infos

    def encode_example(self, example_data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """See base class: packs `{column: value}`."""
        packed: dict[str, np.ndarray] = {
            kind: np.array([example_data[name] for name in names], dtype)
            for kind, (names, dtype) in self._scalars.items()
        }
        if self.sequences:
            parts = [example_data[name] for name in self.sequences]
            packed["sequences"] = np.concatenate(parts, dtype=np.int64) - PADDING
        return packed

    def decode_example(self, tfexample_data: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """See base class: unpacks into `{column: value}`."""
        return self._named(
            tfexample_data,
            lambda array: tf.unstack(array, axis=-1),
            lambda array, widths: tf.split(array, widths, axis=-1),
        )

    def decode_example_np(
        self, example_data: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """See base class: unpacks into `{column: value}`, in NumPy; batches too."""
        return self._named(
            example_data,
            lambda array: np.moveaxis(array, -1, 0),
            lambda array, widths: np.split(array, np.cumsum(widths)[:-1], axis=-1),
        )

    def to_json_content(self) -> dict[str, Any]:
        """See base class."""
        return {
            "numeric": list(self.numeric),
            "categorical": list(self.categorical),
            "integer": list(self.integer),
            "sequences": self.sequences,
        }

    @classmethod
    def from_json_content(cls, value: Mapping[str, Any]) -> "PackedColumns":
        """See base class."""
        return cls(**value)

    def _named(
        self,
        packed: Mapping[str, Any],
        unstack: Callable[[Any], Iterable[Any]],
        split: Callable[[Any, list[int]], Iterable[Any]],
    ) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for kind, (names, _) in self._scalars.items():
            columns |= zip(names, unstack(packed[kind]), strict=True)
        if self.sequences:
            parts = split(packed["sequences"] + PADDING, list(self.sequences.values()))
            columns |= zip(self.sequences, parts, strict=True)
        return columns
