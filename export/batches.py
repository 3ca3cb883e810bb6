"""Rows cut into requests, and how long these may take: what both clients share.

A server that batches refuses a request of more rows than its `max_batch_size`, and a
long one keeps short ones waiting. The standard library only.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

MAX_ROWS = 512  # `max_batch_size` in batching_parameters.txt


def parts(columns: Mapping[str, Any], max_rows: int) -> Iterator[dict[str, Any]]:
    """Cuts columns into parts of at most so many rows; without rows there is one.

    Args:
        columns: One array or list per column, all with the same number of rows.
        max_rows: The most rows of a part.

    Yields:
        The columns of each part.

    Raises:
        ValueError: If the numbers of rows differ, or `max_rows` is not positive.

    Example:
        `list(parts({"age": [[1.0], [2.0], [3.0]]}, 2))`
    """
    if max_rows < 1:
        raise ValueError(
            f"`max_rows` should be a positive integer. Received: max_rows={max_rows}"
        )
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(
            "`columns` should be one or more of the same number of rows. Received: "
            f"{counts}"
        )
    rows = next(iter(counts.values()))
    for start in range(0, max(rows, 1), max_rows):
        yield {
            name: column[start : start + max_rows] for name, column in columns.items()
        }


class Deadline:
    """The moment at which all requests of a call should be answered.

    Args:
        seconds: From now on.

    Example:
        `Deadline(2.0).left()`
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Returns the seconds that are left.

        Raises:
            TimeoutError: If there are none.
        """
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("The deadline has passed before the server answered.")
        return seconds
