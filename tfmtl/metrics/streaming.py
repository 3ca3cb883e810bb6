"""Metrics within groups, of rows that come in batches."""

from copy import deepcopy
from typing import Any

import numpy as np

from tfmtl.layers.checks import positive_int
from tfmtl.metrics.auc import mean_auc
from tfmtl.metrics.columns import Columns, binary, labelled, numbered
from tfmtl.metrics.lists import mean_over_lists


class _OfGroups:
    """A metric within groups, which may return in later batches.

    Exact, in any order of the rows: the columns of all batches are kept, and each
    group's name once.
    """

    def __init__(self) -> None:
        self.reset_state()

    def update_state(
        self, y_true: Any, y_pred: Any, groups: Any, sample_weight: Any = None
    ) -> None:
        """Adds a batch.

        Args:
            y_true: Labels, `(rows,)` or `(rows, 1)`; rows of NaN are left out.
            y_pred: Any numbers; higher means more likely.
            groups: Integers in every batch, or strings in every batch.
            sample_weight: Weights of the rows. Defaults to `None`, 1 each.

        Raises:
            ValueError: If the columns do not fit, as of the metric of arrays, or their
                groups are strings where there were integers, or the reverse.
        """
        columns = self._checked(labelled(y_true, y_pred, groups, sample_weight))
        if not columns.labels.size:
            return
        named = columns.groups.dtype.kind not in "iu"
        if self._batches and named != bool(self._names):
            raise ValueError(
                "`groups` should be integers in every batch, or strings in every "
                f"batch. Received: dtype={columns.groups.dtype} after "
                f"{'strings' if self._names else 'integers'}"
            )
        codes = numbered(columns.groups, self._names) if named else columns.groups
        columns = columns._replace(groups=codes.astype(np.int64))
        self._batches.append(deepcopy(columns))  # the caller may reuse its arrays

    def result(self) -> float:
        """The metric of all batches so far, NaN where no group has one."""
        if not self._batches:
            return float("nan")
        labels, scores, groups, _ = zip(*self._batches, strict=True)
        w = [
            np.ones(len(batch.labels)) if batch.weights is None else batch.weights
            for batch in self._batches
        ]
        columns = (np.concatenate(column) for column in (labels, scores, groups, w))
        return self._value(Columns(*columns))

    def reset_state(self) -> None:
        """Forgets all batches."""
        self._batches: list[Columns] = []
        self._names: dict[Any, int] = {}

    def _checked(self, columns: Columns) -> Columns:
        return columns

    def _value(self, columns: Columns) -> float:
        raise NotImplementedError


class GroupAUC(_OfGroups):
    """`group_auc` of batches, whose groups may return in later ones.

    ```
    GAUC = sum_g w_g AUC_g / sum_g w_g        w_g = sum of the weights of group g
    ```

    Exact, in any order of the rows: the columns of all batches are kept, 13 bytes a
    row for float32 scores, 8 more with weights, and each group's name once. It is no
    Keras metric, as it needs the groups:

    ```
    for features, labels in dataset:
        gauc.update_state(labels["click"], model(features)["click"], features["user"])
    ```

    Example:
        >>> from tfmtl.metrics import GroupAUC
        >>> gauc = GroupAUC()
        >>> gauc.update_state([0, 1], [0.1, 0.7], ["ann", "bob"])
        >>> gauc.update_state([1, 0], [0.2, 0.8], ["ann", "bob"])
        >>> gauc.result()
        0.5

    Source: Zhu et al., KDD 2017, and Zhou et al., KDD 2018 (DIN).
    """

    def _checked(self, columns: Columns) -> Columns:
        return binary(columns)

    def _value(self, columns: Columns) -> float:
        return mean_auc(columns)


class _OfLists(_OfGroups):
    """A list metric of keras-rs, of the first k of each group."""

    _metric: str

    def __init__(self, k: int | None = None) -> None:
        super().__init__()
        self.k = None if k is None else positive_int("k", k)

    def _value(self, columns: Columns) -> float:
        return mean_over_lists(self._metric, columns, self.k)


class GroupNDCG(_OfLists):
    """`ndcg` of batches, whose groups may return in later ones; kept as by `GroupAUC`.

    Args:
        k: How many of each list count. Defaults to `None`, all.

    Raises:
        ValueError: If `k` is not a positive integer.

    Example:
        >>> from tfmtl.metrics import GroupNDCG
        >>> metric = GroupNDCG(k=2)
        >>> metric.update_state([1, 0], [0.9, 0.8], ["ann", "bob"])
        >>> metric.update_state([0, 1], [0.1, 0.7], ["ann", "bob"])
        >>> round(metric.result(), 3)
        0.815

    Source: Järvelin and Kekäläinen, TOIS 2002; `keras_rs.metrics.NDCG`.
    """

    _metric = "NDCG"


class GroupMAP(_OfLists):
    """`mean_average_precision` of batches; kept as by `GroupAUC`.

    Args:
        k: How many of each list count. Defaults to `None`, all.

    Raises:
        ValueError: If `k` is not a positive integer.

    Example:
        >>> from tfmtl.metrics import GroupMAP
        >>> metric = GroupMAP()
        >>> metric.update_state([1, 0], [0.9, 0.8], ["ann", "bob"])
        >>> metric.update_state([0, 1], [0.1, 0.7], ["ann", "bob"])
        >>> metric.result()
        0.75

    Source: `keras_rs.metrics.MeanAveragePrecision`.
    """

    _metric = "MeanAveragePrecision"
