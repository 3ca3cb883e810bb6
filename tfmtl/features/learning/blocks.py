"""Rows in blocks of one size, however they arrive."""

from collections.abc import Iterator

import numpy as np


class Blocks:
    """Cuts batches of any size into equal blocks.

    What is learned block by block is then the same number to the last bit, whatever
    the batches were.

    Args:
        rows: Rows of a block.
    """

    def __init__(self, rows: int = 1 << 14) -> None:
        self._rows = rows
        self._held: list[np.ndarray] = []
        self._count = 0

    def add(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """Adds rows; gives the blocks that are full."""
        self._held.append(values)
        self._count += len(values)
        while self._count >= self._rows:
            joined = self.rest()
            for start in range(0, len(joined) - self._rows + 1, self._rows):
                yield joined[start : start + self._rows]
            self._held = [joined[len(joined) // self._rows * self._rows :]]
            self._count = len(self._held[0])

    def rest(self) -> np.ndarray:
        """The rows of the block that is not full."""
        return np.concatenate(self._held) if self._held else np.zeros((0, 1))
