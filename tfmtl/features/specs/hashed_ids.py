"""Ids hashed by arithmetic, which every server of a model can do."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfmtl.layers.fields import ColumnNumbers
from tfmtl.layers.hashed_cross import low_bits, mix

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class HashedIds(ColumnNumbers):
    """A row for each id: 0 for the negative ones, which are missing, else 1 … bins.

    ```
    y = 1 + mix(mix(mix(id) xor id >> 31) xor id >> 62) mod hash_bins
    input integers of any shape, or a list of columns (batch, 1) each
    output the same shape or shapes, int64
    ```

    All columns are hashed at once: a model of many is not many times the operations.
    Keras' `Hashing` turns integers into text first, which ONNX and LiteRT refuse.

    Args:
        hash_bins: Number of rows that the ids of each column are hashed to.
        **kwargs: `name`, `dtype`.
    """

    per_column = ("hash_bins",)
    takes_any_id = True

    def __init__(self, hash_bins: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hash_bins = list(hash_bins)

    def numbers(self, columns: Tensor) -> Tensor:
        """Returns rows, int32."""
        ids = ops.cast(columns, "int64")
        low = low_bits(ids)
        high = _high_bits(ids, low)
        mixed = mix(low)
        for bits in (low_bits(high), ops.cast(high < 0, "int32")):
            mixed = mix(ops.bitwise_xor(mixed, bits))
        rows = 1 + ops.mod(mixed, ops.convert_to_tensor(self.hash_bins, "int32"))
        return ops.where(ids < 0, 0, rows)


def _high_bits(ids: Tensor, low: Tensor) -> Tensor:
    """`ids >> 31` in 32 bits of non-negative ids, whose lower 31 bits are `low`.

    In two numbers of 16 bits, which float32 holds exactly: no converter shifts or
    divides int64. A first number that was rounded up makes the second one negative.
    """
    rest = ids - ops.cast(low, "int64")
    first = ops.floor(ops.cast(rest, "float32") * 2.0**-47)
    first = ops.minimum(first, 2.0**16 - 1)
    rest = rest - ops.cast(first * 2.0**47, "int64")
    second = ops.cast(ops.cast(rest, "float32") * 2.0**-31, "int32")
    return ops.cast(first, "int32") * 2**16 + second
