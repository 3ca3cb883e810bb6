"""Hard-concrete gates of which every row keeps one open."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.ops import spread_pairs

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class PairGate(HardConcreteGate):
    """A hard-concrete gate on each pair of an output and an expert it reads.

    ```
    z       as of HardConcreteGate; in a row that would be all 0, the pair of the
            largest log_alpha has z = 1
    loss    l0 * sum over rows (sum P(z != 0) - max P(z != 0))
    ```

    Renormalised weights do not change when all z of a row shrink alike, so a task's
    loss cannot hold its last pair open. Hence a row's most open pair is free, and the
    penalty counts what a row reads beyond one expert.

    z is packed, `(pairs,)`, row by row.

    Args:
        reads: Booleans `(outputs, experts)`: which pairs there are.
        **kwargs: Further arguments of `HardConcreteGate`.
    """

    def __init__(self, reads: Sequence[Sequence[bool]], **kwargs: Any) -> None:
        self._pairs = np.asarray(reads, bool)
        super().__init__((int(self._pairs.sum()),), **kwargs)

    def call(self, training: bool | None = None) -> Tensor:
        """Returns z, in [0, 1], `(pairs,)`; with noise in training only."""
        z = super().call(training)
        some = ops.any(spread_pairs(z, self._pairs) > 0, axis=1, keepdims=True)
        log_alpha = spread_pairs(self.log_alpha, self._pairs)
        log_alpha = ops.where(self._pairs, log_alpha, -np.inf)
        first = ops.one_hot(ops.argmax(log_alpha, axis=1), self._pairs.shape[1])
        return ops.where(self._pack(some | (first == 0)), z, ops.ones_like(z))

    def expected_open(self, log_alpha: Tensor | None = None) -> Tensor:
        """The number of open pairs to expect in training, beyond one for each row."""
        matrix = spread_pairs(self.open_probability(log_alpha), self._pairs)
        return ops.sum(matrix) - ops.sum(ops.max(matrix, axis=1))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        config = {**super().get_config(), "reads": self._pairs.tolist()}
        del config["shape"]
        return config

    def _pack(self, matrix: Tensor) -> Tensor:
        return ops.take(ops.reshape(matrix, (-1,)), np.flatnonzero(self._pairs))
