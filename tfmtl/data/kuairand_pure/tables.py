"""The raw files as tables: columns in NumPy, verified."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from tfmtl.data import raw_files
from tfmtl.data.kuairand_pure import columns, files, histories

Table = dict[str, np.ndarray]
"""Columns, `(rows,)` each: `int64`, `float64` with NaN where missing, or `bytes`."""

_LOG = dict.fromkeys(
    (
        *columns.LOG_INTEGER,
        *columns.TIME_COLUMNS,
        *columns.BINARY_TASKS.values(),
        "play_time_ms",
        "duration_ms",
    ),
    pa.int64(),
)
_USERS = (
    {"user_id": pa.int64()}
    | dict.fromkeys(columns.USER_NUMERIC + columns.USER_INTEGER, pa.float64())
    | dict.fromkeys(columns.USER_STRING, pa.binary())
)
_VIDEOS = (
    {"video_id": pa.int64(), "video_duration": pa.float64()}
    | dict.fromkeys(columns.VIDEO_NUMERIC + columns.VIDEO_INTEGER, pa.float64())
    | dict.fromkeys((*columns.VIDEO_STRING, "upload_dt", "tag"), pa.binary())
)
_LISTS = {"watched": "watch_seq", "liked": "like_seq", "long_watched": "long_watch_seq"}
_HISTORIES = {"user_id": pa.int64(), "history_len": pa.int64()} | dict.fromkeys(
    _LISTS.values(), pa.list_(pa.int64())
)


class Tables(NamedTuple):
    """What examples are made of.

    Attributes:
        log: The exposures from 2022-04-25 on.
        histories: What users did before.
        users: A row for each user.
        videos: A row for each video.
    """

    log: Table
    histories: histories.Histories
    users: Table
    videos: Table


def read(
    paths: Mapping[str, Path], sha256: Mapping[str, str], num_rows: Mapping[str, int]
) -> Tables:
    """Reads the files of either layout.

    Args:
        paths: Name to path, see `files.find`.
        sha256: CSV file to the checksum of its decompressed bytes.
        num_rows: Parquet file to its number of rows.

    Returns:
        The tables.

    Raises:
        ValueError: If a file is unreadable, is not the expected one, or lacks a column.
    """

    def from_csv(name: str, schema: dict[str, pa.DataType]) -> Table:
        raw = raw_files.read(paths[name], name, sha256[name])
        return _numpy(_read_csv(raw, name, schema))

    def from_parquet(name: str, schema: dict[str, pa.DataType]) -> pa.Table:
        return _read_parquet(
            raw_files.read(paths[name], name), name, schema, num_rows[name]
        )

    if files.EXTRACT_LOG in paths:
        log = _numpy(from_parquet(files.EXTRACT_LOG, _LOG))
        past = _listed(from_parquet(files.EXTRACT_HISTORIES, _HISTORIES))
    else:
        logs = [from_csv(name, _LOG) for name in (files.EARLY_LOG, files.LATE_LOG)]
        whole = {name: np.concatenate([part[name] for part in logs]) for name in _LOG}
        before = whole["date"] <= columns.LAST_HISTORY_DATE
        log = {name: column[~before] for name, column in whole.items()}
        past = _logged({name: column[before] for name, column in whole.items()})
    return Tables(
        log, past, from_csv(files.USERS, _USERS), from_csv(files.VIDEOS, _VIDEOS)
    )


def _logged(events: Table) -> histories.Histories:
    kinds = {
        "watched": np.full(len(events["user_id"]), True),
        "liked": events["is_like"] > 0,
        "long_watched": events["long_view"] > 0,
    }
    return histories.from_events(events, kinds, columns.HISTORY_LENGTH)


def _listed(table: pa.Table) -> histories.Histories:
    """The extract's histories: by user a list, the oldest first."""
    table = table.sort_by("user_id")
    user_id = table["user_id"].to_numpy()
    videos = {}
    for name, source in _LISTS.items():
        lists = table[source].combine_chunks()
        users = np.repeat(user_id, lists.value_lengths().to_numpy())
        videos[name] = histories.latest(
            user_id, users, lists.flatten().to_numpy(), columns.HISTORY_LENGTH
        )
    return histories.Histories(user_id, table["history_len"].to_numpy(), videos)


def _read_csv(raw: bytes, name: str, schema: dict[str, pa.DataType]) -> pa.Table:
    with _named(name):
        return csv.read_csv(
            io.BytesIO(raw),
            convert_options=csv.ConvertOptions(
                column_types=schema, include_columns=list(schema)
            ),
        )


def _read_parquet(
    raw: bytes, name: str, schema: dict[str, pa.DataType], num_rows: int
) -> pa.Table:
    with _named(name):
        table = parquet.read_table(io.BytesIO(raw))
        table = table.select(list(schema)).cast(pa.schema(schema.items()))
    if len(table) != num_rows:
        raise ValueError(
            f"`{name}` should have {num_rows} rows. Received: {len(table)} rows"
        )
    return table


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(
            f"`{name}` should be a table with the columns of KuaiRand-Pure. "
            f"Received: {error}"
        ) from error


def _numpy(table: pa.Table) -> Table:
    return {name: table[name].to_numpy() for name in table.column_names}
