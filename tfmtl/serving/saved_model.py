"""Reading a SavedModel's protocol buffer and its variables, without loading it."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

PathLike = str | Path
DEFAULT, INIT_OP = "serving_default", "__saved_model_init_op"


def read_meta_graph(path: PathLike) -> meta_graph_pb2.MetaGraphDef:
    """Reads the graph that a model server would load.

    Args:
        path: The folder of a SavedModel.

    Returns:
        The `MetaGraphDef` tagged `serve`.

    Raises:
        ValueError: If the folder holds no SavedModel with that tag.

    Example:
        `read_meta_graph("models/ranker/1").graph_def`
    """
    file = Path(path) / "saved_model.pb"
    if not file.is_file():
        raise ValueError(
            f"`path` should be a folder with a saved_model.pb. Received: path={path}"
        )
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString(file.read_bytes())
    for meta_graph in proto.meta_graphs:
        if list(meta_graph.meta_info_def.tags) == ["serve"]:
            return meta_graph
    raise ValueError(
        f"`path` should hold a graph with the tag 'serve'. Received: path={path}"
    )


def read_signature(
    path: PathLike, signature: str = DEFAULT
) -> meta_graph_pb2.SignatureDef:
    """Reads one signature of a SavedModel.

    Args:
        path: The folder of a SavedModel.
        signature: The signature's name.

    Returns:
        The `SignatureDef`.

    Raises:
        ValueError: If there is no such signature.

    Example:
        `sorted(read_signature("models/ranker/1").inputs)`
    """
    signatures = read_meta_graph(path).signature_def
    if signature not in signatures:
        known = sorted(set(signatures) - {INIT_OP})
        raise ValueError(
            f"`signature` should be one of {known}. Received: signature={signature!r}"
        )
    return signatures[signature]


def spelled(info: meta_graph_pb2.TensorInfo) -> str:
    """Type and shape of an end of a signature, for people.

    Args:
        info: What the signature says of it.

    Returns:
        Such as `float32 (batch, 2)`; -1 is any size.

    Example:
        `spelled(read_signature("models/ranker/1").inputs["age"])`
    """
    shape = ", ".join(
        "batch" if k == 0 and dim.size == -1 else str(dim.size)
        for k, dim in enumerate(info.tensor_shape.dim)
    )
    return f"{tf.as_dtype(info.dtype).name} ({shape})"


def read_variables(path: PathLike) -> dict[str, np.ndarray]:
    """Reads the numbers of a SavedModel's checkpoint.

    Args:
        path: The folder of a SavedModel.

    Returns:
        Arrays by their key in the checkpoint; strings are left out.

    Example:
        `sum(array.nbytes for array in read_variables("models/ranker/1").values())`
    """
    reader = tf.train.load_checkpoint(str(Path(path, "variables", "variables")))
    dtypes = reader.get_variable_to_dtype_map()
    return {
        key: reader.get_tensor(key)
        for key in sorted(dtypes)
        if dtypes[key] != tf.string
    }
