"""What is left of a transformation routing once its gates are folded in."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import known_slots, positive_int
from tfmtl.ops.grouping import group_outputs

Tensor = Any


class _Gaps(keras.constraints.Constraint):
    """Keeps the gaps of a group's kernel at 0, after every optimiser step.

    Args:
        opened: Booleans `(j, i)`, false where a block of the kernel is a gap.
    """

    def __init__(self, opened: np.ndarray) -> None:
        self._opened = opened[:, None, :, None]

    def __call__(self, kernel: Tensor) -> Tensor:
        kernel = ops.convert_to_tensor(kernel)
        j, _, i, _ = self._opened.shape
        d, h = kernel.shape[0] // j, kernel.shape[1] // i
        blocks = ops.reshape(kernel, (j, d, i, h))
        blocks = ops.where(self._opened, blocks, ops.zeros_like(blocks))
        return ops.reshape(blocks, kernel.shape)

    def initial(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        """A kernel to start with."""
        return self(keras.initializers.GlorotUniform()(shape, dtype))


@keras.saving.register_keras_serializable(package="tfmtl")
class PrunedTransformation(keras.layers.Layer):
    """Routing between slots with the closed connections left out.

    ```
    v_i = activation(sum_{j open to i} W_ij u_j + b_i)
    input (batch, j, d) or a list of j tensors (batch, d)
    output (batch, i, h), or where `apart` a list of i tensors (batch, h)
    ```

    Outputs are computed in groups: one product of the slots that a group reads,
    side by side, with the group's kernel. `tfmtl.folding.fold` makes this layer;
    it is an ordinary trainable layer. Where a group holds outputs that read
    different slots, its kernel has gaps: zeros that stay zero in training.

    Args:
        groups: Pairs `(inputs, outputs)` of slot indices; the groups' outputs,
            one after the other, are 0, 1, 2, ….
        units: Width h of an output slot.
        activation: Keras activation. Defaults to `None`.
        use_bias: Whether to add a bias. Defaults to `False`.
        apart: Whether to return the outputs as a list, which saves putting them
            together where they are read one by one. Defaults to `False`.
        reads: For each output the input slots that it reads, of those of its group.
            Defaults to `None`, all of them.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If the outputs are not 0, 1, 2, … in order, or `reads` does not
            fit the groups.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.PrunedTransformation([([0, 2], [0]), ([1], [1])], 4)
        >>> tuple(layer(keras.ops.ones((5, 3, 8))).shape)
        (5, 2, 4)

    Source: Ma et al., AAAI 2019 (SNR-Trans): each z_ij = 0 deletes its W_ij.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[int], Sequence[int]]],
        units: int,
        activation: Any = None,
        use_bias: bool = False,
        apart: bool = False,
        reads: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.groups = [(list(inputs), list(outputs)) for inputs, outputs in groups]
        computed = [i for _, outputs in self.groups for i in outputs]
        if not computed or computed != list(range(len(computed))):
            raise ValueError(
                "The outputs of `groups` should be 0, 1, 2, … in order. "
                f"Received: groups={self.groups}"
            )
        self.num_outputs = len(computed)
        self.units = positive_int("units", units)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.apart = apart
        every = [inputs for inputs, outputs in self.groups for _ in outputs]
        self.reads = every if reads is None else [list(inputs) for inputs in reads]
        if len(self.reads) != self.num_outputs or any(
            set(own) - set(inputs)
            for own, inputs in zip(self.reads, every, strict=True)
        ):
            raise ValueError(
                f"`reads` should have {self.num_outputs} lists of slots, each of those "
                f"that the output's group reads. Received: reads={self.reads}"
            )
        self._gaps = [self._gaps_of(*group) for group in self.groups]

    @classmethod
    def of(
        cls,
        kernel: np.ndarray,
        outputs: np.ndarray,
        inputs: np.ndarray,
        constants: np.ndarray,
        *,
        bias: np.ndarray | None,
        batch_size: int | None = None,
        device: str = "cpu",
        **kwargs: Any,
    ) -> tuple["PrunedTransformation", np.ndarray]:
        """Builds the layer from a dense kernel.

        Args:
            kernel: `(j, d, i, h)`, zero where a connection is closed.
            outputs: Indices of the outputs to keep.
            inputs: Indices of the input slots that are left.
            constants: `(j, d)`: the values of slots that are constant, else 0;
                what they contribute becomes bias.
            bias: `(i, h)` or `None`.
            batch_size: Number of examples to be fast for, see
                `tfmtl.ops.grouping.group_outputs`.
            device: Where to be fast, `"cpu"` or `"gpu"`. Defaults to `"cpu"`.
            **kwargs: Other arguments of the layer.

        Returns:
            The layer, and `outputs` in the order of its groups.
        """
        blocks = kernel[inputs][:, :, outputs]
        _, width, _, units = blocks.shape
        opened = _connections(blocks)
        groups = group_outputs(opened, width, units, batch_size, device)
        kernels = [_block(blocks, reads, computes) for reads, computes in groups]
        order = [i for _, computes in groups for i in computes]
        outputs, slots = outputs[order], _slots(opened[order])
        new_bias = np.einsum("jd,jdih->ih", constants, kernel)[outputs]
        if bias is not None:
            new_bias = new_bias + bias[outputs]
        use_bias = bias is not None or bool(new_bias.any())
        numbers = iter(range(len(outputs)))
        in_order = [
            (reads, [next(numbers) for _ in computes]) for reads, computes in groups
        ]
        layer = cls(in_order, units, use_bias=use_bias, reads=slots, **kwargs)
        layer.build((None, len(inputs), width))
        layer.set_weights([*kernels, *([new_bias] if use_bias else [])])
        return layer, outputs

    def build(self, input_shape: Any) -> None:
        """Creates one kernel per group and the bias."""
        if isinstance(input_shape[0], (list, tuple)):
            input_shape = (None, len(input_shape), input_shape[0][-1])
        self.slots, self.width = known_slots("PrunedTransformation", input_shape)
        groups = zip(self.groups, self._gaps, strict=True)
        self.kernels = [
            self.add_weight(
                name=f"kernel_{k}",
                shape=(len(inputs) * self.width, len(outputs) * self.units),
                initializer=gaps.initial if gaps else "glorot_uniform",
                constraint=gaps,
            )
            for k, ((inputs, outputs), gaps) in enumerate(groups)
        ]
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.num_outputs, self.units), initializer="zeros"
            )
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the upper sub-networks, `(batch, i, h)` or one by one."""
        kernels = self.kernels
        if training:  # no gradient for gaps, which norms and averages would count
            pairs = zip(kernels, self._gaps, strict=True)
            kernels = [gaps(kernel) if gaps else kernel for kernel, gaps in pairs]
        if len(self.groups) > 1 and not isinstance(inputs, (list, tuple)):
            inputs = ops.unstack(inputs, axis=1)  # a gather is a dozen operations
        products = [
            ops.matmul(self._side_by_side(inputs, reads), kernel)
            for (reads, _), kernel in zip(self.groups, kernels, strict=True)
        ]
        if self.apart:
            return self._one_by_one(products)
        joined = products[0] if len(products) == 1 else ops.concatenate(products, -1)
        outputs = ops.reshape(joined, (-1, self.num_outputs, self.units))
        if self.bias is not None:  # here: fused with a small product it is slower
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """`(batch, i, h)`, or i times `(batch, h)`."""
        first = input_shape[0]
        batch = first[0] if isinstance(first, (list, tuple)) else first
        if self.apart:
            return [(batch, self.units)] * self.num_outputs
        return (batch, self.num_outputs, self.units)

    @property
    def gains_apart(self) -> bool:
        """Whether the outputs are computed apart, so that a list costs nothing."""
        return len(self.groups) > 1

    @property
    def reads_apart(self) -> bool:
        """Whether the folded layer takes its input slots as a list."""
        return True

    def slot_reads(self) -> np.ndarray:
        """Which inputs each output reads, `(i, j)`: where its block is not 0."""
        return _connections(self._dense_kernel())

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same routing between the slots given only."""
        return self._laid_out(outputs, inputs, constants)

    def for_batch(
        self, batch_size: int | None, device: str
    ) -> tuple["PrunedTransformation", np.ndarray]:
        """The same routing in the layout that is fast for a batch size on a device.

        Args:
            batch_size: Number of examples, `None` for some hundreds.
            device: `"cpu"` or `"gpu"`.

        Returns:
            The layer, and the outputs in the order in which it gives them.
        """
        constants = np.zeros((self.slots, self.width), "f4")
        every = np.arange(self.num_outputs), np.arange(self.slots)
        return self._laid_out(*every, constants, batch_size, device)

    def _laid_out(
        self,
        outputs: np.ndarray,
        inputs: np.ndarray,
        constants: np.ndarray,
        batch_size: int | None = None,
        device: str = "cpu",
    ) -> tuple["PrunedTransformation", np.ndarray]:
        return self.of(
            self._dense_kernel(),
            outputs,
            inputs,
            constants,
            batch_size=batch_size,
            device=device,
            bias=None if self.bias is None else ops.convert_to_numpy(self.bias),
            activation=self.activation,
            apart=self.apart,
            trainable=self.trainable,
            name=self.name,
            dtype=self.dtype_policy,
        )

    def behind(self, kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer:
        """The same layer of x where each input slot is `x kernel + bias`."""
        dense, own = self._dense_kernel().astype("f8"), self._dense_bias()
        return self._dense(
            np.einsum("ed,jdih->jeih", kernel, dense),
            own + np.einsum("d,jdih->ih", bias, dense),
            self.activation,
            apart=self.apart,
        )

    def before(
        self,
        slots: list[int],
        kernels: np.ndarray,
        biases: np.ndarray,
        activation: Any,
    ) -> keras.layers.Layer | None:
        """The layer with a kernel behind each of some of its outputs.

        ```
        v_k = activation(u_{slots[k]} kernels_k + biases_k),   u what the layer gives
        ```

        Args:
            slots: An output of this layer for each output of the new one.
            kernels: `(k, h, t)`.
            biases: `(k, t)`.
            activation: Of the new layer.

        Returns:
            The new layer, or `None` where this one is not linear.
        """
        if self.activation is not keras.activations.linear:
            return None
        dense = self._dense_kernel().astype("f8")[:, :, slots]
        bias = biases + np.einsum("kh,kht->kt", self._dense_bias()[slots], kernels)
        return self._dense(
            np.einsum("jdkh,kht->jdkt", dense, kernels), bias, activation
        )

    def connections(self) -> int:
        """Number of connections: blocks that are not 0."""
        return int(self.slot_reads().sum())

    def strengths(self) -> np.ndarray:
        """Size of what each connection does, `(i, j)`: the norm of its block."""
        return np.sqrt(np.square(self._dense_kernel()).sum(axis=(1, 3))).T

    def flops(self) -> int:
        """Floating-point operations of the products, per example."""
        return sum(2 * int(np.prod(kernel.shape)) for kernel in self.kernels)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "groups": self.groups,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "apart": self.apart,
            "reads": self.reads if any(self._gaps) else None,
        }

    def _gaps_of(self, inputs: list[int], outputs: list[int]) -> _Gaps | None:
        opened = np.array([[j in self.reads[i] for i in outputs] for j in inputs])
        return None if opened.all() else _Gaps(opened)

    def _dense_bias(self) -> np.ndarray:
        if self.bias is None:
            return np.zeros((self.num_outputs, self.units))
        return ops.convert_to_numpy(self.bias)

    def _dense(
        self, kernel: np.ndarray, bias: np.ndarray, activation: Any, apart: bool = False
    ) -> "PrunedTransformation":
        """A layer of one group, with the kernel `(j, d, i, h)`; a fold groups it."""
        j, d, i, h = kernel.shape
        use_bias = self.use_bias or bool(bias.any())
        layer = type(self)(
            [(range(j), range(i))],
            h,
            activation=activation,
            use_bias=use_bias,
            apart=apart,
            reads=_slots(_connections(kernel)),
            trainable=self.trainable,
            name=self.name,
            dtype=self.dtype_policy,
        )
        layer.build((None, j, d))
        whole = kernel.reshape(j * d, i * h)
        layer.set_weights([whole, *([bias] if use_bias else [])])
        return layer

    def _side_by_side(self, inputs: Tensor, slots: list[int]) -> Tensor:
        if isinstance(inputs, (list, tuple)):
            parts = [inputs[k] for k in slots]
            return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
        if slots != list(range(self.slots)):
            inputs = ops.take(inputs, slots, axis=1)
        return ops.reshape(inputs, (-1, len(slots) * self.width))

    def _one_by_one(self, products: list[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = []
        biases: list[Tensor] = []
        if self.bias is not None:
            biases = ops.unstack(ops.convert_to_tensor(self.bias))
        for (_, computes), product in zip(self.groups, products, strict=True):
            several = len(computes) > 1
            if biases:
                own = [biases[i] for i in computes]
                product = product + (ops.concatenate(own) if several else own[0])
            parts = ops.split(product, len(computes), -1) if several else [product]
            outputs.extend(map(self.activation, parts))
        return outputs

    def _dense_kernel(self) -> np.ndarray:
        shape = (self.slots, self.width, self.num_outputs, self.units)
        dense = np.zeros(shape, self.kernels[0].dtype)
        for (reads, computes), kernel in zip(self.groups, self.kernels, strict=True):
            block = ops.convert_to_numpy(kernel).reshape(
                len(reads), self.width, len(computes), self.units
            )
            # two index lists select their product when they are applied in turn
            view = dense[:, :, computes]
            view[reads] = block
            dense[:, :, computes] = view
        return dense


def _connections(kernel: np.ndarray) -> np.ndarray:
    """Which inputs each output of a kernel `(j, d, i, h)` reads, `(i, j)`."""
    return np.any(kernel != 0, axis=(1, 3)).T


def _slots(reads: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in reads]


def _block(kernel: np.ndarray, reads: list[int], computes: list[int]) -> np.ndarray:
    block = kernel[reads][:, :, computes]
    j, d, i, h = block.shape
    return block.reshape(j * d, i * h)
