"""The raw files: where they are, whether they are right."""

import os
from pathlib import Path

from tfmtl.data import raw_files

FILES = {"train": "census-income.data", "test": "census-income.test"}
"""Split to file name."""

SHA256 = {
    "train": "3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86",
    "test": "98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c",
}
"""Split to the checksum of the decompressed file's bytes."""


def find(directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Finds both files in a directory, plain, `.gz` or `.xz`.

    Args:
        directory: Where to look, not its subfolders.

    Returns:
        Split to path; plain before `.gz` before `.xz`.

    Raises:
        FileNotFoundError: If one of the files is not there.
    """
    paths = raw_files.find(directory, FILES.values())
    return {split: paths[name] for split, name in FILES.items()}


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
    return raw_files.read(path, FILES[split], sha256)
