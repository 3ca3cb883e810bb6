"""Combinations of ids as ids of their own."""

from typing import Any

import keras
from keras import ops

from tfmtl.layers.checks import positive_int
from tfmtl.layers.fields import side_by_side

Tensor = Any

_FACTOR = 0x45D9F3B  # odd, so that the product is a permutation


@keras.saving.register_keras_serializable(package="tfmtl")
class HashedCross(keras.layers.Layer):
    """One bin for each combination of the columns' ids.

    ```
    h_0 = 0,  h_k = mix(h_{k-1} xor id_k)  in 31 bits,  y = h_n mod hash_bins
    input (batch, columns) integers, or a list of columns (batch, 1) each
    output (batch, 1) int64
    ```

    Plain arithmetic on integers: the same bin in every process and on every backend.
    The order of the columns matters. Unlike combinations may share a bin.

    Args:
        hash_bins: Number of bins.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the number of bins is not positive.

    Example:
        >>> import keras, tfmtl
        >>> ids = keras.ops.array([[1, 2], [1, 3], [1, 2]])
        >>> bins = tfmtl.layers.HashedCross(100)(ids)
        >>> bool(bins[0, 0] == bins[2, 0]), bool(bins[0, 0] == bins[1, 0])
        (True, False)

    Source: the mixing is T. Mueller's integer hash, in 31 bits.
    """

    def __init__(self, hash_bins: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.hash_bins = positive_int("hash_bins", hash_bins)

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the bins, `(batch, 1)`."""
        ids = ops.cast(side_by_side(inputs), "int32")  # the lower 32 bits
        mixed = ops.zeros_like(ids[:, :1])
        for column in range(ids.shape[1]):
            mixed = mix(ops.bitwise_xor(mixed, ids[:, column : column + 1]))
        return ops.cast(ops.mod(mixed, self.hash_bins), "int64")

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """`(batch, 1)`, int64."""
        batch = keras.tree.flatten(inputs)[0].shape[0]
        return keras.KerasTensor((batch, 1), "int64")

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "hash_bins": self.hash_bins}


def mix(ids: Tensor) -> Tensor:
    """Mixes the lower 31 bits of integers: a permutation of these numbers, int32."""
    mixed = _fold(low_bits(ids))
    mixed = _fold(low_bits(mixed * _FACTOR))
    return _fold(low_bits(mixed * _FACTOR))


def low_bits(ids: Tensor) -> Tensor:
    """The lower 31 bits of integers, int32: not by `and`, which LiteRT lacks."""
    wrapped = ops.cast(ids, "int32")  # the lower 32 bits
    return ops.maximum(wrapped, ops.bitwise_xor(wrapped, -(2**31)))


def _fold(mixed: Tensor) -> Tensor:
    return ops.bitwise_xor(mixed, ops.right_shift(mixed, 16))
