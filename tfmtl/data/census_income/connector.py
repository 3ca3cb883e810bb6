"""A TFDS feature that stores many columns as two arrays and gives them by name.

TFDS encodes and serialises every leaf by itself, at some ten microseconds each: for
38 columns and 300,000 rows that is minutes, and most of the file would be names.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


class PackedColumns(tfds.features.FeatureConnector):
    """Scalar columns, `float32` and string, packed into one array of each kind.

    Examples go in and come out as `{column: scalar}`. Stored are
    `{"numeric": (number of numeric columns,), "categorical": (…,)}`, which is also
    what a reader gets under `tfds.decode.SkipDecoding()`.

    Args:
        numeric: Names of the numeric columns, stored as `float32`.
        categorical: Names of the string columns.

    Example:

    >>> columns = PackedColumns(["age"], ["sex"])
    >>> columns.encode_example({"age": 3.0, "sex": b"Male"})["numeric"]
    array([3.], dtype=float32)
    """

    def __init__(self, numeric: Sequence[str], categorical: Sequence[str]) -> None:
        super().__init__()
        self.numeric = tuple(numeric)
        self.categorical = tuple(categorical)

    def get_tensor_info(self) -> dict[str, tfds.features.TensorInfo]:
        """See base class: a scalar for each column."""
        number = tfds.features.TensorInfo(shape=(), dtype=np.float32)
        string = tfds.features.TensorInfo(shape=(), dtype=np.object_)
        return {name: number for name in self.numeric} | {
            name: string for name in self.categorical
        }

    def get_serialized_info(self) -> dict[str, tfds.features.TensorInfo]:
        """See base class: the two arrays."""
        return {
            "numeric": tfds.features.TensorInfo(
                shape=(len(self.numeric),), dtype=np.float32
            ),
            "categorical": tfds.features.TensorInfo(
                shape=(len(self.categorical),), dtype=np.object_
            ),
        }

    def encode_example(self, example_data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """See base class: packs `{column: scalar}`."""
        return {
            "numeric": np.array([example_data[n] for n in self.numeric], np.float32),
            "categorical": np.array(
                [example_data[n] for n in self.categorical], np.object_
            ),
        }

    def decode_example(self, tfexample_data: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """See base class: unpacks into `{column: scalar}`."""
        return self._named(
            tf.unstack(tfexample_data["numeric"], len(self.numeric)),
            tf.unstack(tfexample_data["categorical"], len(self.categorical)),
        )

    def decode_example_np(
        self, example_data: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """See base class: unpacks into `{column: scalar}`, in NumPy."""
        return self._named(example_data["numeric"], example_data["categorical"])

    def to_json_content(self) -> dict[str, list[str]]:
        """See base class."""
        return {"numeric": list(self.numeric), "categorical": list(self.categorical)}

    @classmethod
    def from_json_content(cls, value: Mapping[str, Sequence[str]]) -> "PackedColumns":
        """See base class."""
        return cls(**value)

    def _named(
        self, numeric: Iterable[Any], categorical: Iterable[Any]
    ) -> dict[str, Any]:
        return dict(zip(self.numeric, numeric, strict=True)) | dict(
            zip(self.categorical, categorical, strict=True)
        )
