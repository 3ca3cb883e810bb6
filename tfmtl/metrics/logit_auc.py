"""An AUC for `fit` that is right for rare labels too."""

from typing import Any

import keras
from keras import ops

Tensor = Any

_FARTHEST = 14.0  # a probability of 1e-6, or as near to 1


@keras.saving.register_keras_serializable(package="tfmtl")
class LogitAUC(keras.metrics.AUC):
    """`keras.metrics.AUC` with thresholds at equal steps of the logit.

    ```
    logit(t_j) = -14 + 28 j / (num_thresholds - 1)
    ```

    Those of Keras are at equal steps of the probability: of a task that one example in
    a thousand is positive in, most predictions are below the first. Takes Keras' time
    for equal steps, not that for given thresholds.

    Args:
        num_thresholds: Number of thresholds. Defaults to 1000.
        name: Name of the metric. Defaults to `"auc"`.
        **kwargs: Further arguments of `keras.metrics.AUC`, but `thresholds` and
            `from_logits`.

    Example:
        >>> import keras, tfmtl
        >>> y, p = [[0.0], [1.0], [0.0]], [[1e-5], [3e-4], [1e-4]]
        >>> metric = tfmtl.metrics.LogitAUC()
        >>> metric.update_state(y, p)
        >>> float(metric.result())
        1.0
        >>> of_keras = keras.metrics.AUC(num_thresholds=1000)
        >>> of_keras.update_state(y, p)
        >>> float(of_keras.result())
        0.5

    Source: Hanley and McNeil, Radiology 1982; `keras.metrics.AUC`.
    """

    def __init__(
        self, num_thresholds: int = 1000, name: str = "auc", **kwargs: Any
    ) -> None:
        super().__init__(num_thresholds=num_thresholds, name=name, **kwargs)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch; predictions are probabilities."""
        p = ops.convert_to_tensor(y_pred, "float32")
        logit = ops.clip(ops.log(p) - ops.log1p(-p), -_FARTHEST, _FARTHEST)
        even = logit / (2 * _FARTHEST) + 0.5  # in [0, 1], in the same order
        super().update_state(y_true, even, sample_weight)
