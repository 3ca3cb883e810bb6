"""Ids hashed by arithmetic, which every server of a model can do."""

from typing import Any

import keras
from keras import ops

from tfmtl.layers.hashed_cross import mix

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class HashedIds(keras.layers.Layer):
    """A row for each id: 0 for the negative ones, which are missing, else 1 … bins.

    ```
    y = 1 + mix(mix(mix(id) xor id >> 31) xor id >> 62) mod hash_bins
    input integers of any shape, output the same shape, int64
    ```

    Keras' `Hashing` turns integers into text first, which OpenVINO, ONNX and LiteRT
    refuse.

    Args:
        hash_bins: Number of rows that ids are hashed to.
        **kwargs: `name`, `dtype`.
    """

    def __init__(self, hash_bins: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.hash_bins = hash_bins

    def call(self, inputs: Tensor) -> Tensor:
        """Returns rows."""
        ids = ops.cast(inputs, "int64")
        mixed = ops.zeros_like(ids)
        for bits in (0, 31, 62):
            mixed = mix(ops.bitwise_xor(mixed, ops.right_shift(ids, bits)))
        return ops.where(ids < 0, 0, 1 + ops.mod(mixed, self.hash_bins))

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """The input's shape, int64."""
        return keras.KerasTensor(inputs.shape, "int64")

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {**super().get_config(), "hash_bins": self.hash_bins}
