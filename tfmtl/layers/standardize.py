"""Numeric columns on one scale, with bad values guarded in the graph."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.fields import fields_of, side_by_side

Tensor = Any

_BY_COLUMN = ("mean", "std", "log", "clip", "missing", "fill")
_FARTHEST = 1000.0  # standard deviations from the mean


@keras.saving.register_keras_serializable(package="tfmtl")
class Standardize(keras.layers.Layer):
    """Centres and scales each column; NaN and infinite values become the mean, y = 0.

    ```
    y_k = (g_k(clip_k(x_k)) - mean_k) / std_k, kept in [-1000, 1000]
        = fill_k where x_k is missing or not finite
    g_k(x) = sign(x) log(1 + |x|) or x
    input (batch, columns), output the same shape
    input a list of fields (batch, width) each, output (batch, fields, width)
    ```

    Computed in float32, also under a mixed-precision policy, where large values
    would become infinite. A thousand standard deviations are more than any of a million
    rows can be from their mean, and leave room in float16 for the layers after.

    Args:
        mean: Mean of each column, of g(clip(x)).
        std: Standard deviation of each column, > 0, of g(clip(x)).
        log: Whether g is the signed logarithm, per column.
        clip: Lower and upper bound of each column, either of which may be `None`.
            Defaults to no bounds.
        missing: A number of each column that is read as NaN, or `None`. Defaults to
            none.
        fill: y of a missing value of each column. Defaults to 0, the mean.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the lengths differ, a `std` is not positive, or the input has
            another number of columns.

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
        clip: Sequence[Sequence[float | None]] | None = None,
        missing: Sequence[float | None] | None = None,
        fill: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = [float(v) for v in mean]
        self.std = [float(v) for v in std]
        self.log = [bool(v) for v in log]
        self.clip = None if clip is None else [list(bounds) for bounds in clip]
        self.missing = None if missing is None else list(missing)
        self.fill = None if fill is None else [float(v) for v in fill]
        given = {name: getattr(self, name) for name in _BY_COLUMN}
        lengths = {name: len(v) for name, v in given.items() if v is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"`{'`, `'.join(lengths)}` should have one entry per column. "
                f"Received: lengths={lengths}"
            )
        if not all(v > 0 for v in self.std):
            raise ValueError(
                f"`std` should be greater than 0. Received: std={self.std}"
            )

    def build(self, input_shape: Any) -> None:
        """Notes whether the columns come as fields."""
        fields = fields_of(input_shape)
        self.fields = len(fields or ())
        columns = [shape[-1] for shape in fields or [input_shape]]
        if sum(columns) != len(self.mean) or len(set(columns)) > 1:
            raise ValueError(
                f"Standardize should be called on {len(self.mean)} columns, in fields "
                f"of equal width. Received: shape={input_shape}"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns standardised columns."""
        x = ops.cast(side_by_side(inputs), "float32")
        finite = ops.isfinite(x)
        if self.missing is not None:
            finite = ops.logical_and(finite, x != _numbers(self.missing, np.nan))
        x = ops.where(finite, x, 0.0)
        if self.clip is not None:
            lower, upper = zip(*self.clip, strict=True)
            x = ops.maximum(x, _numbers(lower, -np.inf))
            x = ops.minimum(x, _numbers(upper, np.inf))
        if any(self.log):
            logged = ops.sign(x) * ops.log1p(ops.abs(x))
            x = ops.where(ops.convert_to_tensor(self.log), logged, x)
        mean = ops.convert_to_tensor(np.array(self.mean, "f4"))
        scale = ops.convert_to_tensor(1 / np.array(self.std, "f4"))
        y = ops.clip((x - mean) * scale, -_FARTHEST, _FARTHEST)
        y = ops.where(finite, y, 0.0 if self.fill is None else _numbers(self.fill, 0.0))
        if self.fields:
            y = ops.reshape(y, (-1, self.fields, len(self.mean) // self.fields))
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's shape, or `(batch, fields, width)`."""
        fields = fields_of(input_shape)
        if fields is None:
            return input_shape
        return (fields[0][0], len(fields), fields[0][-1])

    def slot_reads(self) -> np.ndarray:
        """Each field reads itself."""
        return np.eye(self.fields or 1, dtype=bool)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same layer for the fields of `outputs` only."""
        width = len(self.mean) // (self.fields or 1)
        columns = [k * width + column for k in outputs for column in range(width)]
        config = self.get_config()
        for name in _BY_COLUMN:
            if config[name] is not None:
                config[name] = [config[name][column] for column in columns]
        if not self.fields:
            return type(self).from_config(self.get_config()), outputs
        return type(self).from_config(config), outputs

    def num_fields(self) -> int:
        """Number of fields, or of columns where they come in one."""
        return self.fields or len(self.mean)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "log": self.log,
            "clip": self.clip,
            "missing": self.missing,
            "fill": self.fill,
        }


def _numbers(given: Sequence[float | None], none: float) -> Tensor:
    numbers = [none if number is None else number for number in given]
    return ops.convert_to_tensor(np.array(numbers, "f4"))
