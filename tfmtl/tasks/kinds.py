"""Kinds of tasks: each with its head, loss and metrics."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.metrics import Calibration, LogitAUC
from tfmtl.ops import exceedance, positive
from tfmtl.tasks.losses import (
    ClassLoss,
    HuberError,
    LabelledLoss,
    LogLoss,
    LogNormalError,
    OrdinalLoss,
    PoissonLoss,
    SquaredError,
    WeightedLogLoss,
)
from tfmtl.tasks.task import Position, Task

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class Binary(Task):
    """A yes/no task: sigmoid head, cross-entropy, AUC and calibration.

    With `after`, it is a later step of a funnel: the model has its probability over
    all exposures, which is trained, and beside it the conditional one as an output
    named `<name>_given_<after>`:

    ```
    p(purchase) = p(click) p(purchase | click)
    ```

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.
        position: Where the item was shown; its effect is learned apart and taken
            out when serving. `None` where it does not matter.
        after: Name of the binary task that comes before this one in a funnel. The
            label is then that of all exposures: 0 where the step before was not
            taken, also where it is missing there. `None` for the first step, or
            outside of funnels.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.Binary("click").head_activation
        'sigmoid'
        >>> purchase = tfmtl.tasks.Binary("purchase", after="click")

    Source: for `after` Ma et al., "Entire Space Multi-Task Model", SIGIR 2018.
    """

    position: Position | None = None  # type: ignore[misc]
    after: str | None = None  # type: ignore[misc]

    head_activation: ClassVar[Any] = "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.position, Position | None):
            raise ValueError(
                f"`position` of task {self.name!r} should be a tfmtl.tasks.Position. "
                f"Received: position={self.position!r}"
            )

    @property
    def label_range(self) -> tuple[float, float]:
        """0 to 1."""
        return 0.0, 1.0

    def loss(self) -> LabelledLoss:
        """Cross-entropy, from the logit."""
        return LogLoss(missing=self.missing, name=f"{self.name}_loss")

    def metrics(self) -> list[keras.metrics.Metric]:
        """AUC from 1,000 thresholds, and predicted over observed."""
        return [LogitAUC(), Calibration(name="calibration")]


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class Regression(Task):
    """A real-valued task: linear head, squared or Huber error, RMSE.

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.
        delta: Where the Huber error becomes linear, > 0; `None` for squared error.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.Regression("rating", delta=1.0).output_units
        1
    """

    delta: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delta is not None:
            _check_above_0(self.name, "delta", self.delta)

    def loss(self) -> LabelledLoss:
        """Squared error, or Huber's where there is a `delta`."""
        name = f"{self.name}_loss"
        if self.delta is None:
            return SquaredError(missing=self.missing, name=name)
        return HuberError(self.delta, missing=self.missing, name=name)

    def metrics(self) -> list[keras.metrics.Metric]:
        """Root mean squared error."""
        return [keras.metrics.RootMeanSquaredError(name="rmse")]


@dataclass(frozen=True)
class _Positive(Task):
    """A task of values at least 0 whose prediction is a mean greater than 0."""

    head_activation: ClassVar[Any] = staticmethod(positive)

    @property
    def label_range(self) -> tuple[float, float]:
        """0 or more."""
        return 0.0, math.inf

    def metrics(self) -> list[keras.metrics.Metric]:
        """Root mean squared error, and predicted over observed."""
        return [
            keras.metrics.RootMeanSquaredError(name="rmse"),
            Calibration(name="calibration"),
        ]


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class LogNormal(_Positive):
    """Watch time, or any amount with a heavy tail: `1 + y` is log-normal.

    ```
    1 + p = exp(mu + sigma^2 / 2),  log(1 + y) ~ N(mu, sigma^2),  p = exp(tower)
    ```

    What is served is the mean p, in the label's unit.

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.
        sigma: Standard deviation of log(1 + y) that the features do not explain, > 0.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.LogNormal("watch_time", sigma=1.2).loss().sigma
        1.2
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_above_0(self.name, "sigma", self.sigma)

    def loss(self) -> LabelledLoss:
        """Negative log-likelihood."""
        return LogNormalError(
            self.sigma, missing=self.missing, name=f"{self.name}_loss"
        )


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class WeightedLogistic(_Positive):
    """Watch time of rare clicks by logistic regression, positives weighted by it.

    ```
    loss = y log(1 + 1/p) where y > 0, and log(1 + p) where y = 0;  p = exp(tower)
    ```

    p, the odds, is near the mean watch time of an exposure where clicks are rare.

    Attributes:
        name: Name of the label, 0 without click, and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.

    Example:
        >>> import tfmtl
        >>> task = tfmtl.tasks.WeightedLogistic("watch_time")
        >>> round(float(task.loss()([[0.0]], [[1.0]])), 4)
        0.6931

    Source: Covington et al., "Deep Neural Networks for YouTube Recommendations",
    RecSys 2016, section 4.2.
    """

    def loss(self) -> LabelledLoss:
        """Cross-entropy of the odds, positives weighted by the label."""
        return WeightedLogLoss(missing=self.missing, name=f"{self.name}_loss")


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class Count(_Positive):
    """A count: exponential head, Poisson likelihood; what is served is the mean.

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.

    Example:
        >>> import tfmtl
        >>> float(tfmtl.tasks.Count("comments").loss()([[0.0]], [[2.0]]))
        2.0
    """

    def loss(self) -> LabelledLoss:
        """Negative log-likelihood."""
        return PoissonLoss(missing=self.missing, name=f"{self.name}_loss")


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class MultiClass(Task):
    """One of several classes: softmax head, cross-entropy, accuracy.

    The label is the class, 0 to num_classes - 1; the output `(batch, num_classes)`.

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.
        num_classes: Number of classes, 2 or more.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.MultiClass("feedback", num_classes=4).output_units
        4
    """

    num_classes: int = 2

    head_activation: ClassVar[Any] = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_2(self.name, "num_classes", self.num_classes)

    @property
    def output_units(self) -> int:
        """Number of classes."""
        return self.num_classes

    @property
    def label_range(self) -> tuple[float, float]:
        """0 to the last class."""
        return 0.0, self.num_classes - 1.0

    def loss(self) -> LabelledLoss:
        """Cross-entropy, from the logits."""
        return ClassLoss(missing=self.missing, name=f"{self.name}_loss")

    def metrics(self) -> list[keras.metrics.Metric]:
        """Share of examples whose most probable class is theirs."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class MultiLabel(Task):
    """Several yes/no labels at once: sigmoid head, cross-entropy, mean AUC.

    Labels and output are `(batch, num_labels)`; each label may be missing on its own.

    Attributes:
        name: Name of the labels and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the labels to exist.
        num_labels: Number of labels.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.MultiLabel("topics", num_labels=16).label_units
        16
    """

    num_labels: int = 2

    head_activation: ClassVar[Any] = "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_2(self.name, "num_labels", self.num_labels)

    @property
    def output_units(self) -> int:
        """Number of labels."""
        return self.num_labels

    @property
    def label_units(self) -> int:
        """Number of labels."""
        return self.num_labels

    @property
    def label_range(self) -> tuple[float, float]:
        """0 to 1, each."""
        return 0.0, 1.0

    def loss(self) -> LabelledLoss:
        """Cross-entropy, from the logits; a mean over all labels that are known."""
        return LogLoss(missing=self.missing, name=f"{self.name}_loss")

    def metrics(self) -> list[keras.metrics.Metric]:
        """AUC over all labels together, from 1,000 thresholds."""
        return [LogitAUC()]


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class Ordinal(Task):
    """An ordered label such as a rating: cumulative logits, mean absolute error.

    ```
    output (batch, num_levels - 1): P(y > 0) >= P(y > 1) >= …
    expected level = sum_k P(y > k)
    ```

    Attributes:
        name: Name of the label, 0 to num_levels - 1, and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.
        num_levels: Number of levels, 2 or more.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.Ordinal("stars", num_levels=5).output_units
        4

    Source: McCullagh, "Regression Models for Ordinal Data", 1980.
    """

    num_levels: int = 2

    head_activation: ClassVar[Any] = staticmethod(exceedance)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_2(self.name, "num_levels", self.num_levels)

    @property
    def output_units(self) -> int:
        """Number of levels but the last."""
        return self.num_levels - 1

    @property
    def label_range(self) -> tuple[float, float]:
        """0 to the last level."""
        return 0.0, self.num_levels - 1.0

    def loss(self) -> LabelledLoss:
        """Cross-entropy of each exceedance, from the logits."""
        return OrdinalLoss(missing=self.missing, name=f"{self.name}_loss")

    def metrics(self) -> list[keras.metrics.Metric]:
        """Mean distance of the expected level from the label."""
        return [keras.metrics.MeanMetricWrapper(level_error, name="mae")]


@keras.saving.register_keras_serializable(package="tfmtl")
def level_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Distance of the expected level, `sum_k P(y > k)`, from the label.

    Args:
        y_true: Labels `(batch, 1)`.
        y_pred: P(y > k), `(batch, levels - 1)`.

    Example:
        >>> from keras import ops
        >>> from tfmtl.tasks.kinds import level_error
        >>> float(level_error(ops.array([[2.0]]), ops.array([[0.75, 0.5]]))[0])
        0.75
    """
    y_true = ops.cast(y_true, y_pred.dtype)
    return ops.abs(ops.sum(y_pred, axis=-1) - ops.reshape(y_true, (-1,)))


def _check_at_least_2(task: str, argument: str, value: Any) -> None:
    if not isinstance(value, int) or value < 2:
        raise ValueError(
            f"`{argument}` of task {task!r} should be an integer of 2 or more. "
            f"Received: {argument}={value!r}"
        )


def _check_above_0(task: str, argument: str, value: Any) -> None:
    if not value > 0:
        raise ValueError(
            f"`{argument}` of task {task!r} should be a number above 0. "
            f"Received: {argument}={value!r}"
        )
