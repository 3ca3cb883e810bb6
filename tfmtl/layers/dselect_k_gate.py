"""The DSelect-k gate: each output mixes at most k experts."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import known_selector, number, pairs, positive_int
from tfmtl.layers.gate_parts import reads_of_selector, smaller_gate
from tfmtl.layers.precision import precise
from tfmtl.ops import dselect_k, spread_pairs
from tfmtl.ops.dselect_k import reachability_penalty, selector_entropy
from tfmtl.ops.pairs import pair_index

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class DSelectKGate(keras.layers.Layer):
    """Weights of the experts for each output, in the end at most k that are not 0.

    ```
    q = sum_i softmax(alpha)_i r(S(z^(i))),    i = 1..k
    per example   alpha = G x + a,  z^(i) = W^(i) x + b^(i)
    static        alpha = a,        z^(i) = b^(i)
    selector x (batch, d): all read it, or (batch, slots, d): output t reads slot t
    output (batch, outputs, experts)
    ```

    Each z^(i) is ceil(log2 n) numbers, which the smooth step S turns into the
    binary digits of an expert's number: from -gamma/2 down a digit is 0, from
    gamma/2 up it is 1. In between several experts have a weight, so that the
    choice is learned by gradients; training makes the digits binary, with
    `entropy` sooner.

    An output that may read n experts numbers these itself, from 0 in their order.
    Weights are at least 0, and sum to 1 where n is a power of two. Otherwise what
    falls on the numbers that no expert has is lost, and they sum to less, to 0 at
    worst: as in the authors' code they are not scaled up, the second penalty keeps
    the loss small. A single expert has weight 1 and no parameters.

    In training the layer adds, summed over outputs and selectors and averaged over
    the examples (the authors' code sums over these too):

    ```
    entropy * h(r),  h(r) = -sum_e r_e log(r_e + 1e-6)
    1 / sum_e r_e    where n is not a power of two; 1 where nothing is lost
    ```

    Gates are computed in float32, also under a mixed-precision policy, and in float64
    under that policy.

    Args:
        num_outputs: Number of mixtures, one per task.
        num_experts: Number of experts.
        k: Number of selectors. Several may choose the same expert, and do where an
            output reads fewer than k. Defaults to 2.
        per_example: Whether the weights depend on the selector x. A static gate
            takes no more than the batch size from it. Defaults to `True`.
        gamma: Width of the smooth step, > 0. Defaults to 1.0.
        entropy: Weight of the entropy penalty, >= 0. Defaults to 0.0.
        reads: Booleans `(num_outputs, num_experts)`: the experts that each output
            may choose among. Defaults to `None`, all.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.ops.ones((5, 3))
        >>> weights = tfmtl.layers.DSelectKGate(2, 4)(x)
        >>> tuple(weights.shape), round(float(keras.ops.sum(weights[0, 0])), 6)
        ((5, 2, 4), 1.0)

    Source: Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of
    Experts with Applications to Multi-Task Learning", NeurIPS 2021. From the
    authors' code: the constants a and b of the per-example gate, the initial
    values, the second penalty and the 1e-6.
    """

    def __init__(
        self,
        num_outputs: int,
        num_experts: int,
        k: int = 2,
        per_example: bool = True,
        gamma: float = 1.0,
        entropy: float = 0.0,
        reads: Sequence[Sequence[bool]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = positive_int("num_outputs", num_outputs)
        self.num_experts = positive_int("num_experts", num_experts)
        if not number(gamma) > 0:
            raise ValueError(
                f"`gamma` should be greater than 0. Received: gamma={gamma!r}"
            )
        if not number(entropy) >= 0:
            raise ValueError(
                f"`entropy` should be at least 0. Received: entropy={entropy!r}"
            )
        self.k = positive_int("k", k)
        self.per_example = per_example
        self.gamma = float(gamma)
        self.entropy = float(entropy)
        self._pairs = pairs(reads, num_outputs, num_experts)
        counts = self._pairs.sum(axis=1)
        self._choosing = np.flatnonzero(counts > 1)  # outputs with a choice
        self._counts = counts[self._choosing]
        digits = np.ceil(np.log2(self._counts)).astype(int)
        most = digits.max(initial=0)
        # which of the digits each output has: the last ones
        self._digits = np.arange(most) >= most - digits[:, None]
        self._alphas = np.ones((len(self._choosing), 1), bool)

    def build(self, input_shape: Any) -> None:
        """Creates a and b as `alpha` and `z`, and G and W of a per-example gate.

        Their last axis has the digits of all outputs one after the other, or one
        `alpha` for each.
        """
        known_selector("DSelectKGate", self.num_outputs, input_shape)
        self._slots = input_shape[1] if len(input_shape) == 3 else None
        self._width = input_shape[-1]
        self.alpha = self.z = self.alpha_kernel = self.z_kernel = None
        if len(self._choosing):
            limit = self.gamma / 100
            self.z_kernel, self.z = self._linear("z", self._digits, limit)
        if len(self._choosing) and self.k > 1:  # a single selector has all
            self.alpha_kernel, self.alpha = self._linear("alpha", self._alphas, 0.05)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the weights of the experts, `(batch, outputs, experts)`."""
        weights, selectors = self._choose(inputs)
        if training and self.trainable and selectors is not None:
            self._add_penalties(selectors)
        if self.z_kernel is None:
            batch = ops.shape(inputs)[0]
            weights = ops.broadcast_to(weights, (batch, *self._pairs.shape))
        return ops.cast(weights, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int, int]:
        """`(batch, outputs, experts)`."""
        return (input_shape[0], self.num_outputs, self.num_experts)

    def open_pairs(self) -> np.ndarray:
        """Pairs whose weight may be other than 0 in inference, `(outputs, experts)`."""
        if self.per_example:
            return self._pairs.copy()
        return ops.convert_to_numpy(self._choose(None)[0])[0] > 0

    def slot_reads(self) -> np.ndarray:
        """Which slots of the selector each output reads in inference.

        An output of a single expert reads none, nor does any of a static gate.
        """
        reads = np.zeros(self.num_outputs, bool)
        reads[self._choosing] = self.per_example
        return reads[:, None] & self.trained_reads()

    def fold(
        self,
        outputs: np.ndarray,
        inputs: np.ndarray,
        constants: np.ndarray,
        columns: np.ndarray,
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The gates of `outputs`, for the experts of `columns` only.

        `constants` is not used: a gate whose selector is constant is constant.

        Raises:
            ValueError: If `columns` lacks an expert that an output may choose, or is
                not in order: experts would change their numbers.
        """
        if self._slots is not None and self.per_example:
            outputs = inputs  # one selector each, in the order in which they come
        reads = self._pairs[np.ix_(outputs, columns)]
        lacking = reads.sum(axis=1) < self._pairs[outputs].sum(axis=1)
        if lacking.any() or (np.diff(columns) <= 0).any():
            raise ValueError(
                "`columns` should hold, in order, every expert that the outputs may "
                f"choose. Received: columns={np.asarray(columns).tolist()}"
            )
        return self.part(outputs, inputs, columns), outputs

    def trained_pairs(self) -> np.ndarray:
        """Pairs that there are, `(outputs, experts)`."""
        return self._pairs.copy()

    def trained_reads(self) -> np.ndarray:
        """Which slots of the selector each output may read."""
        return reads_of_selector(self.num_outputs, self._slots)

    def part(
        self, outputs: np.ndarray, inputs: np.ndarray, columns: np.ndarray
    ) -> keras.layers.Layer:
        """The gates of `outputs`, for the experts of `columns` only, as they train."""
        reads = self._pairs[np.ix_(outputs, columns)]
        smaller = smaller_gate(self, reads, self._slots, self._width)
        numbers = {int(output): k for k, output in enumerate(self._choosing)}
        rows = [numbers[int(k)] for k in outputs if int(k) in numbers]
        digits = pair_index(self._digits)[rows][self._digits[rows]]
        for new, old, kept in [
            (smaller.z_kernel, self.z_kernel, digits),
            (smaller.z, self.z, digits),
            (smaller.alpha_kernel, self.alpha_kernel, rows),
            (smaller.alpha, self.alpha, rows),
        ]:
            if new is not None:
                new.assign(ops.convert_to_numpy(old)[..., kept])
        return smaller

    def behind(self, kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer:
        """The same gates of x where their selector is `x kernel + bias`."""
        layer = type(self).from_config(self.get_config())
        slots = () if self._slots is None else (self._slots,)
        layer.build((None, *slots, len(kernel)))
        layer.set_weights(self._weights_behind(kernel, bias))
        for new, old in zip(layer.weights, self.weights, strict=True):
            new.trainable = old.trainable
        return layer

    def choosing(self) -> list[int]:
        """The outputs that have a choice, which `alpha` is for."""
        return self._choosing.tolist()

    def digits(self) -> list[tuple[int, int, int]]:
        """What the last axis of `z` is for: output, its number of experts, digit."""
        return [
            (int(self._choosing[row]), int(self._counts[row]), int(digit))
            for row, digit in np.argwhere(self._digits)
        ]

    def connections(self) -> int:
        """Number of pairs that are computed."""
        return int(self._pairs.sum())

    def flops(self) -> int:
        """Floating-point operations of the products, per example.

        These are made for as many digits as some output has, with 0 in the kernel
        where another has fewer.
        """
        kernels = [(self.z_kernel, self._digits), (self.alpha_kernel, self._alphas)]
        made = [there.size for kernel, there in kernels if kernel is not None]
        return 2 * self._width * self.k * sum(made)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "num_experts": self.num_experts,
            "k": self.k,
            "per_example": self.per_example,
            "gamma": self.gamma,
            "entropy": self.entropy,
            "reads": None if self._pairs.all() else self._pairs.tolist(),
        }

    def _linear(self, name: str, there: np.ndarray, limit: float) -> list[Any]:
        """Kernel, `None` if static, and constant of the values that are `there`."""
        shape = (self.k, int(there.sum()))
        shapes: dict[str, tuple[int, ...]] = {name: shape}
        if self.per_example:
            shapes = {f"{name}_kernel": (self._width, *shape), **shapes}
        weights = [
            self.add_weight(
                name=weight,
                shape=shape,
                initializer=keras.initializers.RandomUniform(-limit, limit),
                dtype=precise(self.dtype_policy),
                autocast=False,
            )
            for weight, shape in shapes.items()
        ]
        return weights if self.per_example else [None, *weights]

    def _weights_behind(self, kernel: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
        """W and b, G and a, of x where the selector is `x kernel + bias`."""
        values = []
        for own, constant in (
            (self.z_kernel, self.z),
            (self.alpha_kernel, self.alpha),
        ):
            shift: Any = 0.0
            if own is not None:
                own = ops.convert_to_numpy(own)
                values.append(np.tensordot(kernel, own, 1))
                shift = np.tensordot(bias, own, 1)
            if constant is not None:
                values.append(ops.convert_to_numpy(constant) + shift)
        return values

    def _values(
        self, inputs: Tensor, kernel: Any, constant: Any, there: np.ndarray
    ) -> Tensor:
        """Values `(batch, outputs with a choice, k, m)`, 0 where none is `there`."""
        values = spread_pairs(ops.convert_to_tensor(constant), there)
        values = ops.expand_dims(ops.transpose(values, (1, 0, 2)), 0)
        if kernel is None:
            return values
        x = ops.cast(inputs, precise(self.dtype_policy))
        if self._slots is not None and len(self._choosing) < self._slots:
            x = ops.take(x, self._choosing, axis=1)
        products = "bd,dkrm->brkm" if self._slots is None else "brd,dkrm->brkm"
        spread = spread_pairs(ops.convert_to_tensor(kernel), there)
        return values + ops.einsum(products, x, spread)

    def _choose(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights and selectors `(batch, outputs with a choice, k, numbers)`.

        The batch of a static gate is 1. Without any choice there are no selectors.
        """
        if self.z is None:
            return ops.convert_to_tensor(self._certain()[None]), None
        z = self._values(inputs, self.z_kernel, self.z, self._digits)
        alpha = ops.zeros((1, 1, 1), z.dtype)
        if self.alpha is not None:
            kernel, constant = self.alpha_kernel, self.alpha
            alpha = self._values(inputs, kernel, constant, self._alphas)[..., 0]
        if not self._digits.all():  # an output with fewer experts than another
            z = ops.where(self._digits[:, None], z, -self.gamma)
        chosen, selectors = dselect_k(alpha, z, int(self._counts.max()), self.gamma)
        return self._spread(chosen), selectors

    def _spread(self, chosen: Tensor) -> Tensor:
        """Puts weights, in each output's own numbering, where its experts are."""
        certain, reachable = self._certain(), self._reachable()
        place = np.full(self._pairs.shape, reachable.size)  # of a 0 that is padded
        place[self._pairs & (certain == 0)] = np.flatnonzero(reachable)
        flat = ops.reshape(chosen, (-1, reachable.size))
        if not np.array_equal(place.ravel(), np.arange(reachable.size)):
            flat = ops.take(ops.pad(flat, [(0, 0), (0, 1)]), place.ravel(), axis=1)
        weights = ops.reshape(flat, (-1, *place.shape))
        return weights + ops.convert_to_tensor(certain) if certain.any() else weights

    def _certain(self) -> np.ndarray:
        """1 for the single expert of an output, `(outputs, experts)`."""
        certain = self._pairs.astype(precise(self.dtype_policy))
        certain[self._choosing] = 0
        return certain

    def _reachable(self) -> np.ndarray:
        """Numbers that an expert has, `(outputs with a choice, numbers)`."""
        return np.arange(self._counts.max(initial=0)) < self._counts[:, None]

    def _add_penalties(self, selectors: Tensor) -> None:
        incomplete = self._counts < 2 ** self._digits.sum(axis=1)
        if not (self.entropy or incomplete.any()):
            return
        reachable = ops.cast(self._reachable()[:, None], selectors.dtype)
        selectors = selectors * reachable
        penalties = self.entropy * selector_entropy(selectors)
        if incomplete.any():
            weight = ops.cast(incomplete[:, None], selectors.dtype)
            penalties = penalties + weight * reachability_penalty(selectors)
        batch = ops.cast(ops.maximum(ops.shape(selectors)[0], 1), selectors.dtype)
        penalty = ops.sum(penalties) / batch
        self.add_loss(ops.cast(penalty, keras.config.floatx()))  # as losses are
