"""Version folders: numbering, staging beside them, publishing by one rename.

A model server takes every child whose whole name is an integer for a version, and
never looks again at one that it could not load. So a version appears complete, under
its name, in one step.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfmtl.serving.saved_model import PathLike

LARGEST_VERSION = 2**63 - 1


def versions(base: PathLike) -> tuple[int, ...]:
    """Lists the versions that a model server would see.

    Args:
        base: The model's folder.

    Returns:
        The versions in ascending order; children with other names are ignored.

    Example:
        `versions("models/ranker")  # (1, 2)`
    """
    base = Path(base)
    names = [child.name for child in base.iterdir()] if base.is_dir() else []
    whole = [int(name) for name in names if re.fullmatch(r"[0-9]+", name)]
    return tuple(sorted(set(whole)))


def choose_version(base: PathLike, version: int | None) -> int:
    """Checks a wanted version, or takes the next one.

    Args:
        base: The model's folder.
        version: The wanted version; `None` for the largest plus one.

    Returns:
        The version.

    Raises:
        ValueError: If it is not an integer from 0 to 2**63 - 1.
        FileExistsError: If it exists.

    Example:
        `choose_version("models/ranker", None)  # 3`
    """
    existing = versions(base)
    if version is None:
        return max(existing, default=0) + 1
    is_integer = isinstance(version, int) and not isinstance(version, bool)
    if not is_integer or not 0 <= version <= LARGEST_VERSION:
        raise ValueError(
            "`version` should be an integer from 0 to 2**63 - 1. Received: "
            f"version={version!r}"
        )
    if version in existing:
        raise FileExistsError(
            f"`version` should be none of {list(existing)}, which exist in {base}. "
            f"Received: version={version}"
        )
    return version


@contextmanager
def staging(base: PathLike) -> Iterator[Path]:
    """Makes a folder beside the versions that no server reads, and removes it after.

    Args:
        base: The model's folder; made if it is missing.

    Yields:
        The folder, on the same file system as the versions.

    Example:
        `with staging(base) as folder: ...; publish(folder, base, 3)`
    """
    base = Path(base)
    base.mkdir(parents=True, exist_ok=True)
    folder = base / f".staging-{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, base: PathLike, version: int) -> Path:
    """Gives a complete folder its version's name, on disk and in one step.

    Of two at once one fails: a folder is never renamed onto one that holds files.

    Args:
        folder: The complete folder.
        base: The model's folder.
        version: The version.

    Returns:
        The folder's new path.

    Raises:
        FileExistsError: If the version exists by now.

    Example:
        `publish(folder, "models/ranker", 3)`
    """
    choose_version(base, version)
    target = Path(base) / str(version)
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
    try:
        os.rename(folder, target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(
                f"`version` should be one that does not exist in {base}. Received: "
                f"version={version}"
            ) from error
        raise
    _sync(Path(base))
    return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
