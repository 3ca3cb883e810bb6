"""Numeric columns as bucket numbers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Bucketize(keras.layers.Layer):
    """The number of the bucket that each value falls into.

    ```
    y_k = 0                                              x_k is NaN or infinite
        = 1 + number of the column's boundaries <= x_k   otherwise
    input (batch, columns), output (batch, columns) int64
    ```

    Values are compared in float32, also under a mixed-precision policy.

    Args:
        boundaries: Ascending boundaries of each column.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If a column's boundaries do not ascend.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.Bucketize([[18.0, 65.0]])
        >>> ages = keras.ops.array([[10.0], [18.0], [70.0], [float("nan")]])
        >>> [int(v) for v in layer(ages)[:, 0]]
        [1, 2, 3, 0]
    """

    def __init__(self, boundaries: Sequence[Sequence[float]], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.boundaries = [[float(v) for v in column] for column in boundaries]
        for column in self.boundaries:
            if column != sorted(set(column)):
                raise ValueError(
                    f"`boundaries` should ascend in each column. Received: {column}"
                )

    def call(self, inputs: Tensor) -> Tensor:
        """Returns bucket numbers, `(batch, columns)`."""
        longest = max(len(column) for column in self.boundaries)
        padded = np.full((len(self.boundaries), longest), np.inf, "f4")
        for k, column in enumerate(self.boundaries):
            padded[k, : len(column)] = column
        x = ops.cast(inputs, "float32")
        passed = x[:, :, None] >= ops.convert_to_tensor(padded)
        buckets = 1 + ops.sum(ops.cast(passed, "int64"), axis=-1)
        return ops.where(ops.isfinite(x), buckets, ops.zeros_like(buckets))

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """The input's shape, int64."""
        return keras.KerasTensor(inputs.shape, "int64")

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "boundaries": self.boundaries}
