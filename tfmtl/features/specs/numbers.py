"""Columns of numbers: what is a value and what is missing."""

from collections.abc import Sequence

import numpy as np

LARGEST = float(np.finfo("f4").max)


def numbers(column: np.ndarray, missing: float | None = None) -> np.ndarray:
    """A column in float64, NaN where it is `missing` or not finite in float32."""
    values = np.asarray(column, "f8")
    values = np.where(np.abs(values) <= LARGEST, values, np.nan)
    if missing is None:
        return values
    return np.where(values.astype("f4") == np.float32(missing), np.nan, values)


def ascend(values: Sequence[float]) -> bool:
    """Whether each number is greater than the one before, and none is NaN."""
    return not np.isnan(values).any() and bool(np.all(np.diff(values) > 0))


def no_finite_value(name: str) -> ValueError:
    """The error for a column that nothing can be learned of."""
    return ValueError(
        f"Feature {name!r} should have a finite value in the data to adapt to. "
        "Received: none"
    )
