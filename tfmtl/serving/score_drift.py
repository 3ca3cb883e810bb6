"""How far the scores of a new version are from the old one's, row by row."""

from dataclasses import dataclass

import numpy as np

from tfmtl.serving.pair import Pair

DECILES = np.arange(1, 10) / 10


@dataclass(frozen=True)
class Drift:
    """What changed in the scores of the same rows.

    Args:
        mean: The mean score, old and new.
        mean_difference: The mean of |new - old| over the rows.
        max_difference: The largest of them.
        psi: Population stability index over deciles of the old scores, see
            `stability_index`.
        rank_correlation: Spearman's correlation between the orders of the rows.
    """

    mean: Pair
    mean_difference: float
    max_difference: float
    psi: float
    rank_correlation: float


def drift(old: np.ndarray, new: np.ndarray) -> Drift:
    """Compares two versions' scores of the same rows.

    For PSI and rank correlation a score that is the old one up to rounding, 1e-5 of
    it, is the old one: rounding would order rows at random that had one score.

    Args:
        old: The old version's scores, `(rows,)`, finite, of one row or more.
        new: The new version's.

    Returns:
        The drift.

    Example:
        >>> import numpy as np
        >>> from tfmtl.serving.score_drift import drift
        >>> drift(np.array([0.25, 0.5, 0.75]), np.array([0.25, 1.0, 0.75])).mean.new
        0.6666666666666666
    """
    old, new = np.asarray(old, "f8"), np.asarray(new, "f8")
    differences = np.abs(new - old)
    rounded = np.where(np.isclose(new, old), old, new)
    return Drift(
        Pair(float(old.mean()), float(new.mean())),
        float(differences.mean()),
        float(differences.max()),
        stability_index(old, rounded),
        rank_correlation(old, rounded),
    )


def stability_index(old: np.ndarray, new: np.ndarray) -> float:
    """PSI: how differently two sets of scores fill the deciles of the first.

    ```
    PSI = sum_k (q_k - p_k) log(q_k / p_k)
    p_k = (old scores in bin k + 1/2) / (old scores + bins / 2),  q_k of the new ones
    bins: (-inf, d_1], (d_1, d_2], …, (d_9, inf),  d_k deciles of the old scores
    ```

    Equal deciles are one. Below 0.1 is taken for stable, above 0.25 for another
    population; the half keeps a bin without scores finite.

    Args:
        old: Numbers, at least one.
        new: Numbers, at least one.

    Returns:
        The index, 0 or more.

    Example:
        >>> import numpy as np
        >>> from tfmtl.serving.score_drift import stability_index
        >>> old = np.arange(100)
        >>> stability_index(old, old), round(stability_index(old, old + 10), 3)
        (0.0, 0.354)

    Source: Yurdakul, "Statistical Properties of Population Stability Index", 2018.
    """
    edges = np.unique(np.quantile(old, DECILES, method="inverted_cdf"))
    p, q = (_shares(scores, edges) for scores in (old, new))
    return float(np.sum((q - p) * np.log(q / p)))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation; equal values share the mean of their ranks.

    Args:
        first: Numbers, `(rows,)`.
        second: Numbers, `(rows,)`.

    Returns:
        The correlation. Where all numbers of one are equal it is 0, or 1 if those of
        the other are too.

    Example:
        >>> import numpy as np
        >>> from tfmtl.serving.score_drift import rank_correlation
        >>> round(rank_correlation(np.array([1, 2, 3]), np.array([10, 30, 20])), 6)
        0.5
    """
    a, b = ranks(first), ranks(second)
    if np.array_equal(a, b):
        return 1.0
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _shares(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    bins = len(edges) + 1
    counts = np.bincount(np.searchsorted(edges, scores), minlength=bins)
    return (counts + 0.5) / (len(scores) + bins / 2)
