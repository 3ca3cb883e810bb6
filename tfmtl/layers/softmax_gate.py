"""The softmax gate of mixtures of experts."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import known_selector, pairs, positive_int, share
from tfmtl.layers.gate_parts import reads_of_selector, smaller_gate
from tfmtl.layers.hard_concrete_gate import gate_arguments, gate_config
from tfmtl.layers.initializers import side_by_side
from tfmtl.layers.pair_gate import PairGate
from tfmtl.layers.precision import precise
from tfmtl.ops import gate_weights, log_openness, spread_pairs
from tfmtl.ops.pairs import pair_index

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class SoftmaxGate(keras.layers.Layer):
    """Linear softmax gates: how much of each expert each output takes.

    ```
    g_t = softmax(x W_t)         selector (batch, d): all gates read x
    g_t = softmax(x_t W_t)       selector (batch, slots, d): gate t reads slot t
    with z_te on each pair       g_te = z_te exp(l_te) / sum_e' z_te' exp(l_te')
    output (batch, outputs, experts)
    ```

    One gate, a row of the output, for each task (MMoE), for each task and the
    shared module (PLE), or a single one (MoE). Rows are at least 0 and sum to 1.
    `Mixture` applies them. A gate of a single expert gives it weight 1 and has no
    kernel. Gates are computed in float32, also under a mixed-precision policy, and in
    float64 under that policy.

    Args:
        num_outputs: Number of gates.
        num_experts: Number of experts.
        reads: Booleans `(num_outputs, num_experts)`: the experts that each gate
            has a weight for. Defaults to `None`, all.
        use_bias: Whether the logits have a bias. Defaults to `False`, as in the
            paper.
        dropout: Share of pairs that are closed in training, for each example on
            its own; the others are renormalised. A gate that would lose all of
            its pairs keeps them. Defaults to 0.
        hard_concrete: Arguments of a `HardConcreteGate` on the pairs, for example
            `{"l0": 1e-3}`: pairs that it closes go when the model is folded. The
            penalty counts the experts that an output reads beyond one, which it
            keeps. Defaults to `None`, no such gate.
        kernel_initializer: Initializer of one gate's `(d, experts)` kernel.
            Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regulariser of the kernel, one that sums over elements,
            such as L2: it gets that of all gates at once. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.ops.ones((5, 3))
        >>> weights = tfmtl.layers.SoftmaxGate(2, 4)(x)
        >>> tuple(weights.shape), round(float(keras.ops.sum(weights[0, 0])), 6)
        ((5, 2, 4), 1.0)

    Source: Ma et al., KDD 2018 (MMoE), eq. 7; `reads` after Tang et al., RecSys
    2020 (PLE), eq. 3 to 7; dropout of pairs after Zhao et al., RecSys 2019,
    section 5.3.
    """

    def __init__(
        self,
        num_outputs: int,
        num_experts: int,
        reads: Sequence[Sequence[bool]] | None = None,
        use_bias: bool = False,
        dropout: float = 0.0,
        hard_concrete: Mapping[str, Any] | None = None,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = positive_int("num_outputs", num_outputs)
        self.num_experts = positive_int("num_experts", num_experts)
        self._pairs = pairs(reads, num_outputs, num_experts)
        self._free = _with_choice(self._pairs)  # pairs whose weight is learned
        self.use_bias = use_bias
        self.dropout = share("dropout", dropout)
        self.hard_concrete = None
        if hard_concrete is not None:
            taken = ("reads", "shape", "name", "dtype")
            self.hard_concrete = gate_arguments(hard_concrete, taken)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: Any) -> None:
        """Creates the kernel of the pairs, and their gate where there is one."""
        known_selector("SoftmaxGate", self.num_outputs, input_shape)
        self._slots = input_shape[1] if len(input_shape) == 3 else None
        self._precision = precise(self.dtype_policy)
        self._width = input_shape[-1]
        self.kernel = self.bias = self.gate = None
        counts = self._free.sum(axis=1)
        count = int(counts.sum())
        if count:
            self.kernel = self.add_weight(
                name="kernel",
                shape=(self._width, count),
                initializer=side_by_side(self.kernel_initializer, counts[counts > 0]),
                regularizer=self.kernel_regularizer,
                dtype=self._precision,
                autocast=False,
            )
        if count and self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(count,),
                initializer="zeros",
                dtype=self._precision,
                autocast=False,
            )
        if count and self.hard_concrete is not None:
            self.gate = PairGate(
                self._free[counts > 0].tolist(),
                dtype=self._precision,
                name="gate",
                **{"trainable": self.trainable, **self.hard_concrete},
            )
            self.gate.build()
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the weights of the experts, `(batch, outputs, experts)`."""
        if self.kernel is None:
            shape = (ops.shape(inputs)[0], *self._pairs.shape)
            return ops.cast(ops.broadcast_to(self._exist(), shape), self.compute_dtype)
        logits = self._logits(ops.cast(inputs, self._precision))
        if self.bias is not None:
            logits = logits + spread_pairs(self.bias, self._free)
        if not self._pairs.all():
            logits = logits + log_openness(self._exist())
        weights = gate_weights(logits, self._openness(logits, training))
        return ops.cast(weights, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int, int]:
        """`(batch, outputs, experts)`."""
        return (input_shape[0], self.num_outputs, self.num_experts)

    def open_pairs(self) -> np.ndarray:
        """Pairs whose weight is not 0 in inference, `(outputs, experts)`."""
        return self._served_gates() > 0

    def slot_reads(self) -> np.ndarray:
        """Which slots of the selector each gate reads in inference.

        A gate with a single open pair gives it weight 1, whatever the selector.
        """
        chooses = self.open_pairs().sum(axis=1) > 1
        return chooses[:, None] & self.trained_reads()

    def fold(
        self,
        outputs: np.ndarray,
        inputs: np.ndarray,
        constants: np.ndarray,
        columns: np.ndarray,
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The gates of `outputs`, for the experts of `columns` only.

        Openness between 0 and 1 becomes a bias of the logits.
        """
        if self._slots is not None:
            outputs = inputs  # one selector each, in the order in which they come
        z = self._served_gates()[np.ix_(outputs, columns)]
        reads = z > 0
        kept = _with_choice(reads)
        # where the kept pairs are among the old ones, in the new order
        pair = pair_index(self._free)[np.ix_(outputs, columns)][kept]
        bias = np.log(z[kept])
        if self.bias is not None:
            bias = bias + ops.convert_to_numpy(self.bias)[pair]
        use_bias = self.use_bias or bool(bias.any())
        smaller = smaller_gate(
            self,
            reads,
            self._slots,
            self._width,
            use_bias=use_bias,
            hard_concrete=None,
        )
        if smaller.kernel is not None:
            kernel = ops.convert_to_numpy(self.kernel)[:, pair]
            smaller.set_weights([kernel, *([bias] if use_bias else [])])
        return smaller, outputs

    def trained_pairs(self) -> np.ndarray:
        """Pairs that there are, whatever their gate, `(outputs, experts)`."""
        return self._pairs.copy()

    def trained_reads(self) -> np.ndarray:
        """Which slots of the selector each gate may read."""
        return reads_of_selector(self.num_outputs, self._slots)

    def part(
        self, outputs: np.ndarray, inputs: np.ndarray, columns: np.ndarray
    ) -> keras.layers.Layer:
        """The gates of `outputs`, for the experts of `columns` only, as they train."""
        block = np.ix_(outputs, columns)
        smaller = smaller_gate(self, self._pairs[block], self._slots, self._width)
        pair = pair_index(self._free)[block][self._free[block]]
        if smaller.kernel is not None:
            smaller.kernel.assign(ops.convert_to_numpy(self.kernel)[:, pair])
        if smaller.bias is not None:
            smaller.bias.assign(ops.convert_to_numpy(self.bias)[pair])
        if smaller.gate is not None:
            smaller.gate.take(self.gate, pair)
        return smaller

    def behind(self, kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer:
        """The same gates of x where their selector is `x kernel + bias`."""
        own, shift = np.zeros((len(bias), 0)), np.zeros(0)
        if self.kernel is not None:
            own = ops.convert_to_numpy(self.kernel)
            shift = bias @ own
        if self.bias is not None:
            shift = shift + ops.convert_to_numpy(self.bias)
        use_bias = self.use_bias or bool(shift.any())
        layer = type(self).from_config({**self.get_config(), "use_bias": use_bias})
        slots = () if self._slots is None else (self._slots,)
        layer.build((None, *slots, len(kernel)))
        like: list[Any] = [self.kernel, self.kernel if self.bias is None else self.bias]
        values = kernel @ own, shift
        for new, old, value in zip(
            (layer.kernel, layer.bias), like, values, strict=True
        ):
            if new is not None:
                new.assign(value)
                new.trainable = old.trainable
        if layer.gate is not None:
            layer.gate.take(self.gate, slice(None))
        return layer

    def connections(self) -> int:
        """Number of pairs that are computed, whatever their gate."""
        return int(self._pairs.sum())

    def flops(self) -> int:
        """Floating-point operations of the products, per example.

        These are made for all pairs, with 0 in the kernel where there is none.
        """
        return 0 if self.kernel is None else 2 * self._width * self._pairs.size

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "num_experts": self.num_experts,
            "reads": None if self._pairs.all() else self._pairs.tolist(),
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "hard_concrete": gate_config(self.hard_concrete, self),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _logits(self, inputs: Tensor) -> Tensor:
        shape = (-1, self.num_outputs, self.num_experts)
        kernel = spread_pairs(ops.convert_to_tensor(self.kernel), self._free)
        if self._slots is None:
            flat = ops.reshape(kernel, (-1, self.num_outputs * self.num_experts))
            return ops.reshape(ops.matmul(inputs, flat), shape)
        own = zip(
            ops.unstack(inputs, self._slots, axis=1)[: self.num_outputs],
            ops.unstack(kernel, self.num_outputs, axis=1),
            strict=True,
        )
        return ops.stack([ops.matmul(x, w) for x, w in own], axis=1)

    def _openness(self, logits: Tensor, training: bool | None) -> Tensor | None:
        """z of every pair, `None` where there is no gate and no dropout."""
        dropout = training and self.dropout
        if self.gate is None and not dropout:
            return None
        z = self._gates(training)
        if dropout:
            draw = keras.random.uniform(ops.shape(logits), seed=self.seed_generator)
            kept = ops.where(draw >= self.dropout, z, ops.zeros_like(z))
            z = ops.where(ops.any(kept > 0, axis=-1, keepdims=True), kept, z)
        return z

    def _gates(self, training: bool | None) -> Tensor:
        """z of every pair, 1 where it has no gate."""
        if self.gate is None:
            return self._exist()
        z = spread_pairs(self.gate(training=training), self._free)
        return ops.where(self._free, z, self._exist())

    def _exist(self) -> Tensor:
        return ops.convert_to_tensor(self._pairs.astype(self._precision))

    def _served_gates(self) -> np.ndarray:
        return ops.convert_to_numpy(self._gates(training=False))


def _with_choice(reads: np.ndarray) -> np.ndarray:
    """The pairs of rows that have more than one."""
    return reads & (reads.sum(axis=1, keepdims=True) > 1)
