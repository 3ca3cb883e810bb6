"""Version folders: numbering, staging beside them, publishing by one rename.

A model server takes every child whose whole name is an integer for a version, and
never looks again at one that it could not load. So a version appears complete, under
its name, in one step.

Who lives is told by locks that the kernel drops when a process ends, however it ends:
`<base>/.lock` while a name is given, `<base>/.staging-…/owner` while a version is
written. They need a file system with `flock`; NFS has it where its lock service runs.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

from tfmtl.serving.saved_model import PathLike

LARGEST_VERSION = 2**63 - 1
LOCK = ".lock"
OWNER = "owner"
STAGING = ".staging-"
_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))


class DiskFullError(OSError):
    """A version, or a temporary file, could not be written: the disk is full.

    Attributes:
        filename: The folder that has no room.
    """


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
    return tuple(sorted({int(name) for name in names if is_version(name)}))


def is_version(name: str) -> bool:
    """Whether a child of this name is a version.

    Args:
        name: The whole name.

    Returns:
        Whether it consists of ASCII digits, at most 2**63 - 1.

    Example:
        `is_version("007")  # True`
    """
    is_number = re.fullmatch(r"[0-9]+", name) is not None
    return is_number and int(name) <= LARGEST_VERSION


def folder_of(base: PathLike, version: int) -> Path:
    """Finds the folder of a version, also of one with zeros before its number.

    Args:
        base: The model's folder.
        version: One of `versions(base)`.

    Returns:
        The folder.

    Example:
        `folder_of("models/ranker", 2)  # models/ranker/2`
    """
    children = sorted(child for child in Path(base).iterdir() if is_version(child.name))
    return next(child for child in children if int(child.name) == version)


def choose_version(base: PathLike, version: int | None) -> int:
    """Checks a wanted version, or takes the next one.

    Args:
        base: The model's folder.
        version: The wanted version; `None` for the largest plus one.

    Returns:
        The version.

    Raises:
        ValueError: If it is not an integer from 0 to 2**63 - 1, or `base` is no folder
            of this machine.
        FileExistsError: If it exists.

    Example:
        `choose_version("models/ranker", None)  # 3`
    """
    if "://" in str(base):
        raise ValueError(
            "`base` should be a folder; `tfmtl.serving.upload` takes a version from "
            f"there to an object store. Received: base={base}"
        )
    existing = versions(base)
    if version is None:
        version = max(existing, default=0) + 1
    is_integer = isinstance(version, Integral) and not isinstance(version, bool)
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
    return int(version)


@contextmanager
def staging(base: PathLike, needed: int = 0) -> Iterator[Path]:
    """Makes a folder beside the versions that no server reads, and removes it after.

    What killed processes left behind is removed first. A folder whose process lives
    stays, however old.

    Args:
        base: The model's folder; made if it is missing.
        needed: The bytes that will be written at least, if known.

    Yields:
        The folder, on the same file system as the versions.

    Raises:
        DiskFullError: If fewer bytes are free, or if writing fails for want of room.
        TimeoutError: If another process holds the lock of `base` for too long.

    Example:
        `with staging(base) as folder: ...; publish(folder, base)`
    """
    base = Path(base)
    if base.exists() and not base.is_dir():
        raise NotADirectoryError(f"`base` should be a folder. Received: base={base}")
    written = 0
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _own_folder(base) as folder:
            if shutil.disk_usage(base).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(base))
            try:
                yield folder
            finally:
                written = _size(folder)
    except Exception as error:
        if not _is_full(error):
            raise
        free = shutil.disk_usage(base).free if base.is_dir() else 0
        raise DiskFullError(
            errno.ENOSPC,
            "The file system should have room for the version. Received: "
            f"{needed or 'an unknown number of'} bytes needed, {written} written, "
            f"{free} free after removing them",
            str(base),
        ) from error


@contextmanager
def temporary_files() -> Iterator[None]:
    """Tells of temporary files that had no room: their folder is not the versions'.

    Yields:
        Nothing.

    Raises:
        DiskFullError: If writing fails for want of room.

    Example:
        `with temporary_files(), tempfile.TemporaryDirectory() as folder: ...`
    """
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        folder = tempfile.gettempdir()
        raise DiskFullError(
            errno.ENOSPC,
            "The folder of temporary files, which TMPDIR names, should have room. "
            f"Received: {shutil.disk_usage(folder).free} free after removing them",
            folder,
        ) from error


def _is_full(error: Exception) -> bool:
    """Whether a file system was full, of which nobody has told yet."""
    told = isinstance(error, DiskFullError)
    return not told and any(reason in str(error) for reason in _FULL)


def publish(
    folder: Path, base: PathLike, version: int | None = None, *, timeout: float = 30.0
) -> Path:
    """Gives a complete folder its version's name, on disk and in one step.

    Everything is on disk before the name is. Under the lock of `base` the version is
    chosen, so that publishers at once get different ones, or looked for, as a rename
    onto an empty folder would replace it.

    Args:
        folder: The complete folder, as from `staging`.
        base: The model's folder.
        version: A version that does not exist. Defaults to the largest plus one.
        timeout: The seconds to wait for the lock, held for some milliseconds each.

    Returns:
        The folder's new path.

    Raises:
        ValueError: If the version is not an integer from 0 to 2**63 - 1.
        FileExistsError: If the version exists.
        TimeoutError: If another process holds the lock for longer.

    Example:
        `publish(folder, "models/ranker")  # models/ranker/3`
    """
    base = Path(base)
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
    with locked(base, timeout):
        chosen = choose_version(base, version)
        target = base / str(chosen)
        try:
            os.rename(folder, target)
        except OSError as error:
            if target.exists():
                raise FileExistsError(
                    f"`version` should be one that does not exist in {base}. "
                    f"Received: version={chosen}"
                ) from error
            raise
        _sync(base)
    return target


@contextmanager
def locked(folder: PathLike, timeout: float = 30.0) -> Iterator[None]:
    """Holds the lock of a folder, the file `.lock` in it.

    Args:
        folder: The folder.
        timeout: The seconds to wait for another process.

    Yields:
        Nothing.

    Raises:
        TimeoutError: If another process holds it for longer; the error names it.

    Example:
        `with locked("models/ranker"): ...`
    """
    file = Path(folder) / LOCK
    descriptor = _wait_for(file, timeout)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def replace_file(file: PathLike, content: bytes) -> None:
    """Writes a file beside its place, on disk, and renames it.

    Args:
        file: The file; an older one is replaced and hands on its mode.
        content: All that it should hold.

    Example:
        `replace_file("models.config", b"model_config_list {}")`
    """
    file = Path(file).resolve()  # of a link, what it leads to
    beside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        beside.write_bytes(content)
        if file.exists():
            shutil.copymode(file, beside)
        _sync(beside)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
    _sync(file.parent)


@contextmanager
def _own_folder(base: Path) -> Iterator[Path]:
    home = base / f"{STAGING}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        with locked(base):  # no sweep may come between the folder and its owner's lock
            _sweep(base)
            home.mkdir()
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            stack.callback(os.close, _wait_for(home / OWNER, 0.0))
        folder = home / "version"
        folder.mkdir()
        yield folder


def _sweep(base: Path) -> None:
    for home in base.glob(f"{STAGING}*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or of another user
            owner = _try_lock(home / OWNER)
            if owner is not None:
                shutil.rmtree(home, ignore_errors=True)
                os.close(owner)


def _wait_for(file: Path, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while (descriptor := _try_lock(file)) is None:
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"The lock {file} should become free within {timeout:g} s. Received: "
                f"held by {_owner(file)}"
            )
        time.sleep(0.01)
    return descriptor


def _try_lock(file: Path) -> int | None:
    """The descriptor that holds the lock, or `None` if another one does."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # left behind by another user
        descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it may have removed the file since it was opened.
        if os.path.samestat(os.fstat(descriptor), os.stat(file)):
            _sign(descriptor)
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _sign(descriptor: int) -> None:
    text = f"process {os.getpid()} on {socket.gethostname()}"
    with contextlib.suppress(OSError):  # the lock holds on a full disk too
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _owner(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text("utf-8", "replace") or "an unknown process"
    return "an unknown process"


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
