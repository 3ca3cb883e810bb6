"""A task that ranks the rows of a list, by the pairwise losses of keras-rs."""

import importlib
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfmtl.metrics import Listwise
from tfmtl.tasks.losses import LabelledLoss
from tfmtl.tasks.task import Task

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class Ranking(Task):
    """The order of a user's or request's rows: linear head, pairwise loss, NDCG.

    A list is the rows of a batch that have the same value in the column `within`; rows
    where that is missing (NaN, "" or a negative id) are in none. Each row of a list is
    compared with those of a lower label. The score that is served has no scale of its
    own: it ranks the rows of one list.

    Batches should hold several rows of a list, or there is nothing to compare, and the
    metric is exact only where they hold all of them. Needs keras-rs.

    Attributes:
        name: Name of the label, at least 0, and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a column that must be positive for the label to exist.
        within: Name of a label or input column of strings or integers, the same for
            all rows of a list, such as the user or the request.
        pairwise_loss: A pairwise loss of `keras_rs.losses`, of which the configuration
            is kept. `None` for its `PairwiseLogisticLoss`.

    Raises:
        ValueError: If there is no `within`, or the loss is of another kind.

    Example:
        >>> import keras_rs, tfmtl
        >>> hinge = keras_rs.losses.PairwiseHingeLoss()
        >>> click = tfmtl.tasks.Ranking("click", within="user", pairwise_loss=hinge)
        >>> [metric.name for metric in click.metrics()]
        ['ndcg_10']

    Source: Burges et al., "Learning to Rank Using Gradient Descent", ICML 2005, for
    the logistic loss; keras-rs 0.4.
    """

    within: str = ""  # type: ignore[misc]
    pairwise_loss: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.within, str) or not self.within:
            raise ValueError(
                f"`within` of task {self.name!r} should be the name of a column. "
                f"Received: within={self.within!r}"
            )
        if isinstance(self.pairwise_loss, keras.losses.Loss):
            _check_pairwise(self.name, self.pairwise_loss)
            config = keras.saving.serialize_keras_object(self.pairwise_loss)
            object.__setattr__(self, "pairwise_loss", config)
        elif not isinstance(self.pairwise_loss, dict | None):
            _check_pairwise(self.name, self.pairwise_loss)

    @property
    def label_range(self) -> tuple[float, float]:
        """0 or more."""
        return 0.0, float("inf")

    def loss(self) -> LabelledLoss:
        """The pairwise loss, a mean over pairs."""
        loss = self.pairwise_loss
        if loss is None:
            loss = _keras_rs().losses.PairwiseLogisticLoss()
        return PairwiseLoss(loss, missing=self.missing, name=f"{self.name}_loss")

    def metrics(self) -> list[keras.metrics.Metric]:
        """NDCG of the first 10 of each list in a batch."""
        return [Listwise(_keras_rs().metrics.NDCG(k=10, name="ndcg_10"))]


@keras.saving.register_keras_serializable(package="tfmtl")
class PairwiseLoss(LabelledLoss):
    """A pairwise loss of keras-rs over the lists of a batch; 0 where no pair is.

    ```
    loss = sum_ij w_i P_ij L(s_i - s_j) / sum_ij w_i P_ij
    P_ij = 1 where i and j are of one list and y_i > y_j, else 0
    labels (batch, 2): y, and the number of the row's list, NaN where it is of none
    ```

    The weight of a pair is that of its row with the higher label, as in keras-rs;
    rows without label or of weight 0 are in no pair. It is a mean over pairs, and so
    does not depend on the lengths of lists. The squared error, alone of these losses,
    has P_ij = 1 for all i and j of one list, and L = (y_i - y_j - s_i + s_j)^2.

    Takes time and memory for all batch × batch pairs.

    Args:
        pairwise_loss: A pairwise loss of `keras_rs.losses`, or its configuration.
        **kwargs: Those of `LabelledLoss`.

    Example:
        >>> import keras_rs
        >>> from tfmtl.tasks.ranking import PairwiseLoss
        >>> loss = PairwiseLoss(keras_rs.losses.PairwiseHingeLoss())
        >>> labels = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]  # the last one is alone
        >>> float(loss(labels, [[0.5], [0.25], [9.0]]))
        0.75
    """

    def __init__(self, pairwise_loss: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(pairwise_loss, dict):
            pairwise_loss = keras.saving.deserialize_keras_object(pairwise_loss)
        _check_pairwise(self.name, pairwise_loss)
        self.pairwise_loss = pairwise_loss

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Returns the weighted mean over pairs, a scalar."""
        values, weights = self.per_label(y_true, y_pred, sample_weight)
        return keras.losses.Loss.__call__(self, values, values, weights)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each row, `(batch, 1)`, which `per_label` has found."""
        return y_pred

    def per_label(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean loss of each row's pairs, and their weight together, `(batch, 1)`."""
        y_true = ops.convert_to_tensor(y_true, dtype=self.dtype)
        y_pred = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        labels, lists = y_true[:, :1], y_true[:, 1]
        weights = self.weights(labels, sample_weight)
        counted = weights != 0
        losses, pairs = self.pairwise_loss.compute_unreduced_loss(
            labels=ops.transpose(ops.where(counted, labels, 0.0)),  # a list of all rows
            logits=ops.transpose(y_pred),
            mask=ops.transpose(counted),
        )
        alike = ops.equal(ops.expand_dims(lists, 1), ops.expand_dims(lists, 0))
        pairs = ops.where(alike, pairs[0], 0.0)
        count = ops.sum(pairs, axis=1, keepdims=True)
        total = ops.sum(pairs * losses[0], axis=1, keepdims=True)
        return total / ops.maximum(count, 1.0), weights * count

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        loss = keras.saving.serialize_keras_object(self.pairwise_loss)
        return {**super().get_config(), "pairwise_loss": loss}


def _check_pairwise(name: str, loss: Any) -> None:
    if not hasattr(loss, "pairwise_loss") or not isinstance(loss, keras.losses.Loss):
        raise ValueError(
            f"`pairwise_loss` of {name!r} should be a pairwise loss of "
            f"`keras_rs.losses`. Received: pairwise_loss={loss!r}"
        )


def _keras_rs() -> Any:
    try:
        return importlib.import_module("keras_rs")
    except ImportError as error:
        raise ImportError("Ranking needs keras-rs: `pip install keras-rs`.") from error
