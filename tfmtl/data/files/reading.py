"""Windows of rows, permuted and cut into batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.data.files.schema import Column, Labels, dense, split

Take = Callable[[Any, tf.Tensor], dict[str, tf.Tensor | tf.RaggedTensor]]
"""A window and row numbers to the columns of these rows."""

_UNSHUFFLED = 8192  # Rows of a window whose order stays.


@dataclass(frozen=True)
class Reading:
    """How rows come.

    Attributes:
        batch_size: Rows of a batch.
        shuffle: Whether in a random order, another one in every epoch.
        buffer: How many rows are mixed with one another.
        seed: Of the orders.
        cache: Whether files are read once.
        drop_remainder: Whether a last smaller batch is dropped.
    """

    batch_size: int
    shuffle: bool
    buffer: int
    seed: int
    cache: bool
    drop_remainder: bool

    def __post_init__(self) -> None:
        for name in ("batch_size", "buffer"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(
                    f"`{name}` should be a positive integer. Received: {name}={value!r}"
                )

    @property
    def window(self) -> int:
        """Rows of a window: whole batches, so that only the last one is partial."""
        rows = self.buffer if self.shuffle else _UNSHUFFLED
        return -(-rows // self.batch_size) * self.batch_size

    def num_batches(self, num_rows: int) -> int:
        """Batches of an epoch of so many rows."""
        dropped = num_rows % self.batch_size if self.drop_remainder else 0
        return -(-(num_rows - dropped) // self.batch_size)

    def seeds(self) -> tf.data.Dataset:
        """Seeds without end, others in every epoch."""
        return tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True)


def cut(
    windows: tf.data.Dataset,
    count: Callable[[Any], tf.Tensor],
    take: Take,
    columns: list[Column],
    labels: Labels,
    reading: Reading,
) -> tf.data.Dataset:
    """Cuts windows into batches of `(features, labels)`.

    Args:
        windows: Of `reading.window` rows each, the last one of fewer.
        count: A window to its number of rows.
        take: A window and row numbers to the columns of these rows.
        columns: What is taken.
        labels: Which of it are labels.
        reading: How rows come.

    Returns:
        The batches, prefetched. The next window is read meanwhile.
    """
    size = reading.batch_size

    def rows(window: Any, seed: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(tf.cast(count(window), tf.int64))
        if reading.shuffle:
            order = tf.random.experimental.stateless_shuffle(order, [0, seed])
        stop = tf.size(order, out_type=tf.int64)
        stop -= stop % size if reading.drop_remainder else 0
        starts = tf.data.Dataset.range(0, stop, size)
        return starts.map(lambda i: (window, order[i : i + size]))

    def batch(window: Any, rows: tf.Tensor) -> tuple[Any, Any]:
        rows = tf.ensure_shape(rows, [size if reading.drop_remainder else None])
        taken = take(window, rows)
        return split({c.name: dense(c, taken[c.name]) for c in columns}, labels)

    windows = windows.cache() if reading.cache else windows.prefetch(1)
    return (
        tf.data.Dataset.zip(windows, reading.seeds())
        .flat_map(rows)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )
