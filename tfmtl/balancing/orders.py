"""The random order in which a task meets the others."""

from typing import Any

import keras
from keras import ops

Tensor = Any


def random_orders(num_tasks: int, seed: Any) -> Tensor:
    """A fresh random order of the other tasks, for each task.

    Args:
        num_tasks: T.
        seed: `keras.random.SeedGenerator` or an integer.

    Returns:
        `(T, T - 1)` integers; row i is a permutation of the tasks but i.

    Example:
        >>> import tfmtl.balancing as balancing
        >>> balancing.random_orders(2, seed=0).numpy().tolist()
        [[1], [0]]
    """
    draws = keras.random.uniform((num_tasks, num_tasks), dtype="float32", seed=seed)
    itself_last = draws + 2.0 * ops.eye(num_tasks, dtype="float32")
    return ops.argsort(itself_last, axis=1)[:, :-1]
