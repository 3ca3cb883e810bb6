"""Checks of layer arguments, with errors that say what was expected and came."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np


def positive_int(name: str, value: Any) -> int:
    """Returns `value` where it is a positive integer, else raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(
            f"`{name}` should be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


def widths(name: str, value: Any) -> tuple[int, ...]:
    """Returns one width or several as a tuple of positive integers."""
    several = value if isinstance(value, Iterable) else (value,)
    return tuple(positive_int(name, width) for width in several)


def mapping(name: str, value: Any) -> dict[str, Any]:
    """Returns a copy of `value` where it holds arguments by name."""
    if not isinstance(value, Mapping):
        raise ValueError(
            f"`{name}` should be a dict of arguments. Received: {name}={value!r}"
        )
    return dict(value)


def share(name: str, value: float) -> float:
    """Returns `value` where it is in [0, 1), else raises `ValueError`."""
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` should be at least 0 and less than 1. Received: {name}={value!r}"
        )
    return float(value)


def known_slots(layer: str, shape: tuple[Any, ...]) -> tuple[int, int]:
    """The number of slots and their width of a `(batch, slots, width)` shape."""
    if len(shape) != 3 or shape[1] is None or shape[2] is None:
        raise ValueError(
            f"{layer} should be called on a tensor of shape (batch, slots, width) "
            f"with known slots and width. Received: shape={tuple(shape)}"
        )
    return shape[1], shape[2]


def known_selector(layer: str, num_outputs: int, shape: tuple[Any, ...]) -> None:
    """Raises unless a gate's selector is `(batch, d)`, or has a slot per output."""
    known = len(shape) in (2, 3) and None not in shape[1:]
    if not known or len(shape) == 3 and shape[1] < num_outputs:
        raise ValueError(
            f"{layer} should be called on a selector of shape (batch, d), or of shape "
            f"(batch, {num_outputs} or more, d) with one for each output. "
            f"Received: shape={tuple(shape)}"
        )


def pairs(reads: Any, num_outputs: int, num_inputs: int) -> np.ndarray:
    """Which inputs each output reads, as booleans; all where `reads` is `None`.

    Raises:
        ValueError: If the shape does not fit, or an output reads nothing.
    """
    if reads is None:
        return np.ones((num_outputs, num_inputs), bool)
    fits = [len(row) for row in reads] == [num_inputs] * num_outputs
    matrix = np.asarray(reads, bool) if fits else None
    if matrix is None or not matrix.any(axis=1).all():
        raise ValueError(
            f"`reads` should be booleans of shape {(num_outputs, num_inputs)}, with a "
            f"true one in every row. Received: reads={reads!r}"
        )
    return matrix
