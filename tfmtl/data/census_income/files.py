"""The raw files: where they are, what they are wrapped in, whether they are right."""

import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

FILES = {"train": "census-income.data", "test": "census-income.test"}
"""Split to file name."""

SHA256 = {
    "train": "3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86",
    "test": "98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c",
}
"""Split to the checksum of the decompressed file's bytes."""

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


def find(directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Finds both files in a directory, plain, `.gz` or `.xz`.

    Args:
        directory: Where to look, not its subfolders.

    Returns:
        Split to path; plain before `.gz` before `.xz`.

    Raises:
        FileNotFoundError: If one of the files is not there.
    """
    folder = Path(directory).expanduser()
    paths = {}
    for split, name in FILES.items():
        candidates = [folder / (name + suffix) for suffix in _WRAPPERS]
        path = next((c for c in candidates if c.is_file()), None)
        if path is None:
            present = _listing(folder)
            raise FileNotFoundError(
                f"`manual_dir` should hold `{name}`, plain, `.gz` or `.xz`. "
                f"Received: manual_dir={os.fspath(folder)!r}, which {present}"
            )
        paths[split] = path
    return paths


def read(path: str | os.PathLike[str], split: str, sha256: str) -> bytes:
    """Reads and verifies one split's raw bytes from a file or a nested archive.

    Args:
        path: The file, plain or compressed, or an archive that holds it at any depth
            (UCI's is a zip holding a tar.gz).
        split: `"train"` or `"test"`.
        sha256: What the decompressed bytes should hash to, in hexadecimal.

    Returns:
        The decompressed bytes.

    Raises:
        ValueError: If the file cannot be read, does not hold the split's file, or
            holds other bytes than expected.
    """
    name = FILES[split]
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
    if actual != sha256:
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
