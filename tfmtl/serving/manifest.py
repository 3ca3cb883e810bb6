"""The manifest of a version: which files it has, what they hold, how it was made.

A flipped bit in a weight gives wrong scores and no error. The manifest tells, and it
is written such that a flipped bit in itself tells too.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfmtl.serving.publish import replace_file
from tfmtl.serving.saved_model import INIT_OP, PathLike, read_meta_graph
from tfmtl.version import __version__

MANIFEST = "assets.extra/manifest.json"


def write_manifest(
    folder: PathLike, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes the manifest of a complete version; no file may change after.

    Args:
        folder: The version, not yet published.
        facts: What else should be known about it, such as what was folded, as JSON
            has it. Defaults to `None`, nothing.

    Returns:
        The manifest: `created`, `facts`, `files` (`bytes` and `sha256` by path),
        `signatures` (names of `inputs` and `outputs`) and `versions` of the libraries.

    Raises:
        ValueError: If there is no SavedModel, or if facts are not JSON.

    Example:
        `write_manifest(folder, {"fold": {"connections": [54, 21]}})`
    """
    folder = Path(folder)
    body = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": dict(facts or {}),
        "files": {name: _fingerprint(folder / name) for name in _files(folder)},
        "signatures": _signatures(folder),
        "versions": {
            "keras": keras.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "tfmtl": __version__,
        },
    }
    try:
        body = json.loads(_spelled(body))  # keys as they will be read
        content = _sealed(body)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`facts` should be what JSON can hold. Received: facts={facts!r}"
        ) from error
    (folder / MANIFEST).parent.mkdir(exist_ok=True)
    replace_file(folder / MANIFEST, content)
    return body


def read_manifest(folder: PathLike) -> dict[str, Any]:
    """Reads the manifest of a version, which must be as it was written.

    Args:
        folder: The version.

    Returns:
        What `write_manifest` returned.

    Raises:
        ValueError: If it is missing, cannot be read or was changed.

    Example:
        `read_manifest("models/ranker/1")["versions"]["tensorflow"]`
    """
    file = Path(folder) / MANIFEST
    if not file.is_file():
        raise ValueError(f"{MANIFEST} is missing")
    content = file.read_bytes()
    try:
        body = json.loads(content)
        body.pop("sha256")
        unchanged = _sealed(body) == content and bool(body["files"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} cannot be read: {error!r}") from error
    if not unchanged:
        raise ValueError(f"{MANIFEST} was changed")
    return body


def check_manifest(folder: PathLike) -> list[str]:
    """Compares the files of a version with its manifest.

    Args:
        folder: The version.

    Returns:
        One line for each file that is missing, too many or changed, or one about the
        manifest itself; empty if the files are as they were written.

    Example:
        `check_manifest("models/ranker/1")  # ['saved_model.pb was changed']`
    """
    folder = Path(folder)
    try:
        files = read_manifest(folder)["files"]
    except (OSError, ValueError) as error:
        return [str(error)]
    found = set(_files(folder))
    return [
        *(f"{name} is missing" for name in sorted(set(files) - found)),
        *(f"{name} is not in the manifest" for name in sorted(found - set(files))),
        *(
            problem
            for name in sorted(found & set(files))
            for problem in _changes(folder / name, name, files[name])
        ),
    ]


def _sealed(body: Mapping[str, Any]) -> bytes:
    """The manifest's only spelling, with its own hash."""
    digest = hashlib.sha256(_spelled(body)).hexdigest()
    return _spelled({**body, "sha256": digest})


def _spelled(body: Mapping[str, Any]) -> bytes:
    text = json.dumps(body, indent=1, sort_keys=True, allow_nan=False)
    return text.encode() + b"\n"


def _files(folder: Path) -> list[str]:
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    names = {path.relative_to(folder).as_posix() for path in paths}
    return sorted(names - {MANIFEST})


def _changes(path: Path, name: str, expected: Mapping[str, Any]) -> list[str]:
    try:
        same = _fingerprint(path) == expected
    except OSError as error:
        return [f"{name} cannot be read: {error.strerror}"]
    return [] if same else [f"{name} was changed"]


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _signatures(folder: Path) -> dict[str, dict[str, list[str]]]:
    return {
        name: {"inputs": sorted(ends.inputs), "outputs": sorted(ends.outputs)}
        for name, ends in read_meta_graph(folder).signature_def.items()
        if name != INIT_OP
    }
