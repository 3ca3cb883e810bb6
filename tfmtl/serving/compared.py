"""One output of two versions, compared on the same rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfmtl.serving.quality import Quality, quality
from tfmtl.serving.score_drift import Drift, drift
from tfmtl.serving.thresholds import Thresholds


@dataclass(frozen=True)
class Compared:
    """One output of both versions; of an output of several columns, one of them.

    Args:
        output: The output.
        not_finite: The scores that are NaN or infinite, of the old version and of the
            new one. Their rows are left out of all else.
        drift: What changed in the scores; `None` if no row has finite ones.
        quality: How well the labels are predicted; `None` where none is known.
    """

    output: str
    not_finite: tuple[int, int]
    drift: Drift | None
    quality: Quality | None

    def failures(self, limits: Thresholds) -> Iterator[str]:
        """What is beyond a limit, a sentence each, and more scores that are not finite.

        Args:
            limits: The limits.
        """
        old, new = self.not_finite
        if new > old:
            yield f"{new:,} scores are NaN or infinite, {old:,} of the old version"
        if self.drift is not None:
            yield from limits.failures(self.quality, self.drift)


def compare_columns(
    output: str,
    old: np.ndarray,
    new: np.ndarray,
    labels: np.ndarray | None,
    classes: bool,
) -> dict[str, Compared]:
    """Compares an output, each of its columns by itself.

    Args:
        output: Its name.
        old: The old version's scores, `(rows, width)`.
        new: The new version's.
        labels: `(rows, width)`, NaN where missing; or `(rows, 1)`, of which each
            column gets its own; `None` for none.
        classes: Whether such a label is a class, [y = k], and not a level, [y > k].

    Returns:
        By the output's name, and the column's number where there are several.

    Raises:
        ValueError: If the labels do not fit.

    Example:
        `compare_columns("click", old, new, None, False)["click"].drift.psi`
    """
    rows, width = old.shape
    known = _labels(output, labels, rows, width, classes)
    return {
        output if width == 1 else f"{output}[{k}]": _compared(
            output, old[:, k], new[:, k], known[:, k]
        )
        for k in range(width)
    }


def _labels(
    name: str, labels: np.ndarray | None, rows: int, width: int, classes: bool
) -> np.ndarray:
    """A label of each column, `(rows, width)`."""
    if labels is None:
        return np.broadcast_to(np.float32(np.nan), (rows, width))
    if labels.shape[1] == width:
        return labels
    if labels.shape[1] != 1:
        raise ValueError(
            f"Labels of {name!r} should be in one column, or in the output's {width}. "
            f"Received: shape={labels.shape}"
        )
    last = width - 1 if classes else width
    other = labels[~np.isnan(labels) & ~np.isin(labels, np.arange(last + 1))]
    if other.size:
        raise ValueError(
            f"Labels of {name!r} should be 0 to {last}, or one for each of its {width} "
            f"columns. Received: {other[0]:g}"
        )
    k = np.arange(width)
    of_columns = (labels == k if classes else labels > k).astype(np.float32)
    return np.where(np.isnan(labels), np.float32(np.nan), of_columns)


def _compared(
    output: str, old: np.ndarray, new: np.ndarray, labels: np.ndarray
) -> Compared:
    finite = np.isfinite(old) & np.isfinite(new)
    known = finite & ~np.isnan(labels)
    return Compared(
        output,
        (int(np.sum(~np.isfinite(old))), int(np.sum(~np.isfinite(new)))),
        drift(old[finite], new[finite]) if finite.any() else None,
        quality(labels[known], old[known], new[known]) if known.any() else None,
    )
