"""A level of parallel experts as one tensor and one kernel per hidden layer."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import (
    entries,
    known_slots,
    known_width,
    positive_int,
    share,
    some_widths,
)
from tfmtl.layers.initializers import own, stacked
from tfmtl.layers.normalization import as_affine, check_normalization, normalization
from tfmtl.ops import experts

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Experts(keras.layers.Layer):
    """Parallel MLPs ("experts", sub-networks) of equal widths.

    ```
    f_e(x) = h_L,  h_l = dropout(activation(normalization(h_{l-1} K_le + b_le)))
    h_0 = x              input (batch, d): all experts read x
    h_0 = x_{slots[e]}   input (batch, slots, d): each expert reads one slot
    output (batch, experts, units[-1])
    ```

    The experts of a level share one kernel `(experts, d, units)` per hidden layer;
    each entry is initialised on its own, so that no two experts start alike.

    Args:
        num_experts: Number of experts.
        units: Widths of the hidden layers, the last of which is the output; one
            number for a single layer.
        activation: Keras activation. Defaults to `"relu"`.
        kernel_initializer: Initializer of one expert's `(d, units)` kernel.
            Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regulariser of the kernels, one that sums over elements,
            such as L2: it gets those of all experts at once. Defaults to `None`.
        dropout: Share of values dropped in training, after each hidden layer.
            Defaults to 0.
        normalization: `"batch"` or `"layer"`: each expert's hidden layers have
            their own. Defaults to `None`.
        slots: The input slot that each expert reads. Defaults to one slot each.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.ops.ones((5, 3))
        >>> tuple(tfmtl.layers.Experts(2, (8, 4))(x).shape)
        (5, 2, 4)

    Source: Ma et al., KDD 2018 (MMoE), the experts f_i of eq. 6; the unrouted
    first level of Ma et al., AAAI 2019 (SNR); the experts of a module that read
    its input, Tang et al., RecSys 2020 (PLE).
    """

    def __init__(
        self,
        num_experts: int,
        units: int | Sequence[int],
        activation: Any = "relu",
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        dropout: float = 0.0,
        normalization: str | None = None,
        slots: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_experts = positive_int("num_experts", num_experts)
        self.units = some_widths("units", units)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.dropout = share("dropout", dropout)
        self.normalization = check_normalization(normalization)
        self.slots: list[int] | None = None
        if slots is not None:
            given = entries(slots) or []
            known = all(isinstance(slot, Integral) for slot in given)
            if len(given) != self.num_experts or not known:
                raise ValueError(
                    f"`slots` should be one input slot for each of {self.num_experts} "
                    f"experts. Received: slots={slots!r}"
                )
            self.slots = [int(slot) for slot in given]
        self._drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Creates a stacked kernel and bias for each hidden layer."""
        width = known_width("Experts", input_shape)
        self._read = self._slots_read(input_shape)
        self.kernels, self.biases = [], []
        self.normalizations: list[keras.layers.Layer] = []  # per hidden layer, expert
        for k, units in enumerate(self.units, 1):
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{k}",
                    shape=(self.num_experts, width, units),
                    initializer=stacked(own(self.kernel_initializer, k)),
                    regularizer=self.kernel_regularizer,
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{k}",
                    shape=(self.num_experts, units),
                    initializer="zeros",
                )
            )
            if self.normalization is not None:
                for e in range(self.num_experts):
                    layer = normalization(
                        self.normalization,
                        dtype=self.dtype_policy,
                        trainable=self.trainable,
                        name=f"normalization_{k}_{e}",
                    )
                    layer.build((None, units))
                    self.normalizations.append(layer)
            width = units
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the experts' outputs, `(batch, experts, units[-1])`."""
        one_product = self._read is None and len(self.units) == 1
        if one_product and self.normalization is None:
            outputs = experts(inputs, self.kernels[0]) + self.biases[0]
            return self._drop(self.activation(outputs))
        streams = [inputs] * self.num_experts
        if self._read is not None:
            given = ops.unstack(inputs, axis=1)
            streams = [given[slot] for slot in self._read]
        # one product for each expert: faster than a batched one on a CPU
        for k, weights in enumerate(zip(self.kernels, self.biases, strict=True)):
            kernels, biases = (
                ops.unstack(ops.convert_to_tensor(weight)) for weight in weights
            )
            parts = zip(streams, kernels, biases, strict=True)
            streams = [ops.matmul(x, kernel) + bias for x, kernel, bias in parts]
            if self.normalization is not None:
                first = k * self.num_experts
                layers = self.normalizations[first : first + self.num_experts]
                streams = [layer(x) for x, layer in zip(streams, layers, strict=True)]
            streams = [self._drop(self.activation(x)) for x in streams]
        return ops.stack(streams, axis=1)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int, int]:
        """`(batch, experts, units[-1])`."""
        return (input_shape[0], self.num_experts, self.units[-1])

    def slot_reads(self) -> np.ndarray:
        """Which input slots each expert reads, `(experts, input slots)`."""
        if self._read is None:
            return np.ones((self.num_experts, 1), bool)
        return np.equal.outer(self._read, np.arange(self._input_slots))

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same layer with the experts of `outputs` only."""
        slots: list[int] | None = None
        if self._read is not None:
            position = {int(slot): k for k, slot in enumerate(inputs)}
            slots = [position[self._read[e]] for e in outputs]
        kernels, biases = self._weights()
        starts = range(0, len(self.normalizations), self.num_experts)
        smaller = self._remade(
            [kernel[outputs] for kernel in kernels],
            [bias[outputs] for bias in biases],
            [self.normalizations[start + e] for start in starts for e in outputs],
            len(inputs),
            num_experts=len(outputs),
            slots=slots,
        )
        return smaller, outputs

    def served(self) -> keras.layers.Layer:
        """The same layer without dropout, and batch normalisation in its kernels."""
        kernels, biases = self._weights()
        normalizations = self.normalizations
        config: dict[str, Any] = {"dropout": 0.0}
        affine = [
            as_affine(layer, self.kernels[k // self.num_experts])
            for k, layer in enumerate(normalizations)
        ]
        if all(affine):
            normalizations, config["normalization"] = [], None
            for k in range(0, len(affine), self.num_experts):
                pairs: Any = affine[k : k + self.num_experts]
                scale, shift = (np.stack(part) for part in zip(*pairs, strict=True))
                level = k // self.num_experts
                kernels[level] = kernels[level] * scale[:, None]
                biases[level] = biases[level] * scale + shift
        if not self.dropout and len(normalizations) == len(affine):
            return self
        slots = None if self._read is None else self._input_slots
        return self._remade(kernels, biases, normalizations, slots, **config)

    def behind(self, kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer:
        """The same layer of x where its input is `x kernel + bias`."""
        kernels, biases = self._weights()
        biases[0] = biases[0] + bias @ kernels[0]
        kernels[0] = kernel @ kernels[0]
        slots = None if self._read is None else self._input_slots
        return self._remade(kernels, biases, self.normalizations, slots)

    def opening(self) -> tuple[Any, ...] | None:
        """The first hidden layer, as fold takes it apart."""
        if self._read is None or self.normalization is not None:
            return None
        kernels, biases = self._weights()
        rest = None
        if len(kernels) > 1:
            config = {"units": self.units[1:], "slots": None}
            rest = self._remade(kernels[1:], biases[1:], [], self.num_experts, **config)
        return self._read, kernels[0], biases[0], self.activation, rest

    def flops(self) -> int:
        """Floating-point operations of the products, per example."""
        return sum(2 * int(np.prod(kernel.shape)) for kernel in self.kernels)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "dropout": self.dropout,
            "normalization": self.normalization,
            "slots": self.slots,
        }

    def _weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Kernels and biases per hidden layer."""
        parts = (self.kernels, self.biases)
        kernels, biases = ([ops.convert_to_numpy(w) for w in part] for part in parts)
        return kernels, biases

    def _remade(
        self,
        kernels: list[np.ndarray],
        biases: list[np.ndarray],
        normalizations: list[keras.layers.Layer],
        input_slots: int | None,
        **config: Any,
    ) -> "Experts":
        """A layer of these weights, with a configuration that differs by `config`."""
        layer = type(self).from_config({**self.get_config(), **config})
        slots = () if self._read is None else (input_slots,)
        layer.build((None, *slots, kernels[0].shape[1]))
        for name, values in (("kernels", kernels), ("biases", biases)):
            last = getattr(self, name)[-len(values) :]
            for old, new, value in zip(last, getattr(layer, name), values, strict=True):
                new.assign(value)
                new.trainable = old.trainable
        for new, old in zip(layer.normalizations, normalizations, strict=True):
            new.trainable = old.trainable
            new.set_weights(old.get_weights())
        return layer

    def _slots_read(self, input_shape: Any) -> list[int] | None:
        if len(input_shape) == 2 and self.slots is None:
            return None
        self._input_slots, _ = known_slots("Experts", input_shape)
        if self.slots is None:
            if self._input_slots != self.num_experts:
                raise ValueError(
                    "An input of Experts with slots should have one for each expert, "
                    f"{self.num_experts}, unless `slots` says which expert reads "
                    f"which. Received: shape={tuple(input_shape)}"
                )
            return list(range(self.num_experts))
        if not all(0 <= slot < self._input_slots for slot in self.slots):
            raise ValueError(
                f"`slots` should be slots of the input, 0 to {self._input_slots - 1}. "
                f"Received: slots={self.slots}, shape={tuple(input_shape)}"
            )
        return self.slots
