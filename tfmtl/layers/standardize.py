"""Numeric columns on one scale, with bad values guarded in the graph."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Standardize(keras.layers.Layer):
    """Centres and scales each column; NaN and infinite values become the mean.

    ```
    y_k = (g_k(x_k) - mean_k) / std_k,   g_k(x) = sign(x) log(1 + |x|) or x
    input (batch, columns), output the same shape
    ```

    Computed in float32, also under a mixed-precision policy, where large values
    would become infinite.

    Args:
        mean: Mean of each column, of g(x) where `log`.
        std: Standard deviation of each column, > 0, of g(x) where `log`.
        log: Whether g is the signed logarithm, per column.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the lengths differ or a `std` is not positive.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.Standardize([1.0], [2.0], [False])
        >>> [float(v) for v in layer(keras.ops.array([[5.0], [float("nan")]]))[:, 0]]
        [2.0, 0.0]
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        log: Sequence[bool],
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = [float(v) for v in mean]
        self.std = [float(v) for v in std]
        self.log = [bool(v) for v in log]
        if not len(self.mean) == len(self.std) == len(self.log):
            raise ValueError(
                "`mean`, `std` and `log` should have one entry per column. Received "
                f"lengths: {len(self.mean)}, {len(self.std)}, {len(self.log)}"
            )
        if not all(v > 0 for v in self.std):
            raise ValueError(
                f"`std` should be greater than 0. Received: std={self.std}"
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Returns standardised columns, of the input's shape."""
        x = ops.cast(inputs, "float32")
        finite = ops.isfinite(x)
        x = ops.where(finite, x, ops.zeros_like(x))
        if any(self.log):
            logged = ops.sign(x) * ops.log1p(ops.abs(x))
            x = ops.where(ops.convert_to_tensor(self.log), logged, x)
        mean = ops.convert_to_tensor(np.array(self.mean, "f4"))
        scale = ops.convert_to_tensor(1 / np.array(self.std, "f4"))
        y = ops.where(finite, (x - mean) * scale, ops.zeros_like(x))
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "log": self.log,
        }
