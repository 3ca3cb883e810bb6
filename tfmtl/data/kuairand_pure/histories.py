"""Histories: the most recent videos of each user, from events in order of time."""

from typing import NamedTuple

import numpy as np

from tfmtl.data.packed_columns import PADDING


class Histories(NamedTuple):
    """What users did before the first exposure, a row for each user.

    Attributes:
        user_id: `(users,)`, ascending.
        num_watched: `(users,)`, how many exposures there were, also older ones.
        videos: By name `(users, length)` video ids, most recent first, padded with -1.
    """

    user_id: np.ndarray
    num_watched: np.ndarray
    videos: dict[str, np.ndarray]


def latest(
    user_id: np.ndarray, users: np.ndarray, videos: np.ndarray, length: int
) -> np.ndarray:
    """Keeps the last videos of each user.

    Args:
        user_id: `(n,)`, the rows of the result, ascending.
        users: `(events,)`, ascending and all in `user_id`.
        videos: `(events,)`, each user's from the oldest to the most recent.
        length: How many videos of a user to keep.

    Returns:
        `(n, length)` int64, most recent first, padded with -1 at the end.

    Example:

    >>> latest(np.array([3, 4]), np.array([3, 3, 3]), np.array([7, 8, 9]), 2)
    array([[ 9,  8],
           [-1, -1]])
    """
    past = np.searchsorted(users, users, side="right") - np.arange(len(users)) - 1
    kept = past < length
    result = np.full((len(user_id), length), PADDING, np.int64)
    result[np.searchsorted(user_id, users[kept]), past[kept]] = videos[kept]
    return result


def from_events(
    events: dict[str, np.ndarray], kinds: dict[str, np.ndarray], length: int
) -> Histories:
    """Makes histories of a log's rows.

    Args:
        events: Columns `user_id`, `video_id` and `time_ms`, in any order of rows.
        kinds: By name of a history, which rows belong to it, `(rows,)` bool.
        length: How many videos of a user to keep.

    Returns:
        The histories of all users in the log.
    """
    order = np.lexsort((events["video_id"], events["time_ms"], events["user_id"]))
    users, videos = events["user_id"][order], events["video_id"][order]
    user_id, num_watched = np.unique(users, return_counts=True)
    kept = {name: rows[order] for name, rows in kinds.items()}
    return Histories(
        user_id,
        num_watched,
        {
            name: latest(user_id, users[rows], videos[rows], length)
            for name, rows in kept.items()
        },
    )
