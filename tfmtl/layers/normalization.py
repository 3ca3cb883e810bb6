"""Normalisation inside experts and towers, by stock Keras layers."""

from typing import Any

import keras

_KINDS = (None, "batch", "layer")


def check_normalization(kind: str | None) -> str | None:
    """Returns `kind` where it is `None`, "batch" or "layer", else raises."""
    if kind not in _KINDS:
        raise ValueError(
            f"`normalization` should be one of {_KINDS}. "
            f"Received: normalization={kind!r}"
        )
    return kind


def normalization(kind: str, **kwargs: Any) -> keras.layers.Layer:
    """A layer of the kind."""
    if kind == "batch":
        return keras.layers.BatchNormalization(**kwargs)
    return keras.layers.LayerNormalization(**kwargs)
