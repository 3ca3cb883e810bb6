"""Losses of tasks: means over the examples that have a label."""

from typing import Any

import keras
from keras import ops

from tfmtl.ops import log_loss

Tensor = Any


class LabelledLoss(keras.losses.Loss):
    """Weighted mean of a loss over labelled examples; 0 where there is none.

    ```
    loss = sum_i w_i L(y_i, p_i) / sum_i w_i,  over the i with a label
    labels (batch,) or (batch, k), weights (batch,) or (batch, 1)
    ```

    Without weights it is the mean over labelled examples, however many of the batch
    these are. An example without label gives no gradient, whatever its weight.

    Args:
        missing: A number that stands for a missing label, beside NaN. Defaults to
            `None`.
        **kwargs: `name`, `dtype`.
    """

    def __init__(self, missing: float | None = None, **kwargs: Any) -> None:
        kwargs["reduction"] = "mean_with_sample_weight"
        super().__init__(**kwargs)
        self.missing = missing

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Returns the weighted mean, a scalar."""
        weights = self.weights(y_true, sample_weight)
        y_pred = ops.convert_to_tensor(y_pred)
        return super().__call__(_without_missing(y_true, weights), y_pred, weights)

    def per_label(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss and weight of each label, `(batch, k)`, of which it is the mean."""
        weights = self.weights(y_true, sample_weight)
        y_pred = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        labels = ops.cast(_without_missing(y_true, weights), self.dtype)
        return self.call(labels, y_pred), weights

    def weights(self, y_true: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Weight of each label, 0 where it is missing, of the labels' shape."""
        y_true = column(y_true)
        known = ops.logical_not(ops.isnan(y_true))
        if self.missing is not None:
            known = ops.logical_and(known, y_true != self.missing)
        weights = 1.0 if sample_weight is None else column(sample_weight)
        return ops.where(known, weights, 0.0)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        config = {**super().get_config(), "missing": self.missing}
        del config["reduction"]
        return config


@keras.saving.register_keras_serializable(package="tfmtl")
class LogLoss(LabelledLoss):
    """Cross-entropy of probabilities, from their logits: `-log p` or `-log(1 - p)`."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each label, `(batch, k)`."""
        return log_loss(y_true, y_pred)


@keras.saving.register_keras_serializable(package="tfmtl")
class SquaredError(LabelledLoss):
    """Squared error, `(p - y)^2`."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each example, `(batch, 1)`."""
        return ops.square(y_pred - y_true)


@keras.saving.register_keras_serializable(package="tfmtl")
class HuberError(LabelledLoss):
    """Half the squared error up to `delta`, and linear beyond.

    Args:
        delta: Where it becomes linear, > 0, in the label's unit. Defaults to 1.0.
        **kwargs: Those of `LabelledLoss`.
    """

    def __init__(self, delta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delta = delta

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each example, `(batch, 1)`."""
        error = ops.abs(y_pred - y_true)
        linear = self.delta * (error - 0.5 * self.delta)
        return ops.where(error <= self.delta, 0.5 * ops.square(error), linear)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "delta": self.delta}


@keras.saving.register_keras_serializable(package="tfmtl")
class LogNormalError(LabelledLoss):
    """Negative log-likelihood where 1 + y is log-normal, and p its mean less 1.

    ```
    log(1 + y) ~ N(mu, sigma^2),  1 + p = exp(mu + sigma^2 / 2)
    loss = (log(1 + y) - mu)^2 / (2 sigma^2)       less what is constant
    ```

    Args:
        sigma: Standard deviation of log(1 + y), > 0. Defaults to 1.0.
        **kwargs: Those of `LabelledLoss`.
    """

    def __init__(self, sigma: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sigma = sigma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each example, `(batch, 1)`."""
        mu = ops.log1p(y_pred) - self.sigma**2 / 2
        return ops.square((ops.log1p(y_true) - mu) / self.sigma) / 2

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "sigma": self.sigma}


@keras.saving.register_keras_serializable(package="tfmtl")
class WeightedLogLoss(LabelledLoss):
    """Logistic regression in which a positive example counts y times, p being the odds.

    ```
    y > 0    y log(1 + 1/p)
    y = 0    log(1 + p)
    ```
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each example, `(batch, 1)`."""
        positive = y_true * ops.log1p(1 / y_pred)
        return ops.where(y_true > 0, positive, ops.log1p(y_pred))


@keras.saving.register_keras_serializable(package="tfmtl")
class PoissonLoss(LabelledLoss):
    """Negative log-likelihood of a count of mean p: `p - y log p`, less a constant."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each example, `(batch, 1)`."""
        return y_pred - y_true * ops.log(y_pred)


@keras.saving.register_keras_serializable(package="tfmtl")
class ClassLoss(LabelledLoss):
    """Cross-entropy of class probabilities: `-log p_y` for the class y = 0, 1, …"""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each example, `(batch, 1)`."""
        classes = ops.cast(y_true[:, 0], "int32")
        loss = keras.losses.sparse_categorical_crossentropy(classes, y_pred)
        return ops.expand_dims(loss, 1)


@keras.saving.register_keras_serializable(package="tfmtl")
class OrdinalLoss(LabelledLoss):
    """Mean cross-entropy of "y exceeds level k" over the levels but the last."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each example, `(batch, 1)`."""
        levels = ops.arange(y_pred.shape[-1], dtype=y_true.dtype)
        exceeds = ops.cast(y_true > levels, y_pred.dtype)
        return ops.mean(log_loss(exceeds, y_pred), axis=-1, keepdims=True)


def _without_missing(y_true: Tensor, weights: Tensor) -> Tensor:
    """Labels with 0 where their weight is 0, so that no NaN is left."""
    y_true = column(y_true)
    return ops.where(weights != 0, y_true, ops.zeros_like(y_true))


def column(values: Tensor) -> Tensor:
    """`(batch,)` as `(batch, 1)`, in float32, or float64 where `floatx` is that."""
    dtype = keras.backend.result_type("float32", keras.config.floatx())
    values = ops.cast(values, dtype)
    return ops.expand_dims(values, 1) if len(values.shape) == 1 else values
