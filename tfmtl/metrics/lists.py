"""Rows as one list per group, and the list metrics of keras-rs."""

import importlib
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from tfmtl.metrics.columns import Columns, labelled


class Lists(NamedTuple):
    """A padded list per group, each array `(groups, longest)`.

    Attributes:
        labels: Labels, 0 in the padding.
        scores: Scores, 0 in the padding.
        mask: Which entries are rows; the others are padding.

    Example:
        >>> from tfmtl.metrics import by_group
        >>> by_group([1, 0, 1], [0.5, 0.1, 0.9], ["b", "a", "b"]).mask.tolist()
        [[True, False], [True, True]]
    """

    labels: np.ndarray
    scores: np.ndarray
    mask: np.ndarray


def by_group(labels: Any, scores: Any, groups: Any) -> Lists:
    """Rows as one list per group, padded to the longest, for list metrics and losses.

    ```
    keras_rs.metrics.NDCG(k=10)({"labels": labels, "mask": mask}, scores)
    ```

    Lists are in the order of `np.unique(groups)`, rows within one in their own. Takes
    the memory of groups × longest, whatever the others' lengths.

    Args:
        labels: Relevance, `(rows,)` or `(rows, 1)`; rows of NaN are left out, and
            with them groups that have no other.
        scores: Any numbers; higher means earlier in the list.
        groups: Integers or strings.

    Returns:
        Labels, scores and mask, each `(groups, longest)`.

    Raises:
        ValueError: If lengths differ, a labelled row has no score, or groups are
            neither integers nor strings.

    Example:
        >>> from tfmtl.metrics import by_group
        >>> lists = by_group([1, 0, 1], [0.5, 0.1, 0.9], ["b", "a", "b"])
        >>> lists.scores.tolist()
        [[0.1, 0.0], [0.5, 0.9]]

    Source: `keras_rs.metrics.RankingMetric.update_state`, on masks.
    """
    return _padded(labelled(labels, scores, groups, None))


def _padded(columns: Columns) -> Lists:
    y, s, g, _ = columns
    _, row, lengths = np.unique(g, return_inverse=True, return_counts=True)
    order = np.argsort(row, kind="stable")
    row = row[order]
    column = np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]
    shape = (len(lengths), lengths.max(initial=0))
    padded = Lists(
        np.zeros(shape, y.dtype), np.zeros(shape, s.dtype), np.zeros(shape, bool)
    )
    for array, values in zip(padded, (y[order], s[order], True), strict=True):
        array[row, column] = values
    return padded


def ndcg(
    labels: Any,
    scores: Any,
    groups: Any,
    k: int | None = None,
    sample_weight: Any = None,
) -> float:
    """Normalised discounted cumulative gain of the first k of each group's list.

    ```
    DCG = sum_{r=1..k} (2^y_r - 1) / log2(1 + r)        y_r: label at rank r
    NDCG = sum_g w_g DCG_g / DCG_g of the best order / sum_g w_g
    w_g: mean weight of the rows of group g
    ```

    A group without a label above 0 counts as 0, as in keras-rs. Tied scores are put
    in a random order of a fixed seed.

    Args:
        labels: Relevance, at least 0; rows of NaN are left out.
        scores: Any numbers; higher means earlier in the list.
        groups: Integers or strings.
        k: How many of each list count. Defaults to `None`, all.
        sample_weight: Weights of the rows, as a rule the same within a group; rows of
            weight 0 are left out. Defaults to `None`, 1 each.

    Returns:
        The mean over groups, NaN without any.

    Raises:
        ImportError: If keras-rs is not installed.
        ValueError: If the columns do not fit, see `by_group`.

    Example:
        >>> from tfmtl.metrics import ndcg
        >>> users = ["ann", "ann", "bob", "bob"]
        >>> round(ndcg([1, 0, 0, 1], [0.9, 0.1, 0.8, 0.7], users, k=2), 3)
        0.815

    Source: Järvelin and Kekäläinen, TOIS 2002; `keras_rs.metrics.NDCG`.
    """
    return mean_over_lists("NDCG", labelled(labels, scores, groups, sample_weight), k)


def mean_average_precision(
    labels: Any,
    scores: Any,
    groups: Any,
    k: int | None = None,
    sample_weight: Any = None,
) -> float:
    """Mean average precision of the first k of each group's list.

    ```
    AP = sum_{r=1..k} [y_r >= 1] (positives up to rank r) / r / (positives of the list)
    MAP = sum_g w_g AP_g / sum_g w_g        w_g: mean weight of the rows of group g
    ```

    Divides by all positives of the list, also those beyond k. A group without a
    positive label counts as 0, as in keras-rs. Tied scores are put in a random order
    of a fixed seed.

    This is the MAP of recommendation, a list per user or request. It is not the MAP@10
    of the SNR paper: that is of a multi-label problem, YouTube-8M, and ranks the
    examples of each class, as with the class for a group; YouTube-8M's own code
    divides by k at most.

    Args:
        labels: 1 where relevant, else 0; rows of NaN are left out.
        scores: Any numbers; higher means earlier in the list.
        groups: Integers or strings.
        k: How many of each list count. Defaults to `None`, all.
        sample_weight: Weights of the rows, as a rule the same within a group; rows of
            weight 0 are left out. Defaults to `None`, 1 each.

    Returns:
        The mean over groups, NaN without any.

    Raises:
        ImportError: If keras-rs is not installed.
        ValueError: If the columns do not fit, see `by_group`.

    Example:
        >>> from tfmtl.metrics import mean_average_precision
        >>> users = ["ann", "ann", "bob", "bob"]
        >>> mean_average_precision([1, 0, 0, 1], [0.9, 0.1, 0.8, 0.7], users)
        0.75

    Source: `keras_rs.metrics.MeanAveragePrecision`; Ma et al., AAAI 2019 (SNR).
    """
    columns = labelled(labels, scores, groups, sample_weight)
    return mean_over_lists("MeanAveragePrecision", columns, k)


def mean_over_lists(name: str, columns: Columns, k: int | None) -> float:
    """Mean over groups of the metric of keras-rs of this name, by weight."""
    try:
        keras_rs = importlib.import_module("keras_rs")
    except ImportError as error:
        raise ImportError(
            "List metrics need keras-rs: `pip install keras-rs`."
        ) from error
    if not len(columns.labels):
        return float("nan")
    labels, scores, mask = _padded(columns)
    # By list, and averaged here: keras-rs gives a list without a positive label not
    # its own weight but the mean of the others'
    values, _ = getattr(keras_rs.metrics, name)(k=k, seed=0).compute_metric(
        y_true=ops.convert_to_tensor(labels, "float32"),
        y_pred=ops.convert_to_tensor(np.where(mask, scores, -np.inf), "float32"),
        mask=ops.convert_to_tensor(mask),
        sample_weight=ops.convert_to_tensor(mask, "float32"),
    )
    weights = None
    if columns.weights is not None:
        of_rows = _padded(columns._replace(labels=columns.weights)).labels
        weights = of_rows.sum(axis=1) / mask.sum(axis=1)
    return float(np.average(ops.convert_to_numpy(values)[:, 0], weights=weights))
