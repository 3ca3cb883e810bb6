"""Mean and standard deviation of columns of numbers, in one pass."""

import numpy as np

from tfmtl.features.learning.blocks import Blocks


class Moments:
    """Mean and standard deviation per column, in float64, NaN left out.

    ```
    n = n_a + n_b,   mean = mean_a + delta n_b / n,   delta = mean_b - mean_a
    M = M_a + M_b + delta^2 n_a n_b / n,              std = sqrt(M / n)
    ```

    Args:
        width: Number of columns.

    Source: Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances", 1979.
    """

    def __init__(self, width: int) -> None:
        self._blocks = Blocks()
        self._count, self._mean, self._squares = np.zeros((3, width))

    def update(self, values: np.ndarray) -> None:
        """Adds rows, `(rows, width)`."""
        for block in self._blocks.add(values):
            self._merge(block)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Number of values, mean and standard deviation, `(width,)` each."""
        rest = self._blocks.rest()
        if len(rest):
            self._merge(rest)
            self._blocks = Blocks()
        variance = self._squares / np.maximum(self._count, 1)
        return self._count, self._mean, np.sqrt(variance)

    def _merge(self, block: np.ndarray) -> None:
        present = ~np.isnan(block)
        count = present.sum(axis=0)
        mean = np.where(present, block, 0).sum(axis=0) / np.maximum(count, 1)
        squares = np.where(present, block - mean, 0) ** 2
        total = np.maximum(self._count + count, 1)
        delta = mean - self._mean
        self._squares += squares.sum(axis=0) + delta**2 * self._count * count / total
        self._mean = self._mean + delta * count / total
        self._count = self._count + count
