"""What is left of an average routing once its gates are folded in."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import known_slots, positive_int
from tfmtl.ops import route_average

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class PrunedAverage(keras.layers.Layer):
    """Weighted sums of slots, without gates.

    ```
    v_i = activation(sum_j z_ij u_j + b_i)
    input (batch, j, d), output (batch, i, d)
    ```

    `tfmtl.folding.fold` makes this layer of an average routing: slots that
    nobody reads are gone, z is a plain weight.

    Args:
        num_outputs: Number of upper sub-networks, i.
        activation: Keras activation. Defaults to `None`.
        use_bias: Whether to add a bias. Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.PrunedAverage(2)
        >>> tuple(layer(keras.ops.ones((5, 3, 8))).shape)
        (5, 2, 8)

    Source: Ma et al., AAAI 2019 (SNR-Aver): a sub-network goes when its z_ij is
    0 for all i.
    """

    def __init__(
        self,
        num_outputs: int,
        activation: Any = None,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = positive_int("num_outputs", num_outputs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    @classmethod
    def of(
        cls,
        z: np.ndarray,
        outputs: np.ndarray,
        inputs: np.ndarray,
        constants: np.ndarray,
        *,
        bias: np.ndarray | None,
        activation: Any,
        trainable: bool = True,
        **kwargs: Any,
    ) -> tuple["PrunedAverage", np.ndarray]:
        """Builds the layer from the gates `(i, j)`; see `PrunedTransformation.of`."""
        from_constants = (z @ constants)[outputs]
        if bias is not None:
            from_constants = from_constants + bias[outputs]
        use_bias = bias is not None or bool(from_constants.any())
        layer = cls(len(outputs), activation, use_bias, trainable=trainable, **kwargs)
        layer.build((None, len(inputs), constants.shape[1]))
        kept = z[np.ix_(outputs, inputs)]
        layer.set_weights([kept, *([from_constants] if use_bias else [])])
        return layer, outputs

    def build(self, input_shape: Any) -> None:
        """Creates the weights z and the bias."""
        slots, self.width = known_slots("PrunedAverage", input_shape)
        self.z = self.add_weight(
            name="z", shape=(self.num_outputs, slots), initializer="ones"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.num_outputs, self.width), initializer="zeros"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the upper sub-networks, `(batch, i, d)`."""
        outputs = route_average(inputs, ops.convert_to_tensor(self.z))
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int, int]:
        """`(batch, i, d)`."""
        return (input_shape[0], self.num_outputs, input_shape[2])

    def slot_reads(self) -> np.ndarray:
        """Which inputs each output reads, `(i, j)`."""
        return ops.convert_to_numpy(self.z) != 0

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same routing between the slots given only."""
        return self.of(
            ops.convert_to_numpy(self.z),
            outputs,
            inputs,
            constants,
            bias=None if self.bias is None else ops.convert_to_numpy(self.bias),
            activation=self.activation,
            trainable=self.trainable,
            name=self.name,
            dtype=self.dtype_policy,
        )

    def connections(self) -> int:
        """Number of connections: weights that are not 0."""
        return int(self.slot_reads().sum())

    def strengths(self) -> np.ndarray:
        """Size of what each connection does, `(i, j)`: its weight."""
        return ops.convert_to_numpy(self.z)

    def flops(self) -> int:
        """Floating-point operations of the sums, per example."""
        return 2 * int(np.prod(self.z.shape)) * self.width

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
