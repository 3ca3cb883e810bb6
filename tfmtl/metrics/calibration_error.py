"""Calibration by predicted probability."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import positive_int
from tfmtl.metrics.entries import entries
from tfmtl.metrics.sums import CompensatedSum

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class CalibrationError(keras.metrics.Metric):
    """Expected calibration error: how far predicted and observed rates are apart.

    ```
    p_b, y_b, w_b      mean prediction, observed rate, weight of the rows of bucket b
    error = sum_b w_b |p_b - y_b| / sum_b w_b
    ```

    Buckets have equal widths in [0, 1]; predictions outside go to the first or last.
    0 is best, NaN without rows. Sums are compensated: float32 states do for 1e8 rows.

    Args:
        num_buckets: Number of buckets. Take more for rare labels: where all
            predictions are below 0.05, 15 buckets are one. Defaults to 15.
        name: Name of the metric. Defaults to `"calibration_error"`.
        dtype: Type of the state. Defaults to `None`, `keras.config.floatx()`.

    Raises:
        ValueError: If `num_buckets` is not a positive integer.

    Example:
        >>> from tfmtl.metrics import CalibrationError
        >>> metric = CalibrationError(num_buckets=2)
        >>> metric.update_state([[0], [1], [1], [1]], [[0.25], [0.25], [0.75], [0.75]])
        >>> float(metric.result())
        0.25
        >>> metric.by_bucket()["observed"].tolist()
        [0.5, 1.0]

    Source: Naeini et al., AAAI 2015; 15 buckets as in Guo et al., ICML 2017.
    """

    def __init__(
        self,
        num_buckets: int = 15,
        name: str = "calibration_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_buckets = positive_int("num_buckets", num_buckets)
        self._direction = "down"  # read by EarlyStopping and its like
        self._sums = CompensatedSum((3, num_buckets), dtype=dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch."""
        labels, predictions, weights = entries(
            y_true, y_pred, sample_weight, self.dtype
        )
        bucket = ops.cast(ops.clip(predictions, 0, 1) * self.num_buckets, "int32")
        bucket = ops.clip(bucket, 0, self.num_buckets - 1)
        columns = (weights, weights * predictions, weights * labels)
        sums = [ops.segment_sum(x, bucket, self.num_buckets) for x in columns]
        self._sums.update_state(ops.stack(sums))

    def result(self) -> Tensor:
        """Mean distance of the buckets, by weight."""
        weight, predicted, observed = ops.unstack(self._sums.result(), 3)
        total = ops.sum(weight)
        error = ops.divide_no_nan(ops.sum(ops.abs(predicted - observed)), total)
        return ops.where(total == 0, float("nan"), error)

    def by_bucket(self) -> dict[str, np.ndarray]:
        """The reliability diagram as columns, an entry per bucket.

        `lower` and `upper` bound the bucket, `weight` is that of its rows,
        `predicted` their mean prediction and `observed` their rate of positive
        labels, NaN where the bucket is empty.
        """
        weight, predicted, observed = ops.convert_to_numpy(self._sums.result())
        bounds = np.linspace(0, 1, self.num_buckets + 1)
        divisor = np.where(weight == 0, np.nan, weight)
        return {
            "lower": bounds[:-1],
            "upper": bounds[1:],
            "weight": weight,
            "predicted": predicted / divisor,
            "observed": observed / divisor,
        }

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "num_buckets": self.num_buckets}
