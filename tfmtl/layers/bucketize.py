"""Numeric columns as bucket numbers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.fields import ColumnNumbers, fields_of

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Bucketize(ColumnNumbers):
    """The number of the bucket that each value falls into.

    ```
    y_k = 0                                              x_k is missing or not finite
        = 1 + number of the column's boundaries <= x_k   otherwise
    input (batch, columns), output (batch, columns) int64
    input a list of columns (batch, 1) each, output the same
    ```

    Values are compared in float32, also under a mixed-precision policy.

    Args:
        boundaries: Ascending boundaries of each column.
        missing: A number of each column that is read as NaN, or `None`. Defaults to
            none.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If a column's boundaries do not ascend, the lengths differ, or the
            input has another number of columns.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.Bucketize([[18.0, 65.0]])
        >>> ages = keras.ops.array([[10.0], [18.0], [70.0], [float("nan")]])
        >>> [int(v) for v in layer(ages)[:, 0]]
        [1, 2, 3, 0]
    """

    per_column = ("boundaries", "missing")

    def __init__(
        self,
        boundaries: Sequence[Sequence[float]],
        missing: Sequence[float | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.boundaries = [[float(v) for v in column] for column in boundaries]
        for column in self.boundaries:
            if column != sorted(set(column)):
                raise ValueError(
                    f"`boundaries` should ascend in each column. Received: {column}"
                )
        self.missing = None if missing is None else list(missing)
        if self.missing is not None and len(self.missing) != len(self.boundaries):
            raise ValueError(
                f"`missing` should have one entry per column, {len(self.boundaries)}. "
                f"Received: missing={self.missing}"
            )

    def build(self, input_shape: Any) -> None:
        """Checks the number of columns."""
        shapes = fields_of(input_shape) or [input_shape]
        if sum(shape[-1] for shape in shapes) != len(self.boundaries):
            raise ValueError(
                f"Bucketize should be called on {len(self.boundaries)} columns. "
                f"Received: shape={input_shape}"
            )
        super().build(input_shape)

    def numbers(self, columns: Tensor) -> Tensor:
        """Returns bucket numbers, float32: OpenVINO adds 1 to sums of int64 wrongly."""
        longest = max(len(column) for column in self.boundaries)
        padded = np.full((len(self.boundaries), longest), np.inf, "f4")
        for k, column in enumerate(self.boundaries):
            padded[k, : len(column)] = column
        x = ops.cast(columns, "float32")
        passed = x[:, :, None] >= ops.convert_to_tensor(padded)
        buckets = 1.0 + ops.sum(ops.cast(passed, "float32"), axis=-1)
        finite = ops.isfinite(x)
        if self.missing is not None:
            none = [np.nan if number is None else number for number in self.missing]
            finite = ops.logical_and(finite, x != np.array(none, "f4"))
        return ops.where(finite, buckets, 0.0)
