"""Embeddings of many categorical fields in one table."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import positive_int
from tfmtl.layers.fields import fields_of, side_by_side

Tensor = Any


def rows_of_fields(inputs: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of a table of all fields, one field's rows after the other's.

    Args:
        inputs: Ids `(batch, fields)`, or a list of fields, `(batch, 1)` each.
        sizes: Number of rows of each field.

    Returns:
        Rows `(batch, fields)`, int64; of an id outside its field the field's row 0.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    limits, first = (ops.convert_to_tensor(n, "int64") for n in (sizes, starts))
    ids = ops.cast(side_by_side(inputs), "int64")
    known = ops.logical_and(ids >= 0, ids < limits)
    return ops.where(known, ids + first, first)


@keras.saving.register_keras_serializable(package="tfmtl")
class FieldEmbedding(keras.layers.Layer):
    """One row per field and id, all fields in a single table.

    ```
    y_f = table[offset_f + id_f],   offset_f = sizes_0 + ... + sizes_{f-1}
    input (batch, fields) integers, or a list of fields (batch, 1) each
    output (batch, fields, units)
    ```

    One table means one look-up and one gradient, whatever the number of fields.
    An id outside `0 ... size - 1` reads row 0 of its field: it neither fails the
    batch nor reads another field's row.

    Args:
        sizes: Number of rows of each field.
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
        fields = fields_of(input_shape)
        self.apart = fields is not None
        if fields is not None and all(shape[1:] == (1,) for shape in fields):
            input_shape = (None, len(fields))
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
        rows = rows_of_fields(inputs, self.sizes)
        return ops.take(self.embeddings, rows, axis=0)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """`(batch, fields, units)`, in the layer's compute dtype."""
        batch = keras.tree.flatten(inputs)[0].shape[0]
        return keras.KerasTensor(
            (batch, len(self.sizes), self.units), self.compute_dtype
        )

    def slot_reads(self) -> np.ndarray:
        """Which input each field reads: its own, or the one tensor of all."""
        fields = len(self.sizes)
        return np.eye(fields, dtype=bool) if self.apart else np.ones((fields, 1), bool)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The table of the fields of `outputs` only, where fields come one by one."""
        ends = np.cumsum(self.sizes)
        kept = outputs if self.apart else np.arange(len(self.sizes))
        smaller = type(self).from_config(
            {**self.get_config(), "sizes": [self.sizes[k] for k in kept]}
        )
        smaller.build([(None, 1)] * len(kept) if self.apart else (None, len(kept)))
        rows = [np.arange(ends[k] - self.sizes[k], ends[k]) for k in kept]
        table = ops.convert_to_numpy(self.embeddings)
        smaller.embeddings.assign(table[np.concatenate(rows)])
        return smaller, kept

    def num_fields(self) -> int:
        """Number of fields."""
        return len(self.sizes)

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
