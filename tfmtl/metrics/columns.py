"""Columns of labels, scores, groups and weights as checked NumPy arrays."""

from typing import Any, NamedTuple

import numpy as np


class Columns(NamedTuple):
    """What is known of each row that has a label and a weight above 0."""

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    weights: np.ndarray | None


def labelled(labels: Any, scores: Any, groups: Any, sample_weight: Any) -> Columns:
    """The rows whose label is not NaN and whose weight is not 0.

    Args:
        labels: Numbers of shape `(rows,)` or `(rows, 1)`.
        scores: The same.
        groups: The same, integers or strings; `None` for a single group.
        sample_weight: The same, at least 0; `None` for 1 each.

    Raises:
        ValueError: If lengths differ, or what a column holds does not fit.
    """
    y, s = _flat(labels, np.float32), _flat(scores)
    s = s if s.dtype.kind in "fiu" else s.astype(np.float64)
    g = np.zeros(len(y), np.int8) if groups is None else _flat(groups)
    w = None if sample_weight is None else _flat(sample_weight, np.float64)
    lengths = {"labels": len(y), "scores": len(s), "groups": len(g)}
    lengths |= {} if w is None else {"sample_weight": len(w)}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"Columns should have one entry per row. Received: lengths={lengths}"
        )
    if g.dtype.kind not in "iuOSTU":
        raise ValueError(
            f"`groups` should be integers or strings. Received: dtype={g.dtype}"
        )
    kept = ~np.isnan(y)
    if w is not None:
        if not (np.isfinite(w) & (w >= 0)).all():
            raise ValueError(
                "`sample_weight` should be finite and at least 0. "
                f"Received: sample_weight={sample_weight!r}"
            )
        kept &= w > 0
    if not kept.all():
        y, s, g, w = y[kept], s[kept], g[kept], None if w is None else w[kept]
    if np.isnan(s).any():
        raise ValueError(
            "`scores` should be numbers wherever there is a label. "
            f"Received: {np.isnan(s).sum()} times NaN"
        )
    return Columns(y, s, g, w)


def binary(columns: Columns) -> Columns:
    """The columns, their labels as booleans.

    Raises:
        ValueError: If a label is neither 0 nor 1.
    """
    positive = columns.labels == 1
    other = columns.labels[~positive & (columns.labels != 0)]
    if other.size:
        raise ValueError(
            "`labels` should be 0 or 1, or NaN where missing. "
            f"Received: labels={np.unique(other)[:5].tolist()}"
        )
    return columns._replace(labels=positive)


def numbered(names: np.ndarray, known: dict[Any, int]) -> np.ndarray:
    """The number of each row's name; `known` gets those that are new to it."""
    numbers = (known.setdefault(name, len(known)) for name in names.tolist())
    return np.fromiter(numbers, np.int64, len(names))


def _flat(values: Any, dtype: Any = None) -> np.ndarray:
    array = np.asarray(values, dtype)
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise ValueError(
            "Columns should have shape (rows,) or (rows, 1). "
            f"Received: shape={array.shape}"
        )
    return array.reshape(-1)
