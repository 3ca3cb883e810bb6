"""Embeddings of many categorical fields in one table."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import positive_int

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class FieldEmbedding(keras.layers.Layer):
    """One row per field and id, all fields in a single table.

    ```
    y_f = table[offset_f + id_f],   offset_f = sizes_0 + ... + sizes_{f-1}
    input (batch, fields) integers, output (batch, fields, units)
    ```

    One table means one look-up and one gradient, whatever the number of fields.
    An id outside `0 ... size - 1` reads row 0 of its field, the unknown row: it
    neither fails the batch nor reads another field's row.

    Args:
        sizes: Number of rows of each field, unknown row included.
        units: Width of an embedding.
        embeddings_initializer: Initializer of the table. Defaults to `"uniform"`.
        embeddings_regularizer: Regulariser of the table. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If a size is not positive or the number of fields differs.

    Example:
        >>> import keras, tfmtl
        >>> layer = tfmtl.layers.FieldEmbedding([3, 5], 4)
        >>> tuple(layer(keras.ops.array([[0, 4], [2, -7]])).shape)
        (2, 2, 4)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        units: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sizes = [positive_int("sizes", n) for n in sizes]
        self.units = positive_int("units", units)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embeddings_regularizer = keras.regularizers.get(embeddings_regularizer)

    def build(self, input_shape: Any) -> None:
        """Creates the table."""
        if len(input_shape) != 2 or input_shape[1] != len(self.sizes):
            raise ValueError(
                f"FieldEmbedding should be called on ids of shape (batch, "
                f"{len(self.sizes)}). Received: shape={tuple(input_shape)}"
            )
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(sum(self.sizes), self.units),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the embeddings, `(batch, fields, units)`."""
        sizes = np.array(self.sizes)
        offsets = np.cumsum(sizes) - sizes
        ids = ops.cast(inputs, "int64")
        known = ops.logical_and(ids >= 0, ids < ops.convert_to_tensor(sizes, "int64"))
        ids = ops.where(known, ids, ops.zeros_like(ids))
        rows = ids + ops.convert_to_tensor(offsets, "int64")
        return ops.take(self.embeddings, rows, axis=0)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """`(batch, fields, units)`, in the layer's compute dtype."""
        shape = (inputs.shape[0], len(self.sizes), self.units)
        return keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "sizes": self.sizes,
            "units": self.units,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
            "embeddings_regularizer": keras.regularizers.serialize(
                self.embeddings_regularizer
            ),
        }
