"""Upload of a version to an object store, where folders cannot be renamed.

A server there sees a version with its first object, and cannot load it before
`saved_model.pb`, so that comes last, complete and checked. A server tries five times, a
minute apart, and then never: for an upload that takes longer, pin the version before in
the model config until it is done.

Paths are those of `tf.io.gfile`: `gs://`, a local folder, or what a plugin adds.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfmtl.serving.manifest import MANIFEST, read_manifest
from tfmtl.serving.publish import is_version
from tfmtl.serving.saved_model import PathLike
from tfmtl.serving.verify import verify

LAST = "saved_model.pb"
PART = f"part.{LAST}"


class UploadError(RuntimeError):
    """What arrived is not what was sent."""


def upload(folder: PathLike, base: PathLike, *, check: bool = True) -> str:
    """Copies a version to another base, where it can be loaded once it is complete.

    The manifest goes first and tells whose upload it is. If an upload is interrupted,
    the same call goes on with it, and `sweep_upload` removes it. All files are read
    back before the last one gets its name.

    Args:
        folder: The version, as `export` wrote it.
        base: The model's folder to copy to, as in `"gs://bucket/models/ranker"`.
        check: Whether the version has to verify before. Defaults to `True`.

    Returns:
        The version's new path.

    Raises:
        ValueError: If `folder` is no version or does not verify.
        FileExistsError: If the version exists there, or a part of another one.
        UploadError: If files there differ afterwards; it cannot be loaded then.

    Example:
        `upload("models/ranker/3", "gs://bucket/models/ranker")`
    """
    folder = Path(folder)
    if not is_version(folder.name):
        raise ValueError(f"`folder` should be named by a version. Received: {folder}")
    problems = verify(folder).problems if check else ()
    if problems:
        raise ValueError(
            f"`folder` should verify. Received: {folder}, where {'; '.join(problems)}"
        )
    files = [name for name in read_manifest(folder)["files"] if name != LAST]
    sent = {name: name for name in [MANIFEST, *files]} | {LAST: PART}
    target = _target(folder, base)
    for name, there in sent.items():
        _send(folder / name, f"{target}/{there}")
    _check_arrival(folder, target, sent)
    tf.io.gfile.rename(f"{target}/{PART}", f"{target}/{LAST}")
    return target


def sweep_upload(base: PathLike, version: int) -> None:
    """Removes an upload that was interrupted.

    Args:
        base: The model's folder, as for `upload`.
        version: The version.

    Raises:
        FileExistsError: If the upload is complete: a server may serve it.

    Example:
        `sweep_upload("gs://bucket/models/ranker", 3)`
    """
    for name in _names(base, version):
        target = f"{_base(base)}/{name}"
        if tf.io.gfile.exists(f"{target}/{LAST}"):
            raise FileExistsError(
                "`version` should be one whose upload was interrupted. Received: "
                f"version={version}, complete in {target}"
            )
        tf.io.gfile.rmtree(target)


def _target(folder: Path, base: PathLike) -> str:
    """The place of a version, where it is not yet or not yet complete."""
    target = f"{_base(base)}/{folder.name}"
    begun = _same(folder / MANIFEST, f"{target}/{MANIFEST}")
    complete = tf.io.gfile.exists(f"{target}/{LAST}")
    other = [name for name in _names(base, int(folder.name)) if name != folder.name]
    if complete or other or (not begun and list(_files(target))):
        hint = "" if complete else "; sweep_upload removes one that is not complete"
        raise FileExistsError(
            f"`folder` should be of a version that is not in {base}{hint}. Received: "
            f"folder={folder}"
        )
    return target


def _send(file: Path, there: str) -> None:
    if _same(file, there):
        return
    if tf.io.gfile.exists(there):  # not every file system cuts what it overwrites
        tf.io.gfile.remove(there)
    tf.io.gfile.makedirs(there.rpartition("/")[0])
    tf.io.gfile.copy(str(file), there)


def _check_arrival(folder: Path, target: str, sent: dict[str, str]) -> None:
    wrong = [
        there
        for name, there in sent.items()
        if not _same(folder / name, f"{target}/{there}")
    ]
    wrong += sorted(set(_files(target)) - set(sent.values()))
    if wrong:
        raise UploadError(
            f"{target} should hold the files of {folder} and no others. Received: "
            f"{wrong}, so that {LAST} was left out"
        )


def _base(base: PathLike) -> str:
    return str(base).rstrip("/")


def _names(base: PathLike, version: int) -> list[str]:
    """The children that a server takes for the version, such as `3` and `003`."""
    if not tf.io.gfile.isdir(_base(base)):
        return []
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(_base(base))]
    return [name for name in names if is_version(name) and int(name) == version]


def _files(target: str) -> Iterator[str]:
    for place, _, names in tf.io.gfile.walk(target):
        for name in names:
            path = f"{place.rstrip('/')}/{name}"
            if tf.io.gfile.exists(path):  # `ram://` lists `a.b` in the folder `a` too
                yield path.removeprefix(target).lstrip("/")


def _same(file: Path, there: str) -> bool:
    if not tf.io.gfile.exists(there):
        return False
    same_size = tf.io.gfile.stat(there).length == file.stat().st_size
    return same_size and _digest(there) == _digest(str(file))


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()
