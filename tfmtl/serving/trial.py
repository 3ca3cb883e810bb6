"""A trial of something in a process of its own, which may run out of memory or crash.

TensorFlow does not check each of its allocations, so what has no room can end the
process, and no limit turns that into an exception.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfmtl.serving.saved_model import PathLike

OF_MEMORY = "one that needs more"
NO_MEMORY = 3  # the trial's exit status; another one but 0 is no matter of memory
SCRIPT = "from tfmtl.serving.trial import main; main()"


def trial(path: PathLike, max_bytes: int, timeout: float) -> str | None:
    """Loads a `.keras` file in bounded memory and time, in a process of its own.

    Args:
        path: The file.
        max_bytes: The memory that loading may take.
        timeout: The seconds after which the process is ended.

    Returns:
        What the file is that must not be loaded here; `None` if it loads, or if it
        fails with an exception, as it does here.

    Example:
        `trial("model.keras", 2**30, 60.0)  # one that ends the process by SIGSEGV`
    """
    registered = keras.saving.get_custom_objects().values()
    modules = sorted({thing.__module__ for thing in registered} - {"__main__"})
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    words = json.dumps({"path": str(path), "max_bytes": max_bytes, "modules": modules})
    try:
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, words],
            env=environment,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"one that takes more than {timeout:g} s"
    if process.returncode < 0:
        return (
            f"one that ends the process by {signal.Signals(-process.returncode).name}"
        )
    return OF_MEMORY if process.returncode == NO_MEMORY else None


def main() -> None:
    """Loads the file that the command line names."""
    request = json.loads(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for name in request["modules"]:
        with suppress(Exception):  # a module that only the process before can import
            importlib.import_module(name)
    tf.zeros(())  # TensorFlow's own memory is none of the model's
    try:
        with allowance(request["max_bytes"]):
            keras.saving.load_model(request["path"], compile=False, safe_mode=True)
    except Exception as error:
        sys.exit(NO_MEMORY if is_of_memory(error) else 1)


@contextmanager
def allowance(max_bytes: int) -> Iterator[None]:
    """Lets the process allocate no more than so many bytes on top of what it has.

    Args:
        max_bytes: The bytes; no limit but on Linux.

    Yields:
        Nothing.

    Example:
        `with allowance(2**30): ...`
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    limit = min([_allocated() + max_bytes, *limits])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_of_memory(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, is a want of memory.

    Args:
        error: The exception.
    """
    while error is not None:
        if _is_of_memory(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_of_memory(error: Any) -> bool:
    return isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)


def _allocated() -> int:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    [kibibytes] = [line.split()[1] for line in lines if line.startswith("VmData:")]
    return int(kibibytes) * 1024
