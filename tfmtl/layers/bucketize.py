"""Numeric columns as bucket numbers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.fields import fields_of, side_by_side

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Bucketize(keras.layers.Layer):
    """The number of the bucket that each value falls into.

    ```
    y_k = 0                                              x_k is NaN or infinite
        = 1 + number of the column's boundaries <= x_k   otherwise
    input (batch, columns), output (batch, columns) int64
    input a list of columns (batch, 1) each, output the same
    ```

    Values are compared in float32, also under a mixed-precision policy.

    Args:
        boundaries: Ascending boundaries of each column.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If a column's boundaries do not ascend, or the input has another
            number of columns.

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

    def build(self, input_shape: Any) -> None:
        """Notes whether the columns come one by one."""
        fields = fields_of(input_shape)
        self.fields = len(fields or ())
        if sum(shape[-1] for shape in fields or [input_shape]) != len(self.boundaries):
            raise ValueError(
                f"Bucketize should be called on {len(self.boundaries)} columns. "
                f"Received: shape={input_shape}"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns bucket numbers, `(batch, columns)` or one by one."""
        longest = max(len(column) for column in self.boundaries)
        padded = np.full((len(self.boundaries), longest), np.inf, "f4")
        for k, column in enumerate(self.boundaries):
            padded[k, : len(column)] = column
        x = ops.cast(side_by_side(inputs), "float32")
        passed = x[:, :, None] >= ops.convert_to_tensor(padded)
        # In float32: LiteRT splits no int64, OpenVINO adds 1 to its sums wrongly
        buckets = 1.0 + ops.sum(ops.cast(passed, "float32"), axis=-1)
        buckets = ops.where(ops.isfinite(x), buckets, 0.0)
        if not isinstance(inputs, list | tuple):
            return ops.cast(buckets, "int64")
        columns = ops.split(buckets, len(self.boundaries), axis=1)
        return [ops.cast(column, "int64") for column in columns]

    def compute_output_spec(self, inputs: Tensor) -> Any:
        """The input's shape, int64."""
        return keras.tree.map_structure(
            lambda column: keras.KerasTensor(column.shape, "int64"), inputs
        )

    def slot_reads(self) -> np.ndarray:
        """Each column reads itself."""
        return np.eye(self.fields or 1, dtype=bool)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same layer for the columns of `outputs` only."""
        config = self.get_config()
        if self.fields:
            config["boundaries"] = [self.boundaries[k] for k in outputs]
        return type(self).from_config(config), outputs

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "boundaries": self.boundaries}
