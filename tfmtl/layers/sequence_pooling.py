"""Several embeddings as one."""

from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

_KINDS = ("mean", "sum", "max")


@keras.saving.register_keras_serializable(package="tfmtl")
class SequencePooling(keras.layers.Layer):
    """The mean, sum or maximum of a sequence's embeddings, without its padding.

    ```
    y = mean, sum or max of v_j over the positions j with id_j != 0; 0 without any
    input [v, ids] of shapes (batch, length, units) and (batch, length)
    output (batch, 1, units)
    ```

    Args:
        kind: `"mean"`, `"sum"` or `"max"`.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the kind is unknown or the input is no such pair.

    Example:
        >>> import keras, tfmtl
        >>> values = keras.ops.reshape(keras.ops.arange(6.0), (1, 3, 2))
        >>> ids = keras.ops.array([[5, 7, 0]])
        >>> y = tfmtl.layers.SequencePooling("mean")([values, ids])
        >>> [float(v) for v in y[0, 0]]
        [1.0, 2.0]
    """

    def __init__(self, kind: str = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kind not in _KINDS:
            raise ValueError(
                f"`kind` should be one of {_KINDS}. Received: kind={kind!r}"
            )
        self.kind = kind

    def build(self, input_shape: Any) -> None:
        """Checks the shapes."""
        check_sequence("SequencePooling", input_shape, "[values, ids]", 2)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the pooled embedding, `(batch, 1, units)`."""
        values, ids = inputs
        present = ops.expand_dims(ids != 0, -1)
        if self.kind == "max":
            lowest = ops.where(present, values, ops.full_like(values, -np.inf))
            largest = ops.max(lowest, axis=1, keepdims=True, initial=-np.inf)
            return ops.where(
                ops.any(present, axis=1, keepdims=True),
                largest,
                ops.zeros_like(largest),
            )
        weights = ops.cast(present, values.dtype)
        total = ops.sum(values * weights, axis=1, keepdims=True)
        if self.kind == "sum":
            return total
        count = ops.sum(weights, axis=1, keepdims=True)
        return total / ops.maximum(count, ops.ones_like(count))

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """`(batch, 1, units)`."""
        batch, _, units = input_shape[0]
        return (batch, 1, units)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "kind": self.kind}


def check_sequence(layer: str, shapes: Any, inputs: str, count: int) -> None:
    """Raises `ValueError` unless a layer is called on values, ids and so on."""
    parts = [tuple(shape) for shape in shapes if isinstance(shape, list | tuple)]
    if len(parts) != count or [len(shape) for shape in parts[:2]] != [3, 2]:
        raise ValueError(
            f"{layer} should be called on {inputs}, of shapes (batch, length, units) "
            f"and (batch, length). Received: shapes={shapes}"
        )
