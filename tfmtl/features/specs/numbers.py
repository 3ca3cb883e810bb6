"""Columns of numbers: what is a value and what is missing."""

import numpy as np

LARGEST = float(np.finfo("f4").max)


def numbers(column: np.ndarray) -> np.ndarray:
    """A column in float64, NaN where it is no finite number in float32."""
    values = np.asarray(column, "f8")
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


def no_finite_value(name: str) -> ValueError:
    """The error for a column that nothing can be learned of."""
    return ValueError(
        f"Feature {name!r} should have a finite value in the data to adapt to. "
        "Received: none"
    )
