"""List metrics of keras-rs for rows, within each batch."""

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Listwise(keras.metrics.Mean):
    """A list metric of keras-rs, of rows that say which list they are of.

    ```
    sum_l w_l M_l / sum_l w_l        w_l: mean weight of the rows of list l
    labels (batch, 2): y, and the number of the row's list, NaN where it is of none
    ```

    That is what a task with `within` gives its metrics. Lists end with the batch:
    the metric is that of `tfmtl.metrics.ndcg` where a batch holds all rows of a list.
    Rows without label or of weight 0 are in no list. Takes time and memory for all
    batch × batch pairs of rows.

    Args:
        metric: A metric of `keras_rs.metrics`, such as `NDCG(k=10)`.
        name: Name of the metric. Defaults to `None`, that of the wrapped one.

    Raises:
        ValueError: If `metric` is none of keras-rs.

    Example:
        >>> import keras_rs
        >>> from tfmtl.metrics import Listwise
        >>> metric = Listwise(keras_rs.metrics.MeanAveragePrecision())
        >>> labels = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
        >>> metric.update_state(labels, [[0.9], [0.1], [0.8], [0.7]])
        >>> float(metric.result())
        0.75

    Source: `tfmtl.metrics.by_group`, on tensors.
    """

    def __init__(self, metric: keras.metrics.Metric, name: str | None = None) -> None:
        if not is_listwise(metric):
            raise ValueError(
                "`metric` should be a metric of `keras_rs.metrics`. "
                f"Received: metric={metric!r}"
            )
        super().__init__(name=name or metric.name, dtype=metric.dtype)
        self.metric = metric
        self._direction = "up"  # read by EarlyStopping and its like

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds the lists of a batch."""
        y_true = ops.convert_to_tensor(y_true, dtype=self.dtype)
        scores = ops.convert_to_tensor(y_pred, dtype=self.dtype)[:, 0]
        labels, lists = y_true[:, 0], y_true[:, 1]
        counted = ops.logical_not(ops.isnan(labels))
        weights = ops.ones_like(labels)
        if sample_weight is not None:
            weights = ops.cast(ops.reshape(sample_weight, (-1,)), self.dtype)
            counted = ops.logical_and(counted, weights > 0)
        labels = ops.where(counted, labels, 0.0)
        weights = ops.where(counted, weights, 0.0)
        # (batch, batch): row i of it is the list of row i
        mask = ops.equal(ops.expand_dims(lists, 1), ops.expand_dims(lists, 0))
        mask = ops.logical_and(mask, ops.expand_dims(counted, 0))
        members = ops.cast(mask, self.dtype)
        values, _ = self.metric.compute_metric(
            y_true=ops.where(mask, labels, 0.0),
            y_pred=ops.where(mask, scores, float("-inf")),
            mask=mask,
            sample_weight=members,
        )
        # Each list once: n equal rows of 1/n, of the mean weight of its n members
        size = ops.maximum(ops.sum(members, axis=1), 1.0)
        of_list = ops.sum(members * weights, axis=1) / size
        own = ops.where(counted, of_list / size, 0.0)
        super().update_state(values[:, 0], own)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        metric = keras.saving.serialize_keras_object(self.metric)
        return {"metric": metric, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Listwise":
        """The metric of `get_config`."""
        metric = keras.saving.deserialize_keras_object(config["metric"])
        return cls(**{**config, "metric": metric})


def is_listwise(metric: Any) -> bool:
    """Whether a metric is one of keras-rs, of lists."""
    return isinstance(metric, keras.metrics.Metric) and hasattr(
        metric, "compute_metric"
    )
