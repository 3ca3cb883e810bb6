"""The network of one task on top of what is shared."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfmtl.layers.checks import positive_int

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Tower(keras.layers.Layer):
    """A small MLP with the task's head at its end.

    ```
    h_0 = x,  h_l = activation(h_{l-1} W_l + b_l),  y = head(h_L W + b)
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
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If a width is not a positive integer.

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = tuple(positive_int("units", n) for n in units)
        self.output_units = positive_int("output_units", output_units)
        self.activation = keras.activations.get(activation)
        self.head_activation = keras.activations.get(head_activation)
        self.hidden = [
            keras.layers.Dense(
                n, self.activation, dtype=self.dtype_policy, name=f"hidden_{k}"
            )
            for k, n in enumerate(self.units, 1)
        ]
        self.head = keras.layers.Dense(
            self.output_units, self.head_activation, dtype="float32", name="head"
        )

    def build(self, input_shape: Any) -> None:
        """Builds the hidden layers and the head."""
        for layer in [*self.hidden, self.head]:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the task's output, `(batch, output_units)`, float32."""
        for layer in [*self.hidden, self.head]:
            inputs = layer(inputs)
        return inputs

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """`(batch, output_units)`, float32."""
        return keras.KerasTensor((*inputs.shape[:-1], self.output_units), "float32")

    def flops(self) -> int:
        """Floating-point operations of the products, per example."""
        dense = [*self.hidden, self.head]
        return sum(2 * int(np.prod(layer.kernel.shape)) for layer in dense)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "units": self.units,
            "output_units": self.output_units,
            "activation": keras.activations.serialize(self.activation),
            "head_activation": keras.activations.serialize(self.head_activation),
        }
