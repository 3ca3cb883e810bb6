"""Tables to columns: each exposure with its user, its video and its user's past."""

from typing import Any

import numpy as np

from tfmtl.data.kuairand_pure import columns
from tfmtl.data.kuairand_pure.tables import Table, Tables
from tfmtl.data.packed_columns import PADDING

_HOUR = 3_600_000
_BEIJING = 8  # Hours ahead of UTC, the whole year.
_THURSDAY = 3  # The first of January 1970.


def parse(tables: Tables, split: str) -> tuple[Table, Table]:
    """Makes the columns of one split. No row is dropped, duplicates included.

    Args:
        tables: The raw tables.
        split: `"train"`, exposures until 2022-05-04, or `"test"`, those after.

    Returns:
        `(features, labels)`: by column an array of all rows, in order of `time_ms`,
        then `user_id` and `video_id`.

    Raises:
        ValueError: If a video has more tags than `columns.MAX_TAGS`.
    """
    in_test = tables.log["date"] >= columns.FIRST_TEST_DATE
    rows = np.flatnonzero(in_test if split == "test" else ~in_test)
    keys = [tables.log[name][rows] for name in ("video_id", "user_id", "time_ms")]
    rows = rows[np.lexsort(keys)]
    log = {name: column[rows] for name, column in tables.log.items()}
    labels = {
        task: log[source].astype(np.float32)
        for task, source in columns.BINARY_TASKS.items()
    }
    labels["watch_time"] = (log["play_time_ms"] / 1000).astype(np.float32)
    features = (
        {name: log[name] for name in columns.TIME_COLUMNS + columns.LOG_INTEGER}
        | _clock(log["time_ms"])
        | _of_user(log["user_id"], tables.users)
        | _of_video(log, tables.videos)
        | _of_past(log["user_id"], tables)
    )
    return features, labels


def _clock(time_ms: np.ndarray) -> Table:
    hours = time_ms // _HOUR + _BEIJING
    return {"hour": hours % 24, "day_of_week": (hours // 24 + _THURSDAY) % 7}


def _of_user(user_id: np.ndarray, users: Table) -> Table:
    row = _rows_of(user_id, users["user_id"])
    return (
        {name: _numbers(users[name], row) for name in columns.USER_NUMERIC}
        | {name: _codes(users[name], row) for name in columns.USER_INTEGER}
        | {name: _take(users[name], row, b"") for name in columns.USER_STRING}
    )


def _of_video(log: Table, videos: Table) -> Table:
    row = _rows_of(log["video_id"], videos["video_id"])
    # The log says how long the video is, or 0; what the user watched is a label.
    listed = _take(videos["video_duration"], row, np.nan)
    duration = np.where(log["duration_ms"] > 0, log["duration_ms"], listed)
    day = (log["time_ms"] // _HOUR + _BEIJING) // 24
    uploaded = np.array(
        [text.decode() or "NaT" for text in videos["upload_dt"]], "M8[D]"
    )
    age = day.astype("M8[D]") - _take(uploaded, row, np.datetime64("NaT"))
    return (
        {
            "video_duration": (duration / 1000).astype(np.float32),
            "video_age": (age / np.timedelta64(1, "D")).astype(np.float32),
            "tag": _take(_tags(videos["tag"]), row, PADDING),
        }
        | {name: _numbers(videos[name], row) for name in columns.VIDEO_NUMERIC}
        | {name: _codes(videos[name], row) for name in columns.VIDEO_INTEGER}
        | {name: _take(videos[name], row, b"") for name in columns.VIDEO_STRING}
    )


def _of_past(user_id: np.ndarray, tables: Tables) -> Table:
    past = tables.histories
    row = _rows_of(user_id, past.user_id)
    return {"num_watched": _take(past.num_watched, row, 0).astype(np.float32)} | {
        name: _take(past.videos[name], row, PADDING) for name in columns.HISTORIES
    }


def _tags(texts: np.ndarray) -> np.ndarray:
    result = np.full((len(texts), columns.MAX_TAGS), PADDING, np.int64)
    for row, text in enumerate(texts):
        tags = text.split(b",") if text else []
        if len(tags) > columns.MAX_TAGS:
            raise ValueError(
                f"`tag` should list at most {columns.MAX_TAGS} tags. Received: {text!r}"
            )
        result[row, : len(tags)] = [int(tag) for tag in tags]
    return result


def _rows_of(keys: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Where each key is in a table's key column, -1 where it is not."""
    order = np.argsort(table, kind="stable")
    at = np.searchsorted(table, keys, sorter=order)
    row = np.append(order, -1)[at]
    return np.where(np.append(table, -1)[row] == keys, row, -1)


def _take(column: np.ndarray, row: np.ndarray, missing: Any) -> np.ndarray:
    """Rows of a column; row -1 is the missing value, put behind the last one."""
    last = np.full_like(column[:1], missing, shape=(1, *column.shape[1:]))
    return np.concatenate([column, last])[row]


def _numbers(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    return _take(column, row, np.nan).astype(np.float32)


def _codes(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    return np.nan_to_num(_take(column, row, np.nan), nan=PADDING).astype(np.int64)
