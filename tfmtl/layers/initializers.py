"""Initialisation: each sub-network, and each copy of a layer, draws its own weights."""

import random
from collections.abc import Callable, Sequence
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

    def initialize(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return ops.stack(
            [own(initializer, k)(shape[1:], dtype=dtype) for k in range(shape[0])]
        )

    return initialize


def side_by_side(initializer: Any, units: Sequence[int]) -> Callable[..., Tensor]:
    """An initializer of `(d, sum of units)` that draws each `(d, units)` on its own.

    Args:
        initializer: As for `stacked`.
        units: Width of each block.
    """

    def initialize(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return ops.concatenate(
            [
                own(initializer, k)((shape[0], width), dtype=dtype)
                for k, width in enumerate(units)
            ],
            axis=1,
        )

    return initialize


def own(initializer: Any, key: int | str) -> Any:
    """The copy of an initializer for one of several kernels, told apart by `key`."""
    initializer = keras.initializers.get(initializer)
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    # one without a seed draws no numbers; one with a generator draws anew each time
    if not isinstance(config.get("seed", ""), int | None):
        return initializer
    return type(initializer).from_config(reseeded(config, key))


def copy_of(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
    """A new layer with the configuration of another and weights of its own.

    Seeds in the configuration, of initialisers or dropout, are replaced by the copy's
    own, so that no two copies start alike.

    Args:
        layer: The layer to copy; it is left alone.
        name: Name of the copy, which decides its seeds.

    Raises:
        ValueError: If the layer cannot be made from its configuration.
    """
    try:
        config = reseeded(layer.get_config(), name)
        return type(layer).from_config({**config, "name": name})
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            "A layer to copy should be one that its configuration makes, with "
            "`get_config` and a constructor that takes `**kwargs`, since a copy is "
            f"made from it. Received: {layer.name!r} of class {type(layer).__name__}"
        ) from error


def reseeded(config: Any, key: int | str) -> Any:
    """A configuration with every seed in it replaced by one that `key` decides."""
    if isinstance(config, keras.initializers.Initializer):
        return own(config, key)
    if isinstance(config, (list, tuple)):
        return type(config)(reseeded(part, key) for part in config)
    if not isinstance(config, dict):
        return config
    return {
        # not seed + key, which a layer with the next seed would draw too
        name: random.Random(f"{part}/{key}").randrange(2**31)
        if name == "seed" and isinstance(part, int)
        else reseeded(part, key)
        for name, part in config.items()
    }
