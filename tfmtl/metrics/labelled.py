"""Metrics of tasks whose label is not always known."""

import math
from typing import Any

import keras
from keras import ops

from tfmtl.metrics.entries import entries

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Labelled(keras.metrics.Metric):
    """Any Keras metric, of the examples that have a label.

    ```
    example i without label:  w_i = 0, y_i = 0, p_i = 1/2, whatever they were
    ```

    An example is a row of the batch. Of a row of several labels all must be known:
    that is right for metrics that need the row as a whole (categorical accuracy, top
    k, cosine similarity …) and for all others too. `per_entry` makes every entry an
    example of its own instead. The metric keeps its name; batches without any label
    leave it as it was. Not for `PearsonCorrelation`, which is NaN on constant rows.

    Args:
        metric: The metric. `Labelled` updates this very object.
        missing: A number that stands for a missing label, beside NaN. Defaults to
            `None`.
        per_entry: Whether labels and predictions of shape `(batch, k)` are those of
            `batch * k` examples; for metrics of single numbers, such as AUC or RMSE.
            Defaults to `False`.
        name: Name of the metric. Defaults to `None`, that of the wrapped one.

    Raises:
        ValueError: If `metric` is no Keras metric.

    Example:
        >>> import keras
        >>> from tfmtl.metrics import Labelled
        >>> metric = Labelled(keras.metrics.BinaryAccuracy())
        >>> metric.update_state([[1.0], [0.0], [float("nan")]], [[0.9], [0.8], [0.7]])
        >>> metric.name, float(metric.result())
        ('binary_accuracy', 0.5)

    Source: the weights of Keras' metrics, keras.io/api/metrics.
    """

    def __init__(
        self,
        metric: keras.metrics.Metric,
        missing: float | None = None,
        per_entry: bool = False,
        name: str | None = None,
    ) -> None:
        if not isinstance(metric, keras.metrics.Metric):
            raise ValueError(
                f"`metric` should be a Keras metric. Received: metric={metric!r}"
            )
        super().__init__(name=name or metric.name, dtype=metric.dtype)
        self.metric = metric
        self.missing = None if missing is None or math.isnan(missing) else missing
        self.per_entry = per_entry
        if hasattr(metric, "_direction"):
            self._direction = metric._direction  # read by EarlyStopping and its like

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds the examples of a batch that have a label."""
        if self.per_entry:
            y_true, y_pred, sample_weight = entries(
                y_true, y_pred, sample_weight, keras.config.floatx()
            )
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if tuple(y_pred.shape[1:]) in ((), (1,)):  # not all metrics take both shapes
            y_true, y_pred = ops.reshape(y_true, (-1, 1)), ops.reshape(y_pred, (-1, 1))
        weights = 1.0 if sample_weight is None else sample_weight
        weights = ops.convert_to_tensor(weights, self.dtype)
        left_out = self._left_out(y_true)
        self.metric.update_state(
            _replace(left_out, y_true, 0),
            _replace(left_out, y_pred, 0.5),
            sample_weight=_replace(left_out, weights, 0),
        )

    def result(self) -> Tensor:
        """The metric of the examples with a label."""
        return self.metric.result()

    def reset_state(self) -> None:
        """Starts again."""
        self.metric.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            "metric": keras.saving.serialize_keras_object(self.metric),
            "missing": self.missing,
            "per_entry": self.per_entry,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Labelled":
        """The metric of `get_config`."""
        metric = keras.saving.deserialize_keras_object(config["metric"])
        return cls(**{**config, "metric": metric})

    def _left_out(self, y_true: Tensor) -> Tensor:
        """Which rows have no label, or not all of them."""
        missing = ops.isnan(ops.cast(y_true, "float32"))
        if self.missing is not None:
            missing = ops.logical_or(missing, ops.equal(y_true, self.missing))
        return ops.any(missing, axis=tuple(range(1, len(y_true.shape))))


def _replace(rows: Tensor, values: Tensor, by: float) -> Tensor:
    """`values` with `by` in the given rows; a single number counts for every row."""
    axes = (1,) * (len(values.shape) - 1)
    return ops.where(ops.reshape(rows, (-1, *axes)), by, values)
