"""Checks of layer arguments, with errors that say what was expected and came."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


def positive_int(name: str, value: Any) -> int:
    """Returns `value` where it is a positive integer, else raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(
            f"`{name}` should be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


def entries(value: Any) -> list[Any] | None:
    """The entries of a list or the like; `None` of a single value, as a string is."""
    if isinstance(value, str):
        return None
    try:
        return list(value)
    except TypeError:
        return None


def widths(name: str, value: Any) -> tuple[int, ...]:
    """Returns one width or several as a tuple of positive integers."""
    several = entries(value)
    found = [value] if several is None else several
    return tuple(positive_int(name, width) for width in found)


def some_widths(name: str, value: Any) -> tuple[int, ...]:
    """As `widths`, of which there should be one or more."""
    found = widths(name, value)
    if not found:
        raise ValueError(
            f"`{name}` should be one or more widths. Received: {name}={value!r}"
        )
    return found


def mapping(name: str, value: Any, taken: Sequence[str] = ()) -> dict[str, Any]:
    """Returns a copy of arguments by name, none of them `taken`; of `None`, none.

    Raises:
        ValueError: If `value` is no dict, or says what is said elsewhere.
    """
    given = {} if value is None else value
    if not isinstance(given, Mapping) or set(given) & set(taken):
        but = f", without {', '.join(taken)}, which are set already" if taken else ""
        raise ValueError(
            f"`{name}` should be a dict of arguments{but}. Received: {name}={value!r}"
        )
    return dict(given)


def number(value: Any) -> float:
    """Returns a number; for anything else NaN, for which no comparison holds."""
    return float(value) if isinstance(value, Real) else math.nan


def share(name: str, value: Any) -> float:
    """Returns `value` where it is in [0, 1), else raises `ValueError`."""
    if not 0 <= number(value) < 1:
        raise ValueError(
            f"`{name}` should be at least 0 and less than 1. Received: {name}={value!r}"
        )
    return float(value)


def known_width(layer: str, shape: tuple[Any, ...]) -> int:
    """The width of a `(batch, …, width)` shape, of one tensor."""
    several = any(isinstance(size, list | tuple) for size in shape)
    if several or len(shape) < 2 or shape[-1] is None:
        received = [tuple(one) for one in shape] if several else tuple(shape)
        raise ValueError(
            f"{layer} should be called on one tensor of known width. "
            f"Received: shape={received}"
        )
    return int(shape[-1])


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


def booleans(name: str, value: Any, rows: int, columns: int | None) -> np.ndarray:
    """Returns `value` as a matrix of booleans, of any width where `columns` is `None`.

    Raises:
        ValueError: If the shape is another.
    """
    try:
        matrix = np.asarray(value, bool)
    except ValueError:  # rows of unlike lengths
        matrix = np.asarray(False)
    width = matrix.shape[-1:] if columns is None else (columns,)
    if matrix.shape != (rows, *width):
        raise ValueError(
            f"`{name}` should be booleans of shape {(rows, columns)}. "
            f"Received: {name}={value!r}"
        )
    return matrix


def pairs(reads: Any, num_outputs: int, num_inputs: int) -> np.ndarray:
    """Which inputs each output reads, as booleans; all where `reads` is `None`.

    Raises:
        ValueError: If the shape does not fit, or an output reads nothing.
    """
    if reads is None:
        return np.ones((num_outputs, num_inputs), bool)
    matrix = booleans("reads", reads, num_outputs, num_inputs)
    if not matrix.any(axis=1).all():
        raise ValueError(
            f"`reads` should have a true one in every row. Received: reads={reads!r}"
        )
    return matrix
