"""Loading of `.keras` files from elsewhere, which may have been made to do harm.

Keras' safe mode keeps code out. A file of a few kilobytes can still ask for all the
memory there is: a configuration that unpacks to gigabytes, a layer of a billion units,
a dataset that is declared and not there.
"""

import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO

import h5py
import keras

from tfmtl.serving.publish import DiskFullError, temporary_files
from tfmtl.serving.saved_model import PathLike
from tfmtl.serving.trial import OF_MEMORY, allowance, is_of_memory, trial

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
FILES = {"metadata.json", CONFIG, WEIGHTS}
MOST_FILES = 10_000
CONFIG_SHARE = 16  # bytes of memory for each byte of JSON, at least
RESERVE = 8  # the part of the memory that a trial leaves, as no two loads are the same

_limited = Lock()  # the limit is the process's: one load at a time


class UnsafeModelError(ValueError):
    """A `.keras` file that may not be loaded, or cannot be."""


def load_model(
    path: PathLike, *, max_bytes: int = 2**32, timeout: float = 600.0
) -> keras.Model:
    """Loads a `.keras` file, in Keras' safe mode and in bounded memory.

    What the file declares is read first: names and sizes in the archive, shapes and
    links in the weights' file. What its configuration makes Keras allocate depends on
    each layer's code, so it is not computed a second time here: while Keras loads, the
    process may not allocate more than `max_bytes`. That holds for every layer, of
    Keras, tfmtl or your own, and for what a layer computes from its arguments.

    TensorFlow can crash where it gets no memory. So a process of its own loads the file
    first, within seven eighths of `max_bytes` and within `timeout`, and only what
    survives there is loaded here. That takes five to ten seconds, for the import of
    TensorFlow: your own files load faster by `keras.saving.load_model`.

    The limit is the operating system's (`RLIMIT_DATA`), so on Linux only, and without
    a GPU's memory. It counts what all threads of the process allocate meanwhile: load
    in a job, not in a server. Safe mode stays on even where
    `keras.config.enable_unsafe_deserialization` was called.

    Args:
        path: A `.keras` file, which nobody writes to meanwhile. Layers of your own
            should be registered (`keras.saving.register_keras_serializable`), in a
            module that can be imported: the other process has none of `__main__`.
        max_bytes: The memory that loading may take, about four times the weights.
            Defaults to 4 GiB.
        timeout: The seconds after which the other process is ended. Defaults to 600.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If `max_bytes` is no positive integer, or `timeout` not positive.
        UnsafeModelError: If the file is none, or one that may not be loaded.
        DiskFullError: If temporary files have no room.

    Example:
        `load_model("runs/demo/model.keras", max_bytes=2**30)`
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(
            "`max_bytes` should be a positive integer. Received: "
            f"max_bytes={max_bytes!r}"
        )
    if not timeout > 0:
        raise ValueError(f"`timeout` should be positive. Received: timeout={timeout!r}")
    path = Path(path)
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise UnsafeModelError(f"`path` should be a .keras file. Received: path={path}")
    # Keras keeps the switch of safe mode by thread; a new one has it on.
    with _limited, ThreadPoolExecutor(1) as thread:
        return thread.submit(_load, path, max_bytes, timeout).result()


def _load(path: Path, max_bytes: int, timeout: float) -> keras.Model:
    wanted = f"Keras loads in safe mode and in {max_bytes:,} bytes of memory"
    try:
        with temporary_files(), allowance(max_bytes):
            _check_archive(path, max_bytes)
        found = trial(path, max_bytes - max_bytes // RESERVE, timeout)
        if found is not None:
            raise _refusal(path, wanted, found)
        with temporary_files(), allowance(max_bytes):
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (UnsafeModelError, DiskFullError):
        raise
    except Exception as error:
        if not is_of_memory(error):
            reason = str(error).rsplit("Exception encountered: ")[-1]
            raise _refusal(path, wanted, reason) from error
    raise _refusal(path, wanted, OF_MEMORY)  # without what holds it


def _check_archive(path: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive.infolist(), max_bytes)
            with archive.open(WEIGHTS) as packed, tempfile.TemporaryFile() as file:
                shutil.copyfileobj(packed, file)
                _check_weights(path, file, max_bytes)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise _refusal(path, "is whole", str(error)) from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    if len(names) > MOST_FILES:
        raise _refusal(path, f"holds at most {MOST_FILES:,} files", f"{len(names):,}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise _refusal(path, "holds each file once", f"{twice[:3]} several times")
    strange = [name for name in names if not _is_expected(name)]
    if strange:
        wanted = "holds Keras' own files and assets only"
        raise _refusal(path, wanted, f"{strange[:3]}")
    sizes = {entry.filename: entry.file_size for entry in entries}
    if not sizes.keys() >= FILES:
        raise _refusal(path, f"holds {sorted(FILES)}", f"{sorted(names)[:9]}")
    for what, size, most in [
        (CONFIG, sizes[CONFIG], max_bytes // CONFIG_SHARE),
        ("files", sum(sizes.values()), max_bytes),
    ]:
        if size > most:
            wanted = f"unpacks to at most {most:,} bytes of {what}"
            raise _refusal(path, wanted, f"{size:,} bytes")


def _is_expected(name: str) -> bool:
    parts = PurePosixPath(name).parts
    safe = "\\" not in name and ":" not in name and ".." not in parts
    return name in FILES or (safe and parts[:1] == ("assets",))


def _check_weights(path: Path, file: IO[bytes], max_bytes: int) -> None:
    total = 0
    try:
        with h5py.File(file, "r") as weights:
            for dataset in _datasets(path, weights):
                total += _bytes(path, dataset)
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise _refusal(path, f"has a readable {WEIGHTS}", str(error)) from error
    if total > max_bytes:
        wanted = f"declares at most {max_bytes:,} bytes of weights"
        raise _refusal(path, wanted, f"{total:,} bytes")


def _datasets(path: Path, weights: h5py.File) -> Iterator[h5py.Dataset]:
    pending, seen = [weights["/"]], set()
    while pending:
        group = pending.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            wanted = f"has each group of {WEIGHTS} in one place"
            raise _refusal(path, wanted, f"{group.name!r} in several")
        seen.add(address)
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = type(link).__name__
                raise _refusal(path, f"has no links in {WEIGHTS}", f"a {kind}")
            item = group[name]
            if isinstance(item, h5py.Group):
                pending.append(item)
            elif isinstance(item, h5py.Dataset):
                yield item


def _bytes(path: Path, dataset: h5py.Dataset) -> int:
    if dataset.external or dataset.is_virtual or dataset.dtype.hasobject:
        wanted = f"has numbers in {WEIGHTS} that are stored there"
        raise _refusal(path, wanted, f"{dataset.name!r} elsewhere or of other objects")
    return int(dataset.size or 0) * dataset.dtype.itemsize


def _refusal(path: Path, wanted: str, received: str) -> UnsafeModelError:
    return UnsafeModelError(
        f"`path` should be a model that {wanted}. Received: {received}, path={path}"
    )
