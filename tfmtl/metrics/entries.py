"""Labels, predictions and weights in whichever shapes Keras gives them."""

from typing import Any

from keras import ops

Tensor = Any


def entries(
    y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, dtype: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Every entry's label, prediction and weight, each of shape `(entries,)`.

    A last axis of 1 is ignored, a weight of `(batch,)` is that of a whole row.
    Where the weight is 0, label and prediction become 0, whatever they were.

    Raises:
        ValueError: If labels and predictions differ in shape.
    """
    labels = _without_last_axis(ops.convert_to_tensor(y_true, dtype))
    predictions = _without_last_axis(ops.convert_to_tensor(y_pred, dtype))
    if not _fit(labels.shape, predictions.shape):
        raise ValueError(
            "`y_true` and `y_pred` should have the same shape, up to a last axis of 1. "
            f"Received: y_true.shape={tuple(y_true.shape)}, "
            f"y_pred.shape={tuple(y_pred.shape)}"
        )
    weights = ops.convert_to_tensor(1 if sample_weight is None else sample_weight)
    weights = _without_last_axis(ops.cast(weights, dtype))
    while 0 < len(weights.shape) < len(predictions.shape):
        weights = ops.expand_dims(weights, -1)
    weights = ops.broadcast_to(weights, ops.shape(predictions))
    labels, predictions, weights = (
        ops.reshape(values, (-1,)) for values in (labels, predictions, weights)
    )
    absent = weights == 0
    return ops.where(absent, 0.0, labels), ops.where(absent, 0.0, predictions), weights


def _without_last_axis(values: Tensor) -> Tensor:
    if len(values.shape) > 1 and values.shape[-1] == 1:
        return ops.squeeze(values, -1)
    return values


def _fit(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    """Whether two shapes are equal as far as they are known."""
    return len(a) == len(b) and all(
        m == n or None in (m, n) for m, n in zip(a, b, strict=True)
    )
