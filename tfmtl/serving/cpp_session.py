"""Standalone script: load SavedModels in TensorFlow's C++ session and run them.

Run by file path in an isolated interpreter, never imported by the package:

    python -I cpp_session.py FOLDER [LIBTENSORFLOW_CC [LIBTENSORFLOW_FRAMEWORK]]

It reads `request.json` and `inputs.npz` in the folder, and writes `reply.json` and
`outputs.npz` there. It needs the standard library, NumPy and the two shared libraries
of the TensorFlow wheel; the Python package `tensorflow` is located, not imported, so
that nothing but the C++ runtime takes part, as in a model server.
"""

import ctypes
import importlib.util
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

TF_STRING = 7
STRING_BYTES = 24  # sizeof(TF_TString)
DTYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
NAMES = {code: name for name, code in DTYPES.items()}
POINTERS = (
    "TF_NewStatus TF_Message TF_NewSessionOptions TF_NewGraph TF_Version "
    "TF_LoadSessionFromSavedModel TF_AllocateTensor TF_TensorData "
    "TF_GraphOperationByName TF_StringGetDataPointer"
).split()


class Output(ctypes.Structure):
    """The C API's `TF_Output`: one output of one operation."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def open_library(paths: list[str]) -> ctypes.CDLL:
    """Opens the C API and declares what its functions return."""
    if not paths:
        spec = importlib.util.find_spec("tensorflow")
        if spec is None or not spec.submodule_search_locations:
            raise RuntimeError("The TensorFlow wheel was not found.")
        folder = Path(spec.submodule_search_locations[0])
        paths = [str(next(folder.glob("libtensorflow_cc.*")))]
    for path in reversed(paths[1:]):
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    api = ctypes.CDLL(paths[0], mode=ctypes.RTLD_GLOBAL)
    for name in POINTERS:
        getattr(api, name).restype = ctypes.c_void_p
    for name in ("TF_TensorByteSize", "TF_Dim", "TF_StringGetSize"):
        getattr(api, name).restype = ctypes.c_int64
    return api


def disable_xla(api: ctypes.CDLL) -> None:
    """Makes every XLA compilation fail, as a model server without XLA does."""
    switch = getattr(api, "_ZN10tensorflow21DisableXlaCompilationEv", None)
    if switch is not None:
        switch.restype = None
        switch()


def check(api: ctypes.CDLL, status: ctypes.c_void_p) -> None:
    """Raises the message of a status that is not OK."""
    if api.TF_GetCode(status):
        message = ctypes.string_at(api.TF_Message(status))
        raise RuntimeError(message.decode("utf-8", "replace"))


def config(threads: int) -> bytes:
    """Serializes a `ConfigProto`: no GPU and, if positive, a number of threads."""
    no_gpu = b"\x0a\x07\x0a\x03GPU\x10\x00"  # device_count {"GPU": 0}
    if not threads:
        return no_gpu
    if threads > 127:
        raise ValueError(f"`threads` should be at most 127. Received: {threads}")
    # Fields 2 and 5: intra_op_parallelism_threads and inter_op_parallelism_threads.
    return no_gpu + bytes([0x10, threads, 0x28, threads])


class Model:
    """One SavedModel loaded with the tag `serve` in a C++ session of its own.

    Args:
        api: The opened library.
        path: The folder of the SavedModel.
        feeds: The graph's tensor names to feed, in the order of the inputs.
        fetches: The graph's tensor names to fetch.
        threads: Intra-op and inter-op threads, or 0 for TensorFlow's own choice.
    """

    def __init__(
        self,
        api: ctypes.CDLL,
        path: str,
        feeds: list[str],
        fetches: list[str],
        threads: int,
    ) -> None:
        self.api = api
        self.status = ctypes.c_void_p(api.TF_NewStatus())
        options = ctypes.c_void_p(api.TF_NewSessionOptions())
        proto = config(threads)
        api.TF_SetConfig(options, proto, ctypes.c_size_t(len(proto)), self.status)
        check(api, self.status)
        api.TF_EnableXLACompilation(options, ctypes.c_ubyte(0))
        self.graph = ctypes.c_void_p(api.TF_NewGraph())
        tags = (ctypes.c_char_p * 1)(b"serve")
        start = time.perf_counter()
        session = api.TF_LoadSessionFromSavedModel(
            options, None, path.encode(), tags, 1, self.graph, None, self.status
        )
        check(api, self.status)
        self.load_ms = 1e3 * (time.perf_counter() - start)
        self.session = ctypes.c_void_p(session)
        self.feeds = self._ends(feeds)
        self.fetches = self._ends(fetches)

    def _ends(self, names: list[str]) -> ctypes.Array[Output]:
        ends = (Output * len(names))()
        for end, name in zip(ends, names, strict=True):
            operation, _, index = name.rpartition(":")
            end.operation = self.api.TF_GraphOperationByName(
                self.graph, operation.encode()
            )
            end.index = int(index)
            if not end.operation:
                raise RuntimeError(f"The graph has no operation {operation!r}.")
        return ends

    def run(self, values: ctypes.Array[ctypes.c_void_p]) -> Any:
        """Runs the session once and returns the output tensors' handles."""
        outputs = (ctypes.c_void_p * len(self.fetches))()
        self.api.TF_SessionRun(
            self.session,
            None,
            self.feeds,
            values,
            len(self.feeds),
            self.fetches,
            outputs,
            len(self.fetches),
            None,
            0,
            None,
            self.status,
        )
        check(self.api, self.status)
        return outputs

    def answer(self, values: ctypes.Array[ctypes.c_void_p]) -> list[np.ndarray]:
        """Runs the session once and returns the outputs."""
        outputs = self.run(values)
        arrays = [to_array(self.api, handle) for handle in outputs]
        self._delete(outputs)
        return arrays

    def time(self, values: ctypes.Array[ctypes.c_void_p]) -> int:
        """Returns the nanoseconds that one run takes."""
        start = time.perf_counter_ns()
        outputs = self.run(values)
        elapsed = time.perf_counter_ns() - start
        self._delete(outputs)
        return elapsed

    def _delete(self, tensors: Any) -> None:
        for handle in tensors:
            self.api.TF_DeleteTensor(ctypes.c_void_p(handle))


def allocate(
    api: ctypes.CDLL, code: int, shape: tuple[int, ...], size: int
) -> tuple[int, int]:
    """Allocates a tensor and returns its handle and the address of its data."""
    dims = (ctypes.c_int64 * len(shape))(*shape)
    tensor = api.TF_AllocateTensor(code, dims, len(shape), ctypes.c_size_t(size))
    return tensor, api.TF_TensorData(ctypes.c_void_p(tensor)) or 0


def numeric_tensor(api: ctypes.CDLL, array: np.ndarray) -> int:
    """Copies an array of numbers into a tensor and returns its handle."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    tensor, data = allocate(api, DTYPES[array.dtype.name], array.shape, array.nbytes)
    ctypes.memmove(data, array.ctypes.data, array.nbytes)
    return tensor


def string_tensor(api: ctypes.CDLL, content: np.ndarray, lengths: np.ndarray) -> int:
    """Cuts the content into strings of the given lengths, in a tensor."""
    size = STRING_BYTES * lengths.size
    tensor, data = allocate(api, TF_STRING, lengths.shape, size)
    raw, position = content.tobytes(), 0
    for index, length in enumerate(lengths.ravel().tolist()):
        string = ctypes.c_void_p(data + STRING_BYTES * index)
        api.TF_StringInit(string)
        text = raw[position : position + length]
        api.TF_StringCopy(string, text, ctypes.c_size_t(length))
        position += length
    return tensor


def batch(
    api: ctypes.CDLL, arrays: dict[str, np.ndarray], number: int, inputs: int
) -> ctypes.Array[ctypes.c_void_p]:
    """Makes the tensors of one batch from the arrays of `inputs.npz`."""
    values = (ctypes.c_void_p * inputs)()
    for index in range(inputs):
        key = f"batch_{number}_input_{index}"
        if key in arrays:
            values[index] = numeric_tensor(api, arrays[key])
        else:
            content, lengths = arrays[f"{key}_content"], arrays[f"{key}_lengths"]
            values[index] = string_tensor(api, content, lengths)
    return values


def to_array(api: ctypes.CDLL, handle: int) -> np.ndarray:
    """Copies a tensor of numbers or strings into an array."""
    tensor = ctypes.c_void_p(handle)
    shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
    code = api.TF_TensorType(tensor)
    if code == TF_STRING:
        return texts(api, tensor, math.prod(shape)).reshape(shape)
    if code not in NAMES:
        raise RuntimeError(
            f"An output should hold numbers or strings. Received: type {code}"
        )
    size = api.TF_TensorByteSize(tensor)
    raw = ctypes.string_at(api.TF_TensorData(tensor), size) if size else b""
    return np.frombuffer(raw, NAMES[code]).reshape(shape)


def texts(api: ctypes.CDLL, tensor: ctypes.c_void_p, count: int) -> np.ndarray:
    """Copies strings into an array of bytes, which drops zero bytes at their ends."""
    data = api.TF_TensorData(tensor) or 0
    strings = [ctypes.c_void_p(data + STRING_BYTES * k) for k in range(count)]
    found = [
        ctypes.string_at(api.TF_StringGetDataPointer(s), api.TF_StringGetSize(s))
        for s in strings
    ]
    return np.array(found, bytes)


def joined(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """An output of all batches; that of a single one as it is, a scalar too."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def answer(
    models: list[Model],
    batches: list[ctypes.Array[ctypes.c_void_p]],
    request: dict[str, Any],
) -> dict[str, Any]:
    """Runs the batches with the first model, or times them with all in turns."""
    if not request["repetitions"]:
        answers = zip(*map(models[0].answer, batches), strict=True)
        return {f"output_{index}": joined(parts) for index, parts in enumerate(answers)}
    times = {}
    for number, values in enumerate(batches):
        for _ in range(request["warmup"]):
            for model in models:
                model.time(values)
        times[f"times_{number}"] = np.array(
            [
                [model.time(values) for model in models]
                for _ in range(request["repetitions"])
            ]
        )
    return times


def serve(folder: Path, libraries: list[str]) -> dict[str, Any]:
    """Does what the folder's request asks and returns the reply."""
    request = json.loads((folder / "request.json").read_text("utf-8"))
    with np.load(folder / "inputs.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    api = open_library(libraries)
    disable_xla(api)
    models = [Model(api, **model) for model in request["models"]]
    batches = [
        batch(api, arrays, number, len(request["models"][0]["feeds"]))
        for number in range(request["batches"])
    ]
    np.savez(folder / "outputs.npz", **answer(models, batches, request))
    return {
        "load_ms": [model.load_ms for model in models],
        "version": ctypes.string_at(api.TF_Version()).decode(),
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    }


def main() -> None:
    """Serves one request; an error is part of the reply."""
    folder = Path(sys.argv[1])
    try:
        reply = serve(folder, sys.argv[2:])
    except Exception as error:
        reply = {"error": str(error)}
    (folder / "reply.json").write_text(json.dumps(reply), "utf-8")


if __name__ == "__main__":
    main()
