"""Checks of layer arguments, with errors that say what was expected and came."""

from typing import Any


def positive_int(name: str, value: Any) -> int:
    """Returns `value` where it is a positive integer, else raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"`{name}` should be a positive integer. Received: {name}={value!r}"
        )
    return value


def known_slots(layer: str, shape: tuple[Any, ...]) -> tuple[int, int]:
    """The number of slots and their width of a `(batch, slots, width)` shape."""
    if len(shape) != 3 or shape[1] is None or shape[2] is None:
        raise ValueError(
            f"{layer} should be called on a tensor of shape (batch, slots, width) "
            f"with known slots and width. Received: shape={tuple(shape)}"
        )
    return shape[1], shape[2]
