"""Normalisation inside experts and towers, by stock Keras layers."""

from typing import Any

import keras
import numpy as np
from keras import ops

_KINDS = (None, "batch", "layer")
NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)
PRECISE = ("float32", "float64")
# Beyond, x s + t loses more digits of float32 than (x - mean) s does.
_LARGEST_MEAN = 32.0  # in standard deviations


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


def as_affine(layer: Any, kernel: Any = None) -> tuple[np.ndarray, np.ndarray] | None:
    """What a batch normalisation does in inference, as scale and shift.

    ```
    y = x s + t,   s = gamma / sqrt(variance + epsilon),   t = beta - mean s
    ```

    Args:
        layer: A built layer.
        kernel: The weight that should take it in, if it is known.

    Returns:
        `(s, t)` in float64, or `None` where a kernel should not take it in: it is no
        batch normalisation, computes in less than float32, subtracts means of so
        many standard deviations that rounding would show, or one is frozen and the
        other trained.
    """
    if type(layer) is not keras.layers.BatchNormalization:
        return None
    mean, variance = (
        ops.convert_to_numpy(moving).astype("f8")
        for moving in (layer.moving_mean, layer.moving_variance)
    )
    deviation = np.sqrt(variance + layer.epsilon)
    large = np.abs(mean / deviation).max() > _LARGEST_MEAN
    own = [weight for weight in (layer.gamma, layer.beta) if weight is not None]
    unlike = kernel is not None and any(w.trainable != kernel.trainable for w in own)
    if large or unlike or layer.dtype_policy.name not in PRECISE:
        return None
    gamma, beta = (
        none if weight is None else ops.convert_to_numpy(weight).astype("f8")
        for weight, none in ((layer.gamma, 1.0), (layer.beta, 0.0))
    )
    scale = gamma / deviation
    return scale, beta - mean * scale
