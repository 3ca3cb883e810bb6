"""A side door: an exported version as one file for ONNX Runtime.

For single examples inside an application, without a server. The converter has no
tables of integers, so ids should be hashed: `Categorical("user", dtype="int64",
hash_bins=…)`.
"""

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from tfmtl.serving.converted import (
    Converted,
    Rows,
    check_convertible,
    lacking,
    write_checked,
)
from tfmtl.serving.saved_model import PathLike, read_signature

OPSET = 18  # the first with bitwise operations, which hashing needs


def to_onnx(
    path: PathLike,
    file: PathLike,
    signature: str = "serving_default",
    *,
    rows: Rows | None = None,
    tolerance: float = 1e-5,
) -> Converted:
    """Converts a version to an `.onnx` file that gives the same outputs.

    Inputs and outputs have the signature's names. The batch is any:

        session = onnxruntime.InferenceSession("ranker.onnx")
        session.run(["click"], {"age": ages, "user": users})[0]  # (batch, 1)

    The file appears after it has answered rows as TensorFlow's C++ session does. All
    weights are in it, less than 2 GiB.

    Args:
        path: The version's folder.
        file: The file to write.
        signature: The signature to convert.
        rows: One array per input to compare on, a few rows; give some with ids as
            large as yours. Defaults to the version's golden rows.
        tolerance: The largest difference, relative for outputs beyond 1.

    Returns:
        The file, its size and the largest difference.

    Raises:
        ImportError: If the converter or ONNX Runtime is not installed.
        FileExistsError: If the file exists.
        ValueError: If an input holds strings, or the rows do not fit.
        ConversionError: If ONNX has no such operations, or an output differs.

    Example:
        `to_onnx("models/ranker/1", "ranker.onnx").difference`
    """
    check_convertible(path, file, signature)
    converter, runtime = _module("tf2onnx.convert"), _module("onnxruntime")
    content = _convert(converter, path, signature)

    def answer(content: bytes, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = runtime.InferenceSession(content)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, arrays), strict=True))

    return write_checked(content, answer, path, file, signature, rows, tolerance)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "The converter or ONNX Runtime is missing: `pip install tfmtl[side-doors]`."
        ) from error


def _convert(converter: ModuleType, path: PathLike, signature: str) -> bytes:
    ends = read_signature(path, signature)
    columns = {ends.inputs[name].name: name for name in sorted(ends.inputs)}
    outputs = sorted(ends.outputs)
    tensors = [ends.outputs[name].name for name in outputs]
    frozen = _frozen(path, tensors)

    def function(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        given = {tensor: inputs[name] for tensor, name in columns.items()}
        found = tf.graph_util.import_graph_def(frozen, given, tensors)
        return dict(zip(outputs, found, strict=True))

    specs = {
        name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), info.dtype, name)
        for name, info in ends.inputs.items()
    }
    try:
        model, _ = converter.from_function(
            tf.function(function, autograph=False),
            [specs],
            opset=OPSET,
            custom_op_handlers={"Log1p": (_log1p, []), "SelectV2": (_where, [])},
        )
        _module("onnx.checker").check_model(model)
    except Exception as error:  # of many classes, some not public
        raise lacking("ONNX", str(error).strip()[:500]) from error
    return model.SerializeToString()


def _frozen(path: PathLike, tensors: Sequence[str]) -> graph_pb2.GraphDef:
    """The part of a version's graph that leads to tensors, variables as constants."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        names = [tensor.partition(":")[0] for tensor in tensors]
        return tf.compat.v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), names
        )


def _log1p(graph: Any, node: Any, name: str, _: Any) -> Any:
    """Gives the converter an operation that it lacks."""
    one = graph.make_const(f"{name}/one", np.ones((), np.float32))
    sum_of_both = graph.make_node(
        "Add",
        [node.input[0], one.output[0]],
        shapes=[graph.get_shape(node.input[0])],
        dtypes=[graph.get_dtype(node.input[0])],
    )
    node.type = "Log"
    graph.replace_inputs(node, sum_of_both.output)
    return node


def _where(graph: Any, node: Any, name: str, _: Any) -> Any:
    """Chooses, where the converter multiplies by 0 and 1, which keeps NaN."""
    node.type = "Where"
    return node
