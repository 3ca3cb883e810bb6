"""A uniform sample of a column's values, in one pass."""

import numpy as np

from tfmtl.features.learning.blocks import Blocks

CAPACITY = 1 << 20


class Sample:
    """All values up to a number, then a uniform sample of that size.

    Args:
        capacity: Number of values that are kept.

    Source: Vitter, "Random Sampling with a Reservoir", 1985, algorithm R.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._blocks = Blocks()
        self._kept = np.zeros(0, "f4")
        self._capacity = capacity
        self._seen = 0
        self._generator = np.random.default_rng(0)

    def update(self, values: np.ndarray) -> None:
        """Adds values, `(n,)`."""
        for block in self._blocks.add(values):
            self._add(block)

    def finish(self) -> np.ndarray:
        """The values kept, `(n,)`."""
        self._add(self._blocks.rest().reshape(-1).astype("f4"))
        self._blocks = Blocks()
        return self._kept

    def _add(self, values: np.ndarray) -> None:
        room = self._capacity - len(self._kept)
        self._kept = np.concatenate([self._kept, values[:room]])
        replacing = values[room:]
        first = self._seen + len(values) - len(replacing)
        places = self._generator.integers(0, first + 1 + np.arange(len(replacing)))
        chosen = places < self._capacity
        self._kept[places[chosen]] = replacing[chosen]  # the last one of a place stays
        self._seen += len(values)
