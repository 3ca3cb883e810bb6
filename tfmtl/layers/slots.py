"""Small layers that fold puts between sub-networks: selecting, filling, scaling."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class GatherSlots(keras.layers.Layer):
    """Selects slots by index, and fills constants in where there is no slot.

    ```
    output slot k = input slot indices[k]      where indices[k] >= 0
                  = the next row of constants  where indices[k] = -1
    input (batch, slots, ...), output (batch, len(indices), ...)
    ```

    Args:
        indices: Input slot of each output slot, -1 for a constant.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an index is below -1.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.GatherSlots([2, 0])
        >>> x = keras.ops.reshape(keras.ops.arange(3.0), (1, 3, 1))
        >>> [float(v) for v in layer(x)[0, :, 0]]
        [2.0, 0.0]
    """

    def __init__(self, indices: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.indices = [int(k) for k in indices]
        if min(self.indices, default=0) < -1:
            raise ValueError(
                "`indices` should be slots from 0 on, or -1 for a constant. "
                f"Received: indices={self.indices}"
            )

    def build(self, input_shape: Any) -> None:
        """Creates the constants, 0 until they are set."""
        self.slots = input_shape[1]
        self.constants = None
        filled = self.indices.count(-1)
        if filled:
            self.constants = self.add_weight(
                name="constants",
                shape=(filled, *input_shape[2:]),
                initializer="zeros",
                trainable=False,
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the selected slots, `(batch, len(indices), ...)`."""
        if self.constants is None:
            return ops.take(inputs, self.indices, axis=1)
        shape = (ops.shape(inputs)[0], *self.constants.shape)
        filled = ops.broadcast_to(ops.cast(self.constants, inputs.dtype), shape)
        behind = iter(range(self.slots, self.slots + self.constants.shape[0]))
        take = [next(behind) if k < 0 else k for k in self.indices]
        return ops.take(ops.concatenate([inputs, filled], axis=1), take, axis=1)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """`(batch, len(indices), ...)`."""
        return (input_shape[0], len(self.indices), *input_shape[2:])

    def slot_reads(self) -> np.ndarray:
        """Which input slot each output is, `(outputs, inputs)`."""
        return np.array(self.indices)[:, None] == np.arange(self.slots)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer | None, np.ndarray]:
        """The selection among the slots given; no layer where it gives each once."""
        position = {int(slot): k for k, slot in enumerate(inputs)}
        indices = [position[self.indices[k]] for k in outputs]
        if sorted(indices) == list(range(len(inputs))):
            return None, outputs[np.argsort(indices)]
        layer = GatherSlots(indices, name=self.name, dtype=self.dtype_policy)
        return layer, outputs

    def part(self, outputs: np.ndarray, inputs: np.ndarray) -> keras.layers.Layer:
        """The selection of `outputs` among the slots given, constants included."""
        position = {-1: -1, **{int(slot): k for k, slot in enumerate(inputs)}}
        chosen = [self.indices[k] for k in outputs]
        selected = [position[k] for k in chosen]
        layer = GatherSlots(selected, name=self.name, dtype=self.dtype_policy)
        if self.constants is not None and -1 in chosen:
            shape = self.constants.shape[1:]
            layer.build((None, len(inputs), *shape))
            filled = np.cumsum(np.equal(self.indices, -1)) - 1  # row of each constant
            rows = [filled[k] for k in outputs if self.indices[k] == -1]
            constants: Any = layer.constants
            constants.assign(ops.convert_to_numpy(self.constants)[rows])
        return layer

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "indices": self.indices}


@keras.saving.register_keras_serializable(package="tfmtl")
class ScaleSlots(keras.layers.Layer):
    """Multiplies each slot by a number: what is left of gates that are not 0 or 1.

    ```
    y_k = scales_k x_k       input (batch, slots, ...), output the same shape
    ```

    Args:
        scales: The number of each slot.
        **kwargs: `name`, `dtype`.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.ScaleSlots([1.0, 0.5])
        >>> [float(v) for v in layer(keras.ops.ones((1, 2, 1)))[0, :, 0]]
        [1.0, 0.5]
    """

    def __init__(self, scales: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scales = [float(scale) for scale in scales]

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the scaled slots."""
        shape = (len(self.scales), *[1] * (len(inputs.shape) - 2))
        return inputs * ops.convert_to_tensor(
            np.array(self.scales, "f4").reshape(shape), self.compute_dtype
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's shape."""
        return input_shape

    def slot_reads(self) -> np.ndarray:
        """Each slot reads itself unless its number is 0."""
        return np.diag(np.array(self.scales) != 0)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer | None, np.ndarray]:
        """The same layer for the slots given."""
        scales = [self.scales[k] for k in inputs]
        if scales == [1.0] * len(scales):
            return None, inputs
        return ScaleSlots(scales, name=self.name, dtype=self.dtype_policy), inputs

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "scales": self.scales}


@keras.saving.register_keras_serializable(package="tfmtl")
class BroadcastConstant(keras.layers.Layer):
    """A constant, once for each example of its input.

    ```
    output[b] = value        input (batch, ...), output (batch, *shape)
    ```

    Args:
        shape: Shape of the constant, without the batch.
        **kwargs: `name`, `dtype`.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.BroadcastConstant((2,))
        >>> tuple(layer(keras.ops.ones((5, 3))).shape)
        (5, 2)
    """

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def build(self, input_shape: Any) -> None:
        """Creates the constant, 0 until it is set."""
        self.value = self.add_weight(
            name="value", shape=self.shape, initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the constant, `(batch, *shape)`."""
        shape = (ops.shape(inputs)[0], *self.shape)
        return ops.broadcast_to(ops.convert_to_tensor(self.value), shape)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """`(batch, *shape)`, in the layer's dtype."""
        return keras.KerasTensor((inputs.shape[0], *self.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "shape": self.shape}
