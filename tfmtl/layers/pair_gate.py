"""Hard-concrete gates of which every row keeps one open."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.ops import spread_pairs
from tfmtl.ops.pairs import pack_pairs, pair_index

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class PairGate(HardConcreteGate):
    """A hard-concrete gate on each pair of an output and an expert it reads.

    ```
    z       as of HardConcreteGate; in a row that would be all 0, the pair of the
            largest log_alpha has z = 1
    loss    sum l0 P(z != 0) over the pairs that are not their row's most open one
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
        kept = ops.logical_not(some) & self._most_open(self.log_alpha)
        return ops.where(pack_pairs(kept, self._pairs), ops.ones_like(z), z)

    def penalised(self, log_alpha: Tensor | None = None) -> Tensor:
        """What the penalty counts of each pair: nothing of a row's most open one."""
        if log_alpha is None:
            log_alpha = self.log_alpha
        probability = self.open_probability(log_alpha)
        free = pack_pairs(self._most_open(log_alpha), self._pairs)
        return ops.where(free, ops.zeros_like(probability), probability)

    def of_inputs(self) -> list[np.ndarray]:
        """The pairs of each expert, as indices of z."""
        numbers = pair_index(self._pairs)
        return [numbers[self._pairs[:, e], e] for e in range(self._pairs.shape[1])]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        config = {**super().get_config(), "reads": self._pairs.tolist()}
        del config["shape"]
        return config

    def _most_open(self, log_alpha: Tensor) -> Tensor:
        """Booleans `(outputs, experts)`: each row's first largest log_alpha."""
        matrix = ops.where(self._pairs, spread_pairs(log_alpha, self._pairs), -np.inf)
        return ops.one_hot(ops.argmax(matrix, axis=1), self._pairs.shape[1]) > 0
