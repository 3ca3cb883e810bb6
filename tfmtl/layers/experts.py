"""A level of parallel experts as one tensor and one kernel."""

from typing import Any

import keras
import numpy as np

from tfmtl.layers.checks import known_slots, positive_int
from tfmtl.layers.initializers import stacked
from tfmtl.ops import experts

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Experts(keras.layers.Layer):
    """Parallel dense sub-networks ("experts") of equal width.

    ```
    y_e = activation(x K_e + b_e)      input (batch, d): all experts read x
    y_e = activation(x_e K_e + b_e)    input (batch, experts, d): one input each
    output (batch, experts, units)
    ```

    The experts of a level are one kernel `(experts, d, units)`; each entry is
    initialised on its own, so that no two experts start alike. Deeper experts
    are several of these layers in a row.

    Args:
        num_experts: Number of experts.
        units: Width of each expert's output.
        activation: Keras activation. Defaults to `"relu"`.
        use_bias: Whether each expert has a bias. Defaults to `True`.
        kernel_initializer: Initializer of one expert's `(d, units)` kernel.
            Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regulariser of the kernel. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.ops.ones((5, 3))
        >>> tuple(tfmtl.layers.Experts(2, 4)(x).shape)
        (5, 2, 4)

    Source: Ma et al., KDD 2018 (MMoE), the experts f_i of eq. 6; the unrouted
    first level of Ma et al., AAAI 2019 (SNR).
    """

    def __init__(
        self,
        num_experts: int,
        units: int,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_experts = positive_int("num_experts", num_experts)
        self.units = positive_int("units", units)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        """Creates the stacked kernel and bias."""
        self._input_rank = len(input_shape)
        if self._input_rank != 2:
            slots, _ = known_slots("Experts", input_shape)
            if slots != self.num_experts:
                raise ValueError(
                    "A stacked input of Experts should have one slot per expert, "
                    f"{self.num_experts}. Received: shape={tuple(input_shape)}"
                )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_experts, input_shape[-1], self.units),
            initializer=stacked(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.num_experts, self.units), initializer="zeros"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the experts' outputs, `(batch, experts, units)`."""
        outputs = experts(inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int, int]:
        """`(batch, experts, units)`."""
        return (input_shape[0], self.num_experts, self.units)

    def slot_reads(self) -> np.ndarray:
        """Which input slots each expert reads, `(experts, input slots)`."""
        if self._input_rank == 2:
            return np.ones((self.num_experts, 1), bool)
        return np.eye(self.num_experts, dtype=bool)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same layer with the experts of `outputs` only."""
        if self._input_rank != 2:
            outputs = inputs  # one input each, in the order in which they come
        config = {**self.get_config(), "num_experts": len(outputs)}
        smaller = type(self).from_config(config)
        d, units = self.kernel.shape[1:]
        smaller.build((None, d) if self._input_rank == 2 else (None, len(outputs), d))
        smaller.set_weights([w[outputs] for w in self.get_weights()])
        return smaller, outputs

    def flops(self) -> int:
        """Floating-point operations of the products, per example."""
        return 2 * int(np.prod(self.kernel.shape))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
