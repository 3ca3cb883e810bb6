"""The network of one task on top of what is shared."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.adapted import adapt, adapted, build, is_plain
from tfmtl.layers.checks import known_width, positive_int, share, widths
from tfmtl.layers.initializers import own
from tfmtl.layers.normalization import (
    NORMALIZATIONS,
    as_affine,
    check_normalization,
    normalization,
)
from tfmtl.layers.precision import precise

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Tower(keras.layers.Layer):
    """A small MLP with the task's head at its end.

    ```
    h_0 = x,  h_l = dropout(activation(normalization(h_{l-1} W_l + b_l)))
    y = head(h_L W + b)
    input (batch, d), output (batch, output_units)
    ```

    The head is computed in float32, also under a mixed-precision policy, and in
    float64 under that policy.

    Its layers are Keras' `Dense`, which `keras.Model.quantize` quantises and which have
    `enable_lora`: those of `hidden` and the `head`.

    Args:
        units: Widths of the hidden layers; `()` for the head alone. Defaults to
            `(16,)`, the tower of the SNR paper.
        output_units: Width of the head. Defaults to 1.
        activation: Activation of the hidden layers. Defaults to `"relu"`.
        head_activation: Activation of the head, for example `"sigmoid"`.
            Defaults to `None`, linear.
        kernel_initializer: Initializer of the kernels, each of which draws its
            own. Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regulariser of the kernels. Defaults to `None`.
        dropout: Share of values dropped in training, after each hidden layer.
            Defaults to 0.
        normalization: `"batch"` or `"layer"`, in each hidden layer. Defaults to
            `None`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument does not fit.

    Example:
        >>> import keras, tfmtl
        >>> tower = tfmtl.layers.Tower((16,), head_activation="sigmoid")
        >>> tuple(tower(keras.ops.ones((5, 3))).shape)
        (5, 1)

    Source: Ma et al., KDD 2018 (MMoE), the towers h^k of eq. 5; Ma et al.,
    AAAI 2019 (SNR), experiments: one hidden layer of 16, ReLU.
    """

    def __init__(
        self,
        units: Sequence[int] = (16,),
        output_units: int = 1,
        activation: Any = "relu",
        head_activation: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        dropout: float = 0.0,
        normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = kwargs.pop("adapted", {})  # of `get_config`
        super().__init__(**kwargs)
        self.units = widths("units", units)
        self.output_units = positive_int("output_units", output_units)
        self.activation = keras.activations.get(activation)
        self.head_activation = keras.activations.get(head_activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.dropout = share("dropout", dropout)
        self.normalization = check_normalization(normalization)
        self.hidden = [
            layer
            for k, units in enumerate(self.units, 1)
            for layer in self._hidden_layer(k, units)
        ]
        self.head = self._dense(
            self.output_units,
            self.head_activation,
            len(self.units),
            dtype=precise(self.dtype_policy),
            trainable=self.trainable,
            name="head",
        )
        adapt(self._dense_layers(), given)

    def build(self, input_shape: Any) -> None:
        """Builds the hidden layers and the head."""
        known_width("Tower", input_shape)
        for layer in [*self.hidden, self.head]:
            build(layer, input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the task's output, `(batch, output_units)`."""
        for layer in [*self.hidden, self.head]:
            inputs = layer(inputs)
        return inputs

    def compute_output_spec(
        self, inputs: Tensor, training: bool | None = None
    ) -> keras.KerasTensor:
        """`(batch, output_units)`, of the head's type."""
        shape = (*inputs.shape[:-1], self.output_units)
        return keras.KerasTensor(shape, self.head.compute_dtype)

    def served(self) -> keras.layers.Layer:
        """The same layer without dropout, and batch normalisation in its kernels.

        Those that LoRA has adapted are in one kernel. A quantised layer stays as it is.
        """
        if any(dense.quantization_mode for dense in self._dense_layers()):
            return self
        weights, normalizations = self._weights(), self._of_kind(*NORMALIZATIONS)
        config: dict[str, Any] = {"dropout": 0.0, "adapted": {}}
        pairs = zip(normalizations, self._dense_layers(), strict=False)
        affine = [as_affine(layer, dense.bias) for layer, dense in pairs]
        if all(affine):
            normalizations, config["normalization"] = [], None
            for k, (scale, shift) in enumerate(filter(None, affine)):
                kernel, bias = weights[k]
                weights[k] = kernel * scale, bias * scale + shift
        whole = self._is_plain() and len(normalizations) == len(affine)
        if whole and not self.dropout:
            return self
        return self._remade(weights, normalizations, **config)

    def behind(self, kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer | None:
        """The same layer of x where its input is `x kernel + bias`.

        `None` where it starts with a head of another precision, or is quantised.
        """
        weights = self._weights()
        first_policy = self._dense_layers()[0].dtype_policy
        if not self._is_plain() or first_policy.name != self.dtype_policy.name:
            return None
        first, first_bias = weights[0]
        weights[0] = kernel @ first, bias @ first + first_bias
        return self._remade(weights, self._of_kind(*NORMALIZATIONS))

    def opening(self) -> tuple[Any, ...] | None:
        """The first hidden layer, as fold takes it apart."""
        plain = self._is_plain() and self.normalization is None
        if not self.units or not plain:
            return None
        [(kernel, bias), *others] = self._weights()
        rest = self._remade(others, [], units=self.units[1:])
        return None, kernel[None], bias[None], self.activation, rest

    def flops(self) -> int:
        """Floating-point operations of the products, per example."""
        return sum(2 * int(np.prod(x.kernel.shape)) for x in self._dense_layers())

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, and what became of its layers; serialisable."""
        made = adapted(self._dense_layers())
        return {
            **super().get_config(),
            **({"adapted": made} if made else {}),
            "units": self.units,
            "output_units": self.output_units,
            "activation": keras.activations.serialize(self.activation),
            "head_activation": keras.activations.serialize(self.head_activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "dropout": self.dropout,
            "normalization": self.normalization,
        }

    def _of_kind(self, *kinds: type) -> list[Any]:
        return [layer for layer in self.hidden if isinstance(layer, kinds)]

    def _dense_layers(self) -> list[keras.layers.Dense]:
        return [*self._of_kind(keras.layers.Dense), self.head]

    def _is_plain(self) -> bool:
        return all(map(is_plain, self._dense_layers()))

    def _weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Kernel and bias of each hidden layer and the head."""
        dense = self._dense_layers()
        return [tuple(map(ops.convert_to_numpy, (x.kernel, x.bias))) for x in dense]

    def _remade(
        self,
        weights: list[tuple[np.ndarray, np.ndarray]],
        normalizations: list[keras.layers.Layer],
        **config: Any,
    ) -> "Tower":
        """A tower of these weights, with a configuration that differs by `config`."""
        tower = type(self).from_config({**self.get_config(), **config})
        tower.build((None, weights[0][0].shape[0]))
        dense = self._dense_layers()[-len(weights) :]
        for new, old in zip(tower._dense_layers(), dense, strict=True):
            new.trainable = old.trainable
        for new, pair in zip(tower._dense_layers(), weights, strict=True):
            new.set_weights(list(pair))
        kept = tower._of_kind(*NORMALIZATIONS)
        for new, layer in zip(kept, normalizations, strict=True):
            new.trainable = layer.trainable
            new.set_weights(layer.get_weights())
        return tower

    def _hidden_layer(self, k: int, units: int) -> list[keras.layers.Layer]:
        policy = {"dtype": self.dtype_policy, "trainable": self.trainable}
        if self.normalization is None:
            activation = self.activation
            layers = [
                self._dense(units, activation, k - 1, name=f"hidden_{k}", **policy)
            ]
        else:
            layers = [
                self._dense(units, None, k - 1, name=f"hidden_{k}", **policy),
                normalization(self.normalization, name=f"normalization_{k}", **policy),
                keras.layers.Activation(
                    self.activation, name=f"activation_{k}", **policy
                ),
            ]
        if self.dropout:
            drop = keras.layers.Dropout(self.dropout, name=f"dropout_{k}", **policy)
            layers.append(drop)
        return layers

    def _dense(
        self, units: int, activation: Any, k: int, **kwargs: Any
    ) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            activation,
            kernel_initializer=own(self.kernel_initializer, k),
            kernel_regularizer=self.kernel_regularizer,
            **kwargs,
        )
