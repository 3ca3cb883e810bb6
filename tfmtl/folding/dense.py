"""Keras' own Dense and BatchNormalization as linear maps."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers import adapted
from tfmtl.layers.normalization import as_affine

_linear = keras.activations.linear


class OfDense:
    """A Dense layer, which can take in linear maps on either side.

    Args:
        layer: A built layer.
    """

    def __init__(self, layer: keras.layers.Dense) -> None:
        self._layer = layer
        self._kernel = ops.convert_to_numpy(layer.kernel)
        self._bias = np.zeros(self._kernel.shape[1])
        if layer.bias is not None:
            self._bias = ops.convert_to_numpy(layer.bias)

    def behind(self, kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer:
        """As of a `KernelLayer`."""
        bias = bias @ self._kernel + self._bias
        return self._remade(kernel @ self._kernel, bias, self._layer.activation)

    def opening(self) -> tuple[Any, ...]:
        """As of an `OpeningLayer`."""
        kernels, biases = self._kernel[None], self._bias[None]
        return None, kernels, biases, self._layer.activation, None

    def before(
        self, slots: list[int], kernels: np.ndarray, biases: np.ndarray, activation: Any
    ) -> keras.layers.Layer | None:
        """As of a `LinearLayer`; of a single kernel, for each slot alike."""
        if self._layer.activation is not _linear or len(kernels) > 1:
            return None
        bias = self._bias @ kernels[0] + biases[0]
        return self._remade(self._kernel @ kernels[0], bias, activation)

    def _remade(
        self, kernel: np.ndarray, bias: np.ndarray, activation: Any
    ) -> keras.layers.Dense:
        use_bias = self._layer.use_bias or bool(bias.any())
        config = {"units": kernel.shape[1], "use_bias": use_bias}
        layer = keras.layers.Dense.from_config({**self._layer.get_config(), **config})
        layer.activation = activation
        layer.build((None, kernel.shape[0]))
        layer.set_weights([kernel, *([bias] if use_bias else [])])
        trainable = self._layer.kernel.trainable
        for weight in layer.weights:
            weight.trainable = trainable
        return layer


class OfBatchNormalization:
    """A batch normalisation of the last axis: a diagonal kernel and a bias.

    Args:
        layer: A built layer.
    """

    def __init__(self, layer: keras.layers.BatchNormalization) -> None:
        self._layer = layer

    def opening(self) -> tuple[Any, ...] | None:
        """As of an `OpeningLayer`."""
        affine = as_affine(self._layer)
        if affine is None:
            return None
        width = self._layer.moving_mean.shape[0]
        scale, shift = (np.broadcast_to(part, width) for part in affine)
        return None, np.diag(scale)[None], shift[None], _linear, None


def as_linear(operation: Any, rank: int) -> Any:
    """An operation as what its protocols make of it.

    Args:
        operation: The operation of a call.
        rank: Number of axes of what it reads.
    """
    if type(operation) is keras.layers.Dense and _is_plain(operation):
        return OfDense(operation)
    if type(operation) is keras.layers.BatchNormalization:
        if operation.axis in (-1, rank - 1):
            return OfBatchNormalization(operation)
    return operation


def trained(layer: keras.layers.Layer) -> set[bool]:
    """Whether a layer's weights are trained: one of both, both or neither."""
    weights = layer.weights
    if type(layer) is keras.layers.BatchNormalization:
        weights = [w for w in (layer.gamma, layer.beta) if w is not None]
    return {weight.trainable for weight in weights}


def _is_plain(layer: keras.layers.Dense) -> bool:
    """Whether another kernel may take the place of its own."""
    special = (
        layer.kernel_constraint,
        layer.bias_constraint,
        layer.activity_regularizer,
    )
    return not any(special) and adapted.is_plain(layer)
