"""Sums over long streams, in float32."""

from typing import Any

import keras
from keras import ops

Tensor = Any


class CompensatedSum(keras.metrics.Metric):
    """Sum of tensors of one shape that keeps what rounding loses.

    A plain float32 sum stops growing: 2^24 + 1 = 2^24. Here the rounding error of
    every addition, which is a float32 number itself, is summed beside the total.
    The sum then carries about 48 bits, on backends without float64 too: a stream of
    1e8 rows is as exact as its batches, each summed at once.

    Args:
        shape: Shape of the tensors.
        name: Name of the metric. Defaults to `"sum"`.
        dtype: Type of the state. Defaults to `None`, `keras.config.floatx()`.

    Example:
        >>> from tfmtl.metrics.sums import CompensatedSum
        >>> total = CompensatedSum(())
        >>> for value in [2.0**24, 1.0, 1.0]:
        ...     total.update_state(value)
        >>> int(total.result()) - 2**24
        2

    Source: Knuth, The Art of Computer Programming 2, section 4.2.2 (TwoSum).
    """

    def __init__(
        self, shape: tuple[int, ...], name: str = "sum", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self._zeros(shape, "total")
        self.lost = self._zeros(shape, "lost")

    def update_state(self, values: Tensor) -> None:
        """Adds a tensor."""
        values = ops.convert_to_tensor(values, self.dtype)
        old = ops.convert_to_tensor(self.total)
        total = old + values
        added = total - old
        lost = (old - (total - added)) + (values - added)
        self.total.assign(total)
        self.lost.assign_add(lost)

    def result(self) -> Tensor:
        """The sum."""
        return self.total + self.lost

    def _zeros(self, shape: tuple[int, ...], name: str) -> Any:
        return self.add_variable(shape, "zeros", dtype=self.dtype, name=name)
