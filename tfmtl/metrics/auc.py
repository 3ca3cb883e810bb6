"""The exact area under the ROC curve, of all rows or within groups."""

from typing import Any

import numpy as np

from tfmtl.metrics.columns import Columns, binary, labelled, numbered


def auc(labels: Any, scores: Any, sample_weight: Any = None) -> float:
    """Share of pairs of a positive and a negative row in the right order.

    ```
    AUC = sum_ij w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / sum_ij w_i w_j
    i positive, j negative
    ```

    Args:
        labels: 0 or 1, `(rows,)` or `(rows, 1)`; rows of NaN are left out.
        scores: Any numbers; higher means more likely.
        sample_weight: Weights of the rows. Defaults to `None`, 1 each.

    Returns:
        The area, NaN where one of the classes is absent.

    Raises:
        ValueError: If lengths differ, a label is neither 0, 1 nor NaN, or a labelled
            row has no score.

    Example:
        >>> from tfmtl.metrics import auc
        >>> auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
        0.875

    Source: Hanley and McNeil, Radiology 1982.
    """
    return mean_auc(binary(labelled(labels, scores, None, sample_weight)))


def group_auc(
    labels: Any, scores: Any, groups: Any, sample_weight: Any = None
) -> float:
    """GAUC: the AUC within each group, averaged by the groups' impressions.

    ```
    GAUC = sum_g w_g AUC_g / sum_g w_g        w_g = sum of the weights of group g
    ```

    A group is a user or a request: only order within it matters to what it is shown.
    Groups without both classes are left out.

    Args:
        labels: 0 or 1, `(rows,)` or `(rows, 1)`; rows of NaN are left out.
        scores: Any numbers; higher means more likely.
        groups: Integers or strings.
        sample_weight: Weights of the rows. Defaults to `None`, 1 each: a group's
            weight is its number of rows.

    Returns:
        The mean area, NaN where no group has both classes.

    Raises:
        ValueError: If lengths differ, a label is neither 0, 1 nor NaN, a labelled row
            has no score, or groups are neither integers nor strings.

    Example:
        >>> from tfmtl.metrics import group_auc
        >>> users = ["ann", "ann", "bob", "bob", "bob", "cid"]
        >>> group_auc([0, 1, 0, 1, 1, 1], [0.1, 0.2, 0.8, 0.7, 0.9, 0.5], users)
        0.7

    Source: Zhu et al., KDD 2017, and Zhou et al., KDD 2018 (DIN).
    """
    return mean_auc(binary(labelled(labels, scores, groups, sample_weight)))


def mean_auc(columns: Columns) -> float:
    """Mean over groups of their AUC, by weight; all groups in one sort."""
    positive, s, groups, w = columns
    if not len(s):
        return float("nan")
    if groups.dtype.kind not in "iu":
        groups = numbered(groups, {})
    order = np.lexsort((s, groups))
    positive, s, groups = positive[order], s[order], groups[order]
    w = np.ones(len(s)) if w is None else w[order]

    # Ties: runs of one group and one score. Their weight by class, and their group
    new_group = np.concatenate([[True], groups[1:] != groups[:-1]])
    new_run = np.concatenate([[True], s[1:] != s[:-1]]) | new_group
    runs = np.flatnonzero(new_run)
    p = np.add.reduceat(np.where(positive, w, 0.0), runs)
    n = np.add.reduceat(np.where(positive, 0.0, w), runs)
    group = np.cumsum(new_group)[runs] - 1

    group_p, group_n = np.bincount(group, p), np.bincount(group, n)
    earlier_groups = np.cumsum(group_n) - group_n
    below = np.cumsum(n) - n - earlier_groups[group]
    in_order = np.bincount(group, p * (below + n / 2))

    both = (group_p > 0) & (group_n > 0)
    if not both.any():
        return float("nan")
    areas = in_order[both] / (group_p[both] * group_n[both])
    return float(np.average(areas, weights=(group_p + group_n)[both]))
