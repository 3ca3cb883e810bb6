"""How often each value of a column occurs."""

import math
from collections import Counter
from typing import Any

import numpy as np

Value = str | int


class Counts:
    """Counts values; memory grows with the number of distinct ones.

    Args:
        name: Name of the column or table, for errors.
        kind: `str` or `int`.
    """

    def __init__(self, name: str, kind: type[Any]) -> None:
        self._name = name
        self._kind = kind
        self._counts: Counter[Any] = Counter()

    def update(self, values: np.ndarray) -> None:
        """Adds values of any shape."""
        self._counts.update(values.ravel().tolist())

    def vocabulary(self, min_count: int, max_size: int | None) -> tuple[Value, ...]:
        """Values that occur often enough, most frequent first, then in order.

        Args:
            min_count: How often a value must occur.
            max_size: How many to give at most.

        Raises:
            ValueError: If no value occurs `min_count` times.
        """
        kept = self.frequent(min_count)
        if not kept:
            raise ValueError(
                f"Feature {self._name!r} should have a value that occurs at least "
                f"{min_count} time(s) in the data to adapt to. Received: none"
            )
        return tuple(kept[:max_size])

    def frequent(self, min_count: int) -> list[Value]:
        """Values that occur often enough, most frequent first; missing ones do not."""
        counts: Counter[Value] = Counter()
        for value, count in self._counts.items():
            counts[plain(self._name, self._kind, value)] += count
        kept = [
            value
            for value, count in counts.items()
            if count >= min_count and not is_missing(value)
        ]
        return sorted(kept, key=lambda value: (-counts[value], value))


def plain(name: str, kind: type[Any], value: Any) -> Any:
    """A value of a column as `kind`, text in UTF-8 decoded, "" for no string.

    Args:
        name: Name of the column or table, for errors.
        kind: `str` or `int`.
        value: The value.

    Raises:
        ValueError: If the value is none of the kind.
    """
    if isinstance(value, bytes) and kind is str:
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Column {name!r} should hold text in UTF-8. Received: {value!r}"
            ) from error
    if kind is str and _is_none(value):
        return ""
    if not isinstance(value, kind):
        raise ValueError(
            f"Column {name!r} should hold values of type {kind.__name__}. "
            f"Received: {value!r}"
        )
    return value


def _is_none(value: Any) -> bool:
    """Whether an object stands for no string: `None`, or NaN as in pandas."""
    return value is None or isinstance(value, float) and math.isnan(value)


def is_missing(value: Value) -> bool:
    """Whether a value says that there is none: "" or a negative id."""
    return value == "" if isinstance(value, str) else value < 0
