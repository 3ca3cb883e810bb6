"""Dense layers inside another, as Keras' `quantize` and `enable_lora` leave them."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

_QUANTIZED = ("dtype", "quantization_config")
_LORA = ("lora_rank", "lora_alpha")


def is_plain(layer: keras.layers.Dense) -> bool:
    """Whether a layer is neither quantised nor adapted by LoRA."""
    return layer.quantization_mode is None and not layer.lora_enabled


def adapted(layers: Sequence[keras.layers.Dense]) -> dict[str, Any]:
    """What was made of layers after they were built, serialisable.

    Args:
        layers: Layers of different names.

    Returns:
        A part of the configuration of each one that is not plain, by name.

    Example:
        >>> import keras
        >>> from tfmtl.layers.adapted import adapted
        >>> layer = keras.layers.Dense(3, name="head")
        >>> layer.build((None, 4))
        >>> layer.enable_lora(2)
        >>> adapted([layer])
        {'head': {'lora_rank': 2, 'lora_alpha': 2}}
    """
    found = {}
    for layer in layers:
        config = layer.get_config()
        keys = [*(_QUANTIZED if layer.quantization_mode else ())]
        keys += _LORA if layer.lora_enabled else ()
        if keys:
            found[layer.name] = {key: config[key] for key in keys}
    return found


def adapt(layers: Sequence[keras.layers.Dense], given: Mapping[str, Any]) -> None:
    """Makes layers that are not built yet what `adapted` says of their like."""
    for layer in layers:
        config = given.get(layer.name, {})
        if "dtype" in config:
            layer.dtype_policy = keras.dtype_policies.get(config["dtype"])
            layer.quantization_config = keras.saving.deserialize_keras_object(
                config["quantization_config"]
            )
        for key in _LORA:
            if key in config:
                setattr(layer, key, config[key])


def build(layer: keras.layers.Layer, input_shape: Any) -> None:
    """Builds a layer; one of LoRA keeps its `lora_alpha`, where Keras takes the rank.

    Args:
        layer: A layer, adapted or not.
        input_shape: Shape of its input.
    """
    alpha = getattr(layer, "lora_alpha", None)
    layer.build(input_shape)
    if alpha is not None:
        layer.lora_alpha = alpha
