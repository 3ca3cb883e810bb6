"""Values of the pairs that exist, packed, and as a matrix."""

from typing import Any

import numpy as np
from keras import ops

Tensor = Any


def pair_index(reads: np.ndarray) -> np.ndarray:
    """Where each entry of a matrix of pairs is among those that exist.

    Args:
        reads: Booleans `(outputs, inputs)`: which pairs exist.

    Returns:
        Integers `(outputs, inputs)`: the number of the pair, row by row, and the
        count of all pairs where there is none.

    Example:
        >>> import numpy as np
        >>> from tfmtl.ops.pairs import pair_index
        >>> pair_index(np.array([[True, False], [True, True]])).tolist()
        [[0, 3], [1, 2]]
    """
    numbers = np.cumsum(reads.ravel()) - 1
    return np.where(reads, numbers.reshape(reads.shape), reads.sum())


def pack_pairs(matrix: Tensor, reads: np.ndarray) -> Tensor:
    """Takes the values of the pairs that exist out of a matrix.

    Args:
        matrix: `(..., outputs, inputs)`.
        reads: Booleans `(outputs, inputs)`: which pairs exist.

    Returns:
        `(..., pairs)`, row by row.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from tfmtl.ops.pairs import pack_pairs
        >>> reads = np.array([[True, False], [True, True]])
        >>> packed = pack_pairs(ops.array([[5.0, 0.0], [6.0, 7.0]]), reads)
        >>> ops.convert_to_numpy(packed).tolist()
        [5.0, 6.0, 7.0]
    """
    flat = ops.reshape(matrix, (*matrix.shape[:-2], reads.size))
    return ops.take(flat, np.flatnonzero(reads), axis=-1)


def spread_pairs(packed: Tensor, reads: np.ndarray) -> Tensor:
    """Puts the last axis of packed values where their pairs are, 0 elsewhere.

    Args:
        packed: `(..., pairs)`, row by row.
        reads: Booleans `(outputs, inputs)`: which pairs exist.

    Returns:
        `(..., outputs, inputs)`.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from tfmtl.ops.pairs import spread_pairs
        >>> reads = np.array([[True, False], [True, True]])
        >>> matrix = spread_pairs(ops.array([5.0, 6.0, 7.0]), reads)
        >>> ops.convert_to_numpy(matrix).tolist()
        [[5.0, 0.0], [6.0, 7.0]]
    """
    shape = (*packed.shape[:-1], *reads.shape)
    if not reads.all():
        padded = ops.pad(packed, [(0, 0)] * (len(packed.shape) - 1) + [(0, 1)])
        packed = ops.take(padded, pair_index(reads).ravel(), axis=-1)
    return ops.reshape(packed, shape)
