"""Log loss against that of the base rate."""

from typing import Any

import keras
from keras import ops

from tfmtl.metrics.entries import entries
from tfmtl.metrics.sums import CompensatedSum

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class NormalizedEntropy(keras.metrics.Metric):
    """Log loss as a multiple of that of always predicting the observed rate.

    ```
    NE = sum_i w_i [-y_i log p_i - (1 - y_i) log(1 - p_i)] / (-P log(P/W) - N log(N/W))

    P = sum_i w_i y_i        N = sum_i w_i (1 - y_i)        W = P + N
    ```

    Below 1 the model knows more than the base rate, and tasks of different rates can
    be compared. Takes probabilities, which are clipped to [1e-7, 1 - 1e-7]. NaN while
    labels of one class only were seen. Sums are compensated: float32 states do for
    1e8 rows.

    Args:
        name: Name of the metric. Defaults to `"normalized_entropy"`.
        dtype: Type of the state. Defaults to `None`, `keras.config.floatx()`.

    Example:
        >>> from tfmtl.metrics import NormalizedEntropy
        >>> metric = NormalizedEntropy()
        >>> metric.update_state([[0], [1], [0], [0]], [[0.25], [0.25], [0.25], [0.25]])
        >>> round(float(metric.result()), 6)
        1.0

    Source: He et al., ADKDD 2014.
    """

    def __init__(self, name: str = "normalized_entropy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._direction = "down"  # read by EarlyStopping and its like
        self._sums = CompensatedSum((3,), dtype=dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch."""
        labels, p, weights = entries(y_true, y_pred, sample_weight, self.dtype)
        p = ops.clip(p, 1e-7, 1 - 1e-7)
        positive, negative = weights * labels, weights * (1 - labels)
        loss = -positive * ops.log(p) - negative * ops.log1p(-p)
        self._sums.update_state(
            ops.stack([ops.sum(x) for x in (loss, positive, negative)])
        )

    def result(self) -> Tensor:
        """Log loss / entropy of the base rate."""
        loss, positive, negative = ops.unstack(self._sums.result(), 3)
        both = ops.logical_and(positive > 0, negative > 0)
        positive, negative = (ops.where(both, x, 1.0) for x in (positive, negative))
        # -log(P/W) = log1p(N/P), exact for rare labels too
        entropy = positive * ops.log1p(negative / positive)
        entropy += negative * ops.log1p(positive / negative)
        return ops.where(both, loss / entropy, float("nan"))
