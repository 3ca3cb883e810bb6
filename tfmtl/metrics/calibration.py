"""Calibration in the large."""

from typing import Any

import keras
from keras import ops

from tfmtl.metrics.entries import entries
from tfmtl.metrics.sums import CompensatedSum

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Calibration(keras.metrics.Metric):
    """What the model predicts as a multiple of what happens.

    ```
    calibration = sum_i w_i p_i / sum_i w_i y_i
    ```

    1 is right, 1.1 promises ten per cent too many clicks. Predictions are on the
    labels' own scale: probabilities, or the mean of a watch time. NaN while the
    labels sum to 0, as without a positive one. Sums are compensated: float32 states
    do for 1e8 rows.

    Args:
        name: Name of the metric. Defaults to `"calibration"`.
        dtype: Type of the state. Defaults to `None`, `keras.config.floatx()`.

    Example:
        >>> from tfmtl.metrics import Calibration
        >>> metric = Calibration()
        >>> metric.update_state([[0], [1], [0], [1]], [[0.5], [0.5], [1.0], [0.5]])
        >>> float(metric.result())
        1.25

    Source: He et al., ADKDD 2014.
    """

    def __init__(self, name: str = "calibration", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._sums = CompensatedSum((2,), dtype=dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch."""
        labels, predictions, weights = entries(
            y_true, y_pred, sample_weight, self.dtype
        )
        self._sums.update_state(
            ops.stack([ops.sum(weights * predictions), ops.sum(weights * labels)])
        )

    def result(self) -> Tensor:
        """Sum of the predictions / sum of the labels."""
        predicted, observed = ops.unstack(self._sums.result(), 2)
        ratio = ops.divide_no_nan(predicted, observed)
        return ops.where(observed == 0, float("nan"), ratio)
