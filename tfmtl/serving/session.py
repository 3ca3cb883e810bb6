"""Running a SavedModel in TensorFlow's C++ session, in a process of its own.

`tf.saved_model.load` can answer where a model server fails; the C++ loader cannot.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.serving.publish import temporary_files
from tfmtl.serving.rows import coerce
from tfmtl.serving.saved_model import PathLike, read_signature

SCRIPT = Path(__file__).with_name("cpp_session.py")
Rows = Mapping[str, Any]


class CppSessionError(RuntimeError):
    """TensorFlow's C++ session could not load or run a SavedModel."""


def run_in_cpp_session(
    path: PathLike,
    inputs: Rows,
    signature: str = "serving_default",
    *,
    timeout: float = 600.0,
) -> dict[str, np.ndarray]:
    """Loads a SavedModel in the C++ session and runs one batch.

    XLA is disabled and no GPU is used.

    Args:
        path: The folder of the SavedModel.
        inputs: One array per input of the signature.
        signature: The signature's name.
        timeout: The seconds after which the process is ended.

    Returns:
        One array per output of the signature.

    Raises:
        ValueError: If the inputs do not fit the signature.
        CppSessionError: If the model does not load or run.

    Example:
        `run_in_cpp_session("models/ranker/1", {"age": [31.0]})["ctr"]`
    """
    _, answers = request([path], [inputs], signature, timeout=timeout)
    names = sorted(read_signature(path, signature).outputs)
    return {name: answers[f"output_{index}"] for index, name in enumerate(names)}


def request(
    paths: Sequence[PathLike],
    batches: Sequence[Rows],
    signature: str = "serving_default",
    *,
    threads: int = 0,
    warmup: int = 0,
    repetitions: int = 0,
    timeout: float = 600.0,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Sends one request to the standalone script `cpp_session.py`.

    Args:
        paths: The SavedModels to load in the one process; same inputs for all.
        batches: The batches to run.
        signature: The signature's name.
        threads: Intra-op and inter-op threads, or 0 for TensorFlow's own choice.
        warmup: The runs of each model that are not timed.
        repetitions: The timed runs; 0 to get the first model's outputs, those of all
            batches joined.
        timeout: The seconds after which the process is ended.

    Returns:
        The script's report (`load_ms`, `version`, `modules`) and its arrays.

    Raises:
        ValueError: If the inputs do not fit the signatures.
        CppSessionError: If a model does not load or run.
        DiskFullError: If temporary files have no room.

    Example:
        `request(["models/ranker/1"], [rows])[0]["load_ms"]`
    """
    signatures = [read_signature(path, signature) for path in paths]
    names = sorted(signatures[0].inputs)
    arrays: dict[str, Any] = {}
    for number, batch in enumerate(batches):
        for other in signatures:
            rows = coerce(batch, other.inputs)
        for index, name in enumerate(names):
            arrays.update(_pack(f"batch_{number}_input_{index}", rows[name]))
    message = {
        "models": [
            _model(path, signature_def, threads)
            for path, signature_def in zip(paths, signatures, strict=True)
        ],
        "batches": len(batches),
        "warmup": warmup,
        "repetitions": repetitions,
    }
    with temporary_files(), tempfile.TemporaryDirectory() as folder:
        Path(folder, "request.json").write_text(json.dumps(message), "utf-8")
        np.savez(Path(folder, "inputs.npz"), **arrays)
        return _call(Path(folder), timeout)


def _model(
    path: PathLike, signature: meta_graph_pb2.SignatureDef, threads: int
) -> dict[str, Any]:
    return {
        "path": str(Path(path).resolve()),
        "feeds": [signature.inputs[name].name for name in sorted(signature.inputs)],
        "fetches": [signature.outputs[key].name for key in sorted(signature.outputs)],
        "threads": threads,
    }


def _pack(key: str, array: np.ndarray) -> dict[str, np.ndarray]:
    if array.dtype != object:
        return {key: array}
    lengths = [len(text) for text in array.ravel()]
    return {
        f"{key}_content": np.frombuffer(b"".join(array.ravel()), np.uint8),
        f"{key}_lengths": np.array(lengths, np.int64).reshape(array.shape),
    }


def _call(folder: Path, timeout: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2")
    environment.pop("TF_XLA_FLAGS", None)
    process = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    reply_file = folder / "reply.json"
    if process.returncode or not reply_file.is_file():
        raise CppSessionError(
            f"The C++ session's process ended with code {process.returncode} and no "
            f"reply. Its last words: {process.stderr[-2000:]}"
        )
    reply = json.loads(reply_file.read_text("utf-8"))
    if "error" in reply:
        raise CppSessionError(f"TensorFlow's C++ session failed: {reply['error']}")
    with np.load(folder / "outputs.npz", allow_pickle=False) as archive:
        return reply, dict(archive)
