"""The network of one task on top of what is shared."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfmtl.layers.checks import positive_int, share, widths
from tfmtl.layers.initializers import own
from tfmtl.layers.normalization import check_normalization, normalization

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Tower(keras.layers.Layer):
    """A small MLP with the task's head at its end.

    ```
    h_0 = x,  h_l = dropout(activation(normalization(h_{l-1} W_l + b_l)))
    y = head(h_L W + b)
    input (batch, d), output (batch, output_units)
    ```

    The head is computed in float32, also under a mixed-precision policy.

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
            dtype="float32",
            name="head",
        )

    def build(self, input_shape: Any) -> None:
        """Builds the hidden layers and the head."""
        for layer in [*self.hidden, self.head]:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the task's output, `(batch, output_units)`, float32."""
        for layer in [*self.hidden, self.head]:
            inputs = layer(inputs)
        return inputs

    def compute_output_spec(
        self, inputs: Tensor, training: bool | None = None
    ) -> keras.KerasTensor:
        """`(batch, output_units)`, float32."""
        return keras.KerasTensor((*inputs.shape[:-1], self.output_units), "float32")

    def flops(self) -> int:
        """Floating-point operations of the products, per example."""
        dense = [x for x in self.hidden if isinstance(x, keras.layers.Dense)]
        return sum(2 * int(np.prod(x.kernel.shape)) for x in [*dense, self.head])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "units": self.units,
            "output_units": self.output_units,
            "activation": keras.activations.serialize(self.activation),
            "head_activation": keras.activations.serialize(self.head_activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "dropout": self.dropout,
            "normalization": self.normalization,
        }

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
