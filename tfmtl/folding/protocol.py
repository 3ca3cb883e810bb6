"""What a layer tells about its slots, so that fold can make it smaller."""

from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np


@runtime_checkable
class SlotLayer(Protocol):
    """A layer whose output slots read some of its input slots.

    Fold knows no layer classes: whatever has these two methods takes part. Its
    input and its output are a tensor with slots or a list of single slots.

    A layer whose folded layer also takes a list of single slots says so by
    `reads_apart`; a folded layer that gains from giving one, by `gains_apart`, and
    gives it once its `apart` is set. One that has layouts for a batch size and a device
    has `for_batch(batch_size, device)`, which returns, like `fold`, the layer in that
    layout and its outputs in their new order.

    Any layer whose input matters in training alone says so by `training_only`: it
    reads nothing, and an input that only such layers read is no input of the folded
    model.
    """

    def slot_reads(self) -> np.ndarray:
        """Which input slots each output slot reads in inference.

        Returns:
            Booleans `(output slots, input slots)`; a tensor without a slot axis
            counts as one slot.
        """

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer | None, np.ndarray]:
        """A built layer, with weights, that computes a part of this one.

        Args:
            outputs: Indices of the output slots to compute.
            inputs: Indices of the input slots it will be given, in order.
            constants: Values `(input slots, width)` of the slots that are
                constant, and 0 elsewhere.

        Returns:
            The smaller layer, or `None` where its output would be its input, and
            `outputs` in the order in which it gives them.
        """


@runtime_checkable
class GateLayer(Protocol):
    """A slot layer that weighs experts: `(batch, outputs, experts)` from a selector."""

    def slot_reads(self) -> np.ndarray:
        """As of a `SlotLayer`: which slots of the selector each output reads."""

    def open_pairs(self) -> np.ndarray:
        """Pairs whose weight may be other than 0, booleans `(outputs, experts)`."""

    def fold(
        self,
        outputs: np.ndarray,
        inputs: np.ndarray,
        constants: np.ndarray,
        columns: np.ndarray,
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """As of a `SlotLayer`, with weights for the experts of `columns` only."""


@runtime_checkable
class MixtureLayer(Protocol):
    """A layer without weights that is called on `[experts, weights of a gate]`."""

    def expert_reads(self, open_pairs: np.ndarray) -> np.ndarray:
        """Which experts each output reads, `(outputs, experts)`."""

    def fold_static(self, weights: np.ndarray) -> keras.layers.Layer:
        """A slot layer of the experts alone, where the weights are constants."""


@runtime_checkable
class TrainedLayer(Protocol):
    """A slot layer that is more in training than in inference, such as one with gates.

    Any other slot layer trains as it serves: it has `slot_reads` and `fold` in these
    methods' places. A `GateLayer` may have `trained_pairs`, in place of `open_pairs`,
    too; its `part` is given the columns as well.
    """

    def trained_reads(self) -> np.ndarray:
        """Which input slots each output slot reads in training, whatever its gates."""

    def part(self, outputs: np.ndarray, inputs: np.ndarray) -> keras.layers.Layer:
        """A built layer, with weights, for some of the slots, as it trains.

        Args:
            outputs: Indices of the output slots to compute, in order.
            inputs: Indices of the input slots it will be given, in order.
        """


@runtime_checkable
class ServedLayer(Protocol):
    """A layer that is simpler in inference than in training."""

    def served(self) -> keras.layers.Layer:
        """A built layer with the same outputs in inference, or the layer itself.

        Dropout is gone, and batch normalisation is in the kernel before it.
        """


@runtime_checkable
class KernelLayer(Protocol):
    """A layer that starts with a kernel, which can take in an affine map before it."""

    def behind(self, kernel: np.ndarray, bias: np.ndarray) -> keras.layers.Layer | None:
        """The layer of x where this one is given `x kernel + bias`.

        Args:
            kernel: `(d, d')`, of the last axis; the same for all slots.
            bias: `(d',)`.

        Returns:
            A built layer, or `None` where it cannot take the map in.
        """


@runtime_checkable
class OpeningLayer(Protocol):
    """A layer whose first kernel can go into the layer before it."""

    def opening(self) -> tuple[Any, ...] | None:
        """The first operation and what comes after it.

        ```
        f(x) = rest(h),   h_k = activation(x_{slots[k]} kernels_k + biases_k)
        ```

        Returns:
            `(slots, kernels (k, d, h), biases (k, h), activation, rest)`, where
            `slots` are `None` and k is 1 where all slots are treated alike, and `rest`
            is a built layer of h or `None` for h itself; or `None` where the first
            operation is another.
        """


@runtime_checkable
class LinearLayer(Protocol):
    """A layer that can take in the first kernels of the layers behind it."""

    def before(
        self,
        slots: list[int],
        kernels: np.ndarray,
        biases: np.ndarray,
        activation: Any,
    ) -> keras.layers.Layer | None:
        """The layer followed by the kernels, `h` of an `opening`, on its output slots.

        Returns:
            A built layer, or `None` where this one is not linear.
        """
