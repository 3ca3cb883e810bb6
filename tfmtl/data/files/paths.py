"""Which files are meant, and which of their pieces are one worker's."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import tensorflow as tf

Files = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A path, a glob, or several of them."""

Piece = TypeVar("Piece")


def matching(files: Files) -> list[str]:
    """Lists the files of paths and globs.

    Args:
        files: A path, a glob such as `"log/*.csv"`, or several of them. A glob's files
            come in the order of their names.

    Returns:
        At least one path, in the given order.

    Raises:
        FileNotFoundError: If a path or a glob has no file.
        ValueError: If nothing was given.
    """
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    if not given:
        raise ValueError("`files` should have at least one path. Received: []")
    return [path for pattern in given for path in _matching(os.fspath(pattern))]


def share(pieces: Sequence[Piece], shard: tuple[int, int] | None) -> list[Piece]:
    """Takes every `count`-th piece, from the `index`-th on.

    Args:
        pieces: Files, or parts of files.
        shard: `(index, count)`, or `None` for all.

    Raises:
        ValueError: If the index is not below the count, or there are fewer pieces
            than workers.

    Example:

    >>> share(["a", "b", "c"], (0, 2))
    ['a', 'c']
    """
    index, count = shard or (0, 1)
    if not 0 <= index < count <= len(pieces):
        raise ValueError(
            "`shard` should be (index, count) with an index below the count and a "
            f"count of at most {len(pieces)}, the files (Parquet: row groups). "
            f"Received: shard={shard}"
        )
    return list(pieces[index::count])


def check_headers(
    headers: Mapping[str, Sequence[str]], wanted: Iterable[str], inferred: bool
) -> None:
    """Checks that every file has the columns that are read.

    Args:
        headers: Path to the names of its columns.
        wanted: The columns that are read.
        inferred: Whether the first file's columns stand for those of all.

    Raises:
        ValueError: If a file lacks a column, or has others than the first where that
            one stands for all.
    """
    first, columns = next(iter(headers.items()))
    for path, names in headers.items():
        lacking = [name for name in wanted if name not in names]
        if lacking:
            raise ValueError(
                f"`{path}` should have the columns {lacking}. Received: columns "
                f"{list(names)}"
            )
        if inferred and set(names) != set(columns):
            raise ValueError(
                f"`{path}` should have the columns of `{first}`, or `schema` should "
                f"say which ones to read. Received: besides those of both, "
                f"{sorted(set(names) - set(columns))} in the one and "
                f"{sorted(set(columns) - set(names))} in the other"
            )


def _matching(pattern: str) -> list[str]:
    if tf.io.gfile.isdir(pattern):
        raise FileNotFoundError(
            f"`files` should be files or a glob of files. Received: {pattern!r}, a "
            "folder"
        )
    found = [pattern] if tf.io.gfile.exists(pattern) else tf.io.gfile.glob(pattern)
    if not found:
        raise FileNotFoundError(
            f"`files` should be files or a glob of files. Received: {pattern!r}, "
            "which no file matches"
        )
    return sorted(found)
