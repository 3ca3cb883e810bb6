"""Weighted sums of slots with weights that are learned, not computed."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import booleans, known_slots, positive_int
from tfmtl.ops import route_average, spread_pairs
from tfmtl.ops.pairs import pack_pairs

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class StaticMixture(keras.layers.Layer):
    """Weighted sums of slots; one learned weight for each pair.

    ```
    v_i = activation(sum_j z_ij u_j + b_i)
    input (batch, j, d), output (batch, i, d)
    ```

    A cross-stitch unit is one with a weight for every two tasks, AdaTT's residual
    path one whose outputs read their own experts. `tfmtl.folding.fold` makes one of
    an average routing, whose closed connections are then no pairs any more.

    Args:
        num_outputs: Number of outputs, i.
        reads: Booleans `(num_outputs, slots)`: the slots that each output reads;
            one without any is its bias, or 0. Defaults to `None`, all.
        activation: Keras activation. Defaults to `None`.
        use_bias: Whether to add a bias. Defaults to `False`.
        mixing_initializer: Initializer of the weights z as a matrix
            `(num_outputs, slots)`. Defaults to `"ones"`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.StaticMixture(2)
        >>> tuple(layer(keras.ops.ones((5, 3, 8))).shape)
        (5, 2, 8)

    Source: Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR
    2016, eq. 1; Li et al., "AdaTT", KDD 2023, the native experts' combination;
    Ma et al., AAAI 2019 (SNR-Aver) once its gates are folded in.
    """

    def __init__(
        self,
        num_outputs: int,
        reads: Sequence[Sequence[bool]] | None = None,
        activation: Any = None,
        use_bias: bool = False,
        mixing_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = positive_int("num_outputs", num_outputs)
        self.reads = None
        if reads is not None:
            self.reads = booleans("reads", reads, self.num_outputs, None).tolist()
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.mixing_initializer = keras.initializers.get(mixing_initializer)

    @classmethod
    def of(
        cls,
        z: np.ndarray,
        width: int,
        bias: np.ndarray | None = None,
        **kwargs: Any,
    ) -> "StaticMixture":
        """Builds the layer from its weights.

        Args:
            z: `(i, j)`; where it is 0 there is no pair.
            width: Width d of the slots.
            bias: `(i, d)` or `None`.
            **kwargs: Other arguments of the layer.
        """
        reads = z != 0
        layer = cls(
            len(z),
            None if reads.all() else reads.tolist(),
            use_bias=bias is not None,
            **kwargs,
        )
        layer.build((None, z.shape[1], width))
        layer.set_weights([z[reads], *([] if bias is None else [bias])])
        return layer

    def build(self, input_shape: Any) -> None:
        """Creates the weights of the pairs and the bias."""
        slots, self.width = known_slots("StaticMixture", input_shape)
        self._pairs = np.ones((self.num_outputs, slots), bool)
        if self.reads is not None:
            self._pairs = booleans("reads", self.reads, self.num_outputs, slots)
        self.z = self.add_weight(
            name="z",
            shape=(int(self._pairs.sum()),),
            initializer=self._initial_weights,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.num_outputs, self.width), initializer="zeros"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the sums, `(batch, i, d)`."""
        z = spread_pairs(ops.convert_to_tensor(self.z), self._pairs)
        outputs = route_average(inputs, z)
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int, int]:
        """`(batch, i, d)`."""
        return (input_shape[0], self.num_outputs, input_shape[2])

    def slot_reads(self) -> np.ndarray:
        """Which inputs each output reads, `(i, j)`."""
        return self.strengths() != 0

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer | None, np.ndarray]:
        """The same sums of the slots given only; constants become bias.

        `None` where each sum is the slot given in its place.
        """
        z = self.strengths()
        bias = (z @ constants)[outputs]
        if self.bias is not None:
            bias = bias + ops.convert_to_numpy(self.bias)[outputs]
        z = z[np.ix_(outputs, inputs)]
        use_bias = self.use_bias or bias.any()
        linear = self.activation is keras.activations.linear
        if linear and not use_bias and np.array_equal(z, np.eye(len(inputs))):
            return None, outputs
        layer = self.of(
            z,
            self.width,
            bias if use_bias else None,
            activation=self.activation,
            trainable=self.trainable,
            name=self.name,
            dtype=self.dtype_policy,
        )
        return layer, outputs

    def trained_reads(self) -> np.ndarray:
        """The pairs that there are, `(i, j)`, also those whose weight is 0."""
        return self._pairs.copy()

    def part(self, outputs: np.ndarray, inputs: np.ndarray) -> keras.layers.Layer:
        """The sums of `outputs` of the slots given only."""
        block = np.ix_(outputs, inputs)
        smaller = type(self).from_config(
            {
                **self.get_config(),
                "num_outputs": len(outputs),
                "reads": self._pairs[block].tolist(),
                "mixing_initializer": "ones",  # the old one may be of the old shape
            }
        )
        smaller.build((None, len(inputs), self.width))
        smaller.z.assign(self.strengths()[block][self._pairs[block]])
        if self.bias is not None:
            smaller.bias.assign(ops.convert_to_numpy(self.bias)[outputs])
        return smaller

    def connections(self) -> int:
        """Number of pairs that are summed."""
        return int(self._pairs.sum())

    def strengths(self) -> np.ndarray:
        """Weight of each pair, `(i, j)`, and 0 where there is none."""
        return ops.convert_to_numpy(
            spread_pairs(ops.convert_to_tensor(self.z), self._pairs)
        )

    def flops(self) -> int:
        """Floating-point operations of the sums, per example."""
        return 2 * self._pairs.size * self.width

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "reads": self.reads,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "mixing_initializer": keras.initializers.serialize(self.mixing_initializer),
        }

    def _initial_weights(self, shape: Any, dtype: Any = None) -> Tensor:
        matrix = self.mixing_initializer(self._pairs.shape, dtype=dtype)
        return pack_pairs(matrix, self._pairs)
