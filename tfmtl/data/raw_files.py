"""Raw files: where they are, what they are wrapped in, whether they are right."""

import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

_WRAPPERS = ("", ".gz", ".xz")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")
_UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)


def find(directory: str | os.PathLike[str], names: Iterable[str]) -> dict[str, Path]:
    """Finds files in a directory, plain, `.gz` or `.xz`.

    Args:
        directory: Where to look, not its subfolders.
        names: The files' names.

    Returns:
        Name to path; plain before `.gz` before `.xz`.

    Raises:
        FileNotFoundError: If one of the files is not there.
    """
    folder = Path(directory).expanduser()
    paths = {}
    for name in names:
        candidates = [folder / (name + suffix) for suffix in _WRAPPERS]
        path = next((c for c in candidates if c.is_file()), None)
        if path is None:
            present = _listing(folder)
            raise FileNotFoundError(
                f"`manual_dir` should hold `{name}`, plain, `.gz` or `.xz`. "
                f"Received: manual_dir={os.fspath(folder)!r}, which {present}"
            )
        paths[name] = path
    return paths


def read(path: str | os.PathLike[str], name: str, sha256: str | None = None) -> bytes:
    """Reads and verifies one file's raw bytes from a file or a nested archive.

    Args:
        path: The file, plain or compressed, or an archive that holds it at any depth
            (UCI's is a zip holding a tar.gz).
        name: The file's name, by which an archive is searched.
        sha256: What the decompressed bytes should hash to, in hexadecimal. Defaults
            to `None`, not verified.

    Returns:
        The decompressed bytes.

    Raises:
        ValueError: If the file cannot be read, does not hold the named file, or holds
            other bytes than expected.
    """
    try:
        raw = _unwrap(Path(path).read_bytes(), name)
    except _UNREADABLE as error:
        raise ValueError(
            f"`{path}` should be a readable file or archive. Received: "
            f"{type(error).__name__}: {error}"
        ) from error
    if raw is None:
        raise ValueError(f"`{path}` should hold `{name}`. Received: an archive without")
    actual = hashlib.sha256(raw).hexdigest()
    if sha256 not in (None, actual):
        raise ValueError(
            f"`{name}` should have the SHA-256 {sha256} when decompressed. Received: "
            f"{actual} for the {len(raw)} bytes of {path}"
        )
    return raw


def _unwrap(data: bytes, name: str) -> bytes | None:
    """Peels compression and archives, told by their first bytes, off a file."""
    if data.startswith(b"\x1f\x8b"):
        return _unwrap(gzip.decompress(data), name)
    if data.startswith(b"\xfd7zXZ\x00"):
        return _unwrap(lzma.decompress(data), name)
    if data.startswith(b"PK\x03\x04"):
        return _first(_zip_members(data), name)
    if data[257:262] == b"ustar":
        return _first(_tar_members(data), name)
    return data


def _first(members: Iterator[tuple[str, bytes]], name: str) -> bytes | None:
    wanted = tuple(name + suffix for suffix in _WRAPPERS)
    for member, data in members:
        if os.path.basename(member) in wanted or member.endswith(_ARCHIVES):
            found = _unwrap(data, name)
            if found is not None:
                return found
    return None


def _zip_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.namelist():
            yield member, archive.read(member)


def _tar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content.read()


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "is not a directory"
    names = sorted(p.name for p in folder.iterdir())
    return f"holds {names[:10]}" if names else "is empty"
