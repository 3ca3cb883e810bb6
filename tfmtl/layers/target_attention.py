"""A sequence's embeddings weighed by how they fit a target."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfmtl.layers.checks import widths
from tfmtl.layers.initializers import own
from tfmtl.layers.sequence_pooling import check_sequence

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class TargetAttention(keras.layers.Layer):
    """The local activation unit of DIN: a sum of what was seen, weighed by the target.

    ```
    y = sum_j a_j v_j over the positions j with id_j != 0; 0 without any
    a_j = w f(... f(W [q, v_j, q * v_j] + b) ...) + c      f the activation
    input [v, ids, q] of shapes (batch, length, units), (batch, length) and
    (batch, 1, units), output (batch, 1, units)
    ```

    The weights do not sum to 1, as in the paper: their size says how much was seen
    that fits. The paper's difference q - v_j is a linear part of q and v_j.

    Args:
        units: Widths of the hidden layers that compute a weight.
        activation: Keras activation f; `"silu"` is the paper's Dice without its
            normalisation. Defaults to `"silu"`.
        kernel_initializer: Initializer of each kernel. Defaults to
            `"glorot_uniform"`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If a width is not positive or the input is no such triple.

    Example:
        >>> import keras, tfmtl
        >>> values, target = keras.ops.ones((5, 7, 8)), keras.ops.ones((5, 1, 8))
        >>> ids = keras.ops.ones((5, 7), "int64")
        >>> tuple(tfmtl.layers.TargetAttention()([values, ids, target]).shape)
        (5, 1, 8)

    Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction",
    KDD 2018, eq. 3 and section 4.3.
    """

    def __init__(
        self,
        units: int | Sequence[int] = (36,),
        activation: Any = "silu",
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = widths("units", units)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        """Creates kernels and biases."""
        name = "[values, ids, target]"
        check_sequence("TargetAttention", input_shape, name, 3)
        width = input_shape[0][-1]
        if tuple(input_shape[2][1:]) != (1, width):
            raise ValueError(
                f"TargetAttention should be called on {name} with a target of shape "
                f"(batch, 1, {width}). Received: shapes={input_shape}"
            )
        self.kernels, self.biases = [], []
        fan_in = 3 * width
        for k, units in enumerate((*self.units, 1)):
            kernel = self.add_weight(
                name=f"kernel_{k}",
                shape=(fan_in, units),
                initializer=own(self.kernel_initializer, k),
            )
            bias = self.add_weight(
                name=f"bias_{k}", shape=(units,), initializer="zeros"
            )
            self.kernels.append(kernel)
            self.biases.append(bias)
            fan_in = units
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the weighted sum, `(batch, 1, units)`."""
        values, ids, target = inputs
        of_target, of_value, of_product = ops.split(
            ops.convert_to_tensor(self.kernels[0]), 3, axis=0
        )
        # the target's part is computed once for all positions
        x = (
            ops.matmul(target, of_target)
            + ops.matmul(values, of_value)
            + ops.matmul(values * target, of_product)
            + self.biases[0]
        )
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            x = ops.matmul(self.activation(x), kernel) + bias
        weights = ops.where(ops.expand_dims(ids != 0, -1), x, ops.zeros_like(x))
        return ops.matmul(ops.transpose(weights, (0, 2, 1)), values)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """`(batch, 1, units)`."""
        return tuple(input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
