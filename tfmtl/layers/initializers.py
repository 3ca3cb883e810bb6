"""Initialisation of stacked kernels: each sub-network draws its own weights."""

import random
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Tensor = Any


def stacked(initializer: Any) -> Callable[..., Tensor]:
    """An initializer of `(n, ...)` that draws each of the n entries on its own.

    One draw of the whole stack would see the wrong fan-in and fan-out, and one
    seeded Keras initializer gives the same values at every call. So entry k is
    drawn by a copy of `initializer` with a seed of its own. An initializer with a
    `SeedGenerator` draws anew at every call and needs no copy.

    Args:
        initializer: A Keras initializer, its name, or a function of
            `(shape, dtype)`.
    """
    initializer = keras.initializers.get(initializer)

    def initialize(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return ops.stack(
            [_copy(initializer, k)(shape[1:], dtype=dtype) for k in range(shape[0])]
        )

    return initialize


def _copy(initializer: Any, k: int) -> Any:
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    seed = config.get("seed")
    if isinstance(seed, int):
        # not seed + k, which the stack with the next seed would draw too
        config["seed"] = random.Random(f"{seed}/{k}").randrange(2**31)
    elif seed is not None:
        return initializer
    return type(initializer).from_config(config)
