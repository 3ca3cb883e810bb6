"""How well two versions predict the same labels."""

from dataclasses import dataclass

import numpy as np

from tfmtl.serving.pair import UNDEFINED, Pair
from tfmtl.serving.score_drift import ranks


@dataclass(frozen=True)
class Quality:
    """How well two versions predict the labels of the same rows.

    Args:
        labelled: The rows with a label.
        positives: Those of label 1, where all labels are 0 or 1; else `None`.
        auc: The area under the ROC curve; undefined for labels that are not 0 or 1,
            and where one of the classes is absent.
        auc_error: The standard error of its change; `None` where there are fewer than
            two labels of a class.
        calibration: Sum of the scores / sum of the labels; undefined where the labels
            sum to 0, or scores or labels are negative or no probabilities.
        log_loss: The mean cross-entropy of 0 and 1 from probabilities, clipped to
            [1e-7, 1 - 1e-7]; undefined for others.
        rmse: The root mean squared error; undefined for labels of 0 and 1.
    """

    labelled: int
    positives: int | None
    auc: Pair
    auc_error: float | None
    calibration: Pair
    log_loss: Pair
    rmse: Pair

    @property
    def loss(self) -> Pair:
        """The log loss, else the RMSE."""
        return self.rmse if self.log_loss == UNDEFINED else self.log_loss


def quality(labels: np.ndarray, old: np.ndarray, new: np.ndarray) -> Quality:
    """Compares two versions' scores with labels.

    What the labels are tells what is computed: 0 and 1 have an AUC and, if all scores
    are within [0, 1], calibration and log loss; other numbers have an RMSE and, if
    nothing is negative, calibration.

    Args:
        labels: Numbers, `(rows,)`, one or more, none missing.
        old: The old version's scores, `(rows,)`, finite.
        new: The new version's.

    Returns:
        The qualities.

    Example:
        >>> import numpy as np
        >>> from tfmtl.serving.quality import quality
        >>> labels = np.array([0, 0, 1, 1])
        >>> old, new = np.array([0.1, 0.2, 0.6, 0.7]), np.array([0.1, 0.8, 0.6, 0.9])
        >>> found = quality(labels, old, new)
        >>> found.auc, round(found.calibration.new, 3)
        (Pair(old=1.0, new=0.75), 1.2)
    """
    labels, old, new = (np.asarray(values, "f8") for values in (labels, old, new))
    auc, error = UNDEFINED, None
    calibration = log_loss = rmse = UNDEFINED
    binary = bool(np.isin(labels, (0, 1)).all())
    positives = int(labels.sum()) if binary else None
    if positives is not None and 0 < positives < len(labels):
        auc, error = _auc(labels == 1, old, new)
    lowest = min(values.min() for values in (labels, old, new))
    highest = max(old.max(), new.max())
    if lowest >= 0 and (highest <= 1 or not binary) and labels.sum() > 0:
        observed = labels.sum()
        calibration = Pair(float(old.sum() / observed), float(new.sum() / observed))
    if not binary:
        rmse = Pair(_rmse(labels, old), _rmse(labels, new))
    elif lowest >= 0 and highest <= 1:
        log_loss = Pair(_log_loss(labels, old), _log_loss(labels, new))
    return Quality(len(labels), positives, auc, error, calibration, log_loss, rmse)


def _auc(
    positive: np.ndarray, old: np.ndarray, new: np.ndarray
) -> tuple[Pair, float | None]:
    """Both areas, and the standard error of their difference.

    ```
    V10_i = share of negatives below positive i,  V01_j = share of positives above j
    AUC = mean V10,  error^2 = var(change of V10) / positives + var(… V01) / negatives
    ```

    Source: DeLong et al., Biometrics 1988; Sun and Xu, IEEE SPL 2014, for the ranks.
    """
    (old10, old01), (new10, new01) = (_placements(positive, s) for s in (old, new))
    error = None
    if min(len(old10), len(old01)) > 1:
        parts = (
            np.var(b - a, ddof=1) / len(a) for a, b in ((old10, new10), (old01, new01))
        )
        error = float(np.sqrt(sum(parts)))
    return Pair(float(old10.mean()), float(new10.mean())), error


def _placements(
    positive: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    among_all = ranks(scores)
    above, below = among_all[positive], among_all[~positive]
    return (
        (above - ranks(scores[positive])) / len(below),
        1 - (below - ranks(scores[~positive])) / len(above),
    )


def _log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(labels == 1, np.log(p), np.log1p(-p))))


def _rmse(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(np.sqrt(np.mean((scores - labels) ** 2)))
