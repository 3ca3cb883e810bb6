"""Sub-network routing: which lower sub-networks each upper one reads."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import known_slots, positive_int
from tfmtl.layers.hard_concrete_gate import (
    HardConcreteGate,
    gate_arguments,
    gate_config,
)
from tfmtl.layers.initializers import stacked
from tfmtl.layers.pruned_transformation import PrunedTransformation
from tfmtl.layers.static_mixture import StaticMixture
from tfmtl.ops import route_average, route_transformation

Tensor = Any

_KINDS = ("transformation", "average")


@keras.saving.register_keras_serializable(package="tfmtl")
class SubNetworkRouting(keras.layers.Layer):
    """Connects every upper sub-network to every lower one through a gate.

    ```
    transformation (SNR-Trans)   v_i = activation(sum_j z_ij W_ij u_j + b_i)
    average        (SNR-Aver)    v_i = activation(sum_j z_ij u_j + b_i)
    input (batch, j, d), output (batch, i, h); h = d for the average
    ```

    z is a `HardConcreteGate` of shape `(i, j)`, learned with the network and
    the same for all examples. Where it ends at 0 the connection is gone after
    `tfmtl.folding.fold`. With all z = 1 the transformation is a dense layer; the
    kernel is initialised as that layer's, `i` outputs of fan-in `j d` each.

    Args:
        num_outputs: Number of upper sub-networks, i.
        units: Width h of an upper sub-network. Required for the transformation;
            the average keeps its input's width.
        kind: `"transformation"` or `"average"`. Defaults to
            `"transformation"`.
        activation: Keras activation. Defaults to `None`, as in the paper's
            equation.
        use_bias: Whether to add a bias. Defaults to `False`, as in the paper's
            equation.
        kernel_initializer: Initializer of one upper sub-network's `(j d, h)`
            kernel. Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regulariser of the kernel, one that sums over elements,
            such as L2: it gets that of all connections at once. Defaults to `None`.
        hard_concrete: Arguments of the `HardConcreteGate`, for example
            `{"l0": 1e-3, "beta": 0.5}`. Defaults to none.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> u = keras.ops.ones((5, 4, 8))
        >>> tuple(tfmtl.layers.SubNetworkRouting(3, 16)(u).shape)
        (5, 3, 16)

    Source: Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing
    in Multi-Task Learning", AAAI 2019.
    """

    def __init__(
        self,
        num_outputs: int,
        units: int | None = None,
        kind: str = "transformation",
        activation: Any = None,
        use_bias: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        hard_concrete: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kind not in _KINDS:
            raise ValueError(
                f"`kind` should be one of {_KINDS}. Received: kind={kind!r}"
            )
        if kind == "transformation":
            positive_int("units", units)
        elif units is not None:
            raise ValueError(
                "`units` should be left out where kind='average', which keeps its "
                f"input's width. Received: units={units!r}"
            )
        self.num_outputs = positive_int("num_outputs", num_outputs)
        self.units = units
        self.kind = kind
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        taken = ("shape", "name", "dtype")
        self.hard_concrete = gate_arguments(hard_concrete, taken)

    def build(self, input_shape: Any) -> None:
        """Creates the gate, the kernel of a transformation and the bias."""
        slots, width = known_slots("SubNetworkRouting", input_shape)
        self.width = width
        units = self.units or width
        self.gate = HardConcreteGate(
            (self.num_outputs, slots),
            dtype=self.dtype_policy,
            name="gate",
            **{"trainable": self.trainable, **self.hard_concrete},
        )
        self.gate.build()
        self.kernel = None
        if self.kind == "transformation":
            self.kernel = self.add_weight(
                name="kernel",
                shape=(slots, width, self.num_outputs, units),
                initializer=self._initial_kernel,
                regularizer=self.kernel_regularizer,
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.num_outputs, units), initializer="zeros"
            )
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the upper sub-networks, `(batch, i, h)`."""
        z = self.gate(training=training)
        if self.kernel is not None:
            outputs = route_transformation(inputs, self.kernel, z)
        else:
            outputs = route_average(inputs, z)
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int, int]:
        """`(batch, i, h)`."""
        return (input_shape[0], self.num_outputs, self.units or input_shape[2])

    def slot_reads(self) -> np.ndarray:
        """Connections that pass something on in serving, `(i, j)`: z W is not 0."""
        return self.strengths() != 0

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same routing without gates, between the slots given only."""
        z = self._served_gates()
        bias = None if self.bias is None else ops.convert_to_numpy(self.bias)
        weights = {
            "name": self.name,
            "dtype": self.dtype_policy,
            "activation": self.activation,
            "bias": bias,
            "trainable": self.trainable,
        }
        if self.kernel is None:
            ungated = StaticMixture.of(z, self.width, **weights)
            return ungated.fold(outputs, inputs, constants)
        kernel = ops.convert_to_numpy(self.kernel) * z.T[:, None, :, None]
        return PrunedTransformation.of(kernel, outputs, inputs, constants, **weights)

    def trained_reads(self) -> np.ndarray:
        """Every output may read every input, `(i, j)`."""
        return np.ones(self.gate.shape, bool)

    def part(self, outputs: np.ndarray, inputs: np.ndarray) -> keras.layers.Layer:
        """The same routing, gates and all, between the slots given only."""
        smaller = type(self).from_config(
            {**self.get_config(), "num_outputs": len(outputs)}
        )
        smaller.build((None, len(inputs), self.width))
        smaller.gate.take(self.gate, np.ix_(outputs, inputs))
        if self.kernel is not None:
            kernel = ops.convert_to_numpy(self.kernel)
            smaller.kernel.assign(kernel[inputs][:, :, outputs])
        if self.bias is not None:
            smaller.bias.assign(ops.convert_to_numpy(self.bias)[outputs])
        return smaller

    @property
    def reads_apart(self) -> bool:
        """Whether the folded layer takes its input slots as a list."""
        return self.kind == "transformation"

    def connections(self) -> int:
        """Number of connections that are computed: all, whatever their gate."""
        return int(np.prod(self.gate.shape))

    def strengths(self) -> np.ndarray:
        """Size of what each connection does, `(i, j)`: z times the norm of W."""
        z = self._served_gates()
        if self.kernel is None:
            return z
        kernel = ops.convert_to_numpy(self.kernel)
        return z * np.sqrt(np.square(kernel).sum(axis=(1, 3))).T

    def flops(self) -> int:
        """Floating-point operations of the products, per example."""
        if self.kernel is not None:
            return 2 * int(np.prod(self.kernel.shape))
        return 2 * self.connections() * self.width

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "units": self.units,
            "kind": self.kind,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "hard_concrete": gate_config(self.hard_concrete, self),
        }

    def _initial_kernel(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        j, d, i, h = shape
        per_output = stacked(self.kernel_initializer)((i, j * d, h), dtype=dtype)
        return ops.transpose(ops.reshape(per_output, (i, j, d, h)), (1, 2, 0, 3))

    def _served_gates(self) -> np.ndarray:
        return ops.convert_to_numpy(ops.cast(self.gate(training=False), "float32"))
