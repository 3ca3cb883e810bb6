"""Static scan of a SavedModel: what it stores, and why a server would refuse it."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2, tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.serving.saved_model import (
    DEFAULT,
    INIT_OP,
    PathLike,
    read_meta_graph,
    read_variables,
)

FORBIDDEN = ("EagerPyFunc", "PyFunc", "PyFuncStateless", "XlaCallModule", "XlaLaunch")
CLASSES = ("tensorflow/serving/classify", "classes")
OUTPUTS = (tf.float32, tf.int64, tf.string)  # scores, and identifiers of items
LARGE = 4096  # bytes from which a stored tensor is listed and should be unique


@dataclass(frozen=True)
class Stored:
    """One tensor that a SavedModel stores.

    Args:
        name: The constant's function and node, or the variable's checkpoint key.
        dtype: The name of the data type.
        shape: The shape.
        bytes: The size of the values.
        variable: Whether it is a variable; else it is a constant of the graph.
        digest: A hash of type, shape and values; empty if all values are equal.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    variable: bool
    digest: str

    @property
    def weight(self) -> bool:
        """Whether it can be a weight: a variable or float array, not a scalar."""
        real = self.dtype in ("int8", "bfloat16") or self.dtype.startswith("float")
        return real and (self.variable or bool(self.shape))


@dataclass(frozen=True)
class Scan:
    """The facts about one SavedModel.

    Args:
        ops: The number of operations by type, in graph and function library.
        constant_bytes: The values of all constants.
        variable_bytes: The values of all variables.
        weight_bytes: The values of the float arrays among both.
        graph_bytes: The size of `saved_model.pb` without its constants' values.
        file_bytes: The size of all files, without `assets.extra`.
        large: The stored tensors of 4096 bytes and more, the largest first.
        problems: Why a model server would refuse it, or answer wrongly.
        repetitions: Which large tensors are stored more than once.
    """

    ops: Mapping[str, int]
    constant_bytes: int
    variable_bytes: int
    weight_bytes: int
    graph_bytes: int
    file_bytes: int
    large: tuple[Stored, ...]
    problems: tuple[str, ...]
    repetitions: tuple[str, ...]


def scan(path: PathLike, *, weights: Iterable[np.ndarray] = ()) -> Scan:
    """Scans a SavedModel without loading it.

    Args:
        path: The folder of the SavedModel.
        weights: The model's own weights, if known. Each may be stored as often as it
            occurs there; what is none of them, any number of times. If not known, any
            float tensor stored twice is a repetition.

    Returns:
        The facts. Nothing is raised for a problem: see `Scan.problems`.

    Raises:
        ValueError: If there is no SavedModel.

    Example:
        `scan(pruned).weight_bytes < scan(full).weight_bytes`
    """
    path = Path(path)
    meta_graph = read_meta_graph(path)
    nodes = list(_nodes(meta_graph.graph_def))
    protos = {name: n.attr["value"].tensor for name, n in nodes if n.op == "Const"}
    constants = [_stored_constant(name, proto) for name, proto in protos.items()]
    has_variables = Path(path, "variables", "variables.index").is_file()
    arrays = read_variables(path) if has_variables else {}
    variables = [_stored(name, array, True) for name, array in arrays.items()]
    stored = constants + variables
    large = sorted((s for s in stored if s.bytes >= LARGE), key=lambda s: -s.bytes)
    constant_protos = sum(proto.ByteSize() for proto in protos.values())
    problems = [
        *([] if has_variables else ["`variables/variables.index` is missing"]),
        *_node_problems(nodes, meta_graph.graph_def),
        *_signature_problems(meta_graph.signature_def),
    ]
    return Scan(
        ops=Counter(node.op for _, node in nodes),
        constant_bytes=sum(s.bytes for s in constants),
        variable_bytes=sum(s.bytes for s in variables),
        weight_bytes=sum(s.bytes for s in stored if s.weight),
        graph_bytes=Path(path, "saved_model.pb").stat().st_size - constant_protos,
        file_bytes=_size(path) - _size(path / "assets.extra"),
        large=tuple(large),
        problems=tuple(problems),
        repetitions=tuple(_repetitions(large, weights)),
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _nodes(graph: graph_pb2.GraphDef) -> Iterator[tuple[str, node_def_pb2.NodeDef]]:
    yield from ((node.name, node) for node in graph.node)
    for function in graph.library.function:
        name = function.signature.name
        yield from ((f"{name}/{node.name}", node) for node in function.node_def)


def _stored_constant(name: str, proto: tensor_pb2.TensorProto) -> Stored:
    array = tf.make_ndarray(proto)
    if array.dtype == object:
        size = sum(len(text) for text in proto.string_val)
        return Stored(name, "string", array.shape, size, False, "")
    return _stored(name, array, False)


def _stored(name: str, array: np.ndarray, variable: bool) -> Stored:
    dtype = array.dtype.name
    return Stored(name, dtype, array.shape, array.nbytes, variable, _digest(array))


def _digest(array: np.ndarray) -> str:
    if array.nbytes < LARGE or bool((array == array.flat[0]).all()):
        return ""
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes())
    content.update(f"{array.dtype.name}{array.shape}".encode())
    return content.hexdigest()


def _node_problems(
    nodes: list[tuple[str, node_def_pb2.NodeDef]], graph: graph_pb2.GraphDef
) -> Iterator[str]:
    own = {function.signature.name for function in graph.library.function}
    for name, node in nodes:
        if node.op in FORBIDDEN:
            yield f"operation {name!r} is a {node.op}, which no model server runs"
        elif node.op not in own and not hasattr(tf.raw_ops, node.op):
            yield f"operation {name!r} is a {node.op}, which TensorFlow does not have"
        if "_XlaMustCompile" in node.attr and node.attr["_XlaMustCompile"].b:
            yield f"operation {name!r} demands XLA, which model servers disable"
    for function in graph.library.function:
        if "_XlaMustCompile" in function.attr and function.attr["_XlaMustCompile"].b:
            name = function.signature.name
            yield f"function {name!r} demands XLA, which model servers disable"


def _signature_problems(
    signatures: Mapping[str, meta_graph_pb2.SignatureDef],
) -> Iterator[str]:
    names = sorted(set(signatures) - {INIT_OP})
    if DEFAULT not in names:
        yield f"there is no signature {DEFAULT!r}, but {names}"
    for name in names:
        ends = signatures[name]
        place = "" if name == DEFAULT else f" of signature {name!r}"
        for kind, infos in (("input", ends.inputs), ("output", ends.outputs)):
            for key, info in sorted(infos.items()):
                shape = info.tensor_shape
                if shape.unknown_rank or not shape.dim or shape.dim[0].size != -1:
                    sizes = None if shape.unknown_rank else [d.size for d in shape.dim]
                    yield (
                        f"{kind} {key!r}{place} should have an unknown first "
                        f"dimension, the batch. Received: shape={sizes}"
                    )
        for key, info in sorted(ends.outputs.items()):
            dtype = tf.as_dtype(info.dtype)
            is_class = (ends.method_name, key) == CLASSES
            if dtype not in ((tf.string,) if is_class else OUTPUTS):
                wanted = "string" if is_class else "float32, int64 or string"
                yield (
                    f"output {key!r}{place} should be {wanted}. Received: "
                    f"dtype={dtype.name}"
                )


def _repetitions(large: list[Stored], weights: Iterable[np.ndarray]) -> Iterator[str]:
    allowed = Counter(_digest(weight) for weight in weights)
    found: dict[str, list[str]] = {}
    for tensor in large:
        known = tensor.digest in allowed if allowed else tensor.weight
        if tensor.digest and known:
            found.setdefault(tensor.digest, []).append(tensor.name)
    for digest, names in found.items():
        if len(names) > max(1, allowed[digest]):
            yield f"one tensor is stored {len(names)} times: {', '.join(names)}"
