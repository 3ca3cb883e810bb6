"""Rows that fit a signature: checked ones, repeated ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2


def coerce(
    rows: Mapping[str, Any], infos: Mapping[str, meta_graph_pb2.TensorInfo]
) -> dict[str, np.ndarray]:
    """Turns rows into arrays of a signature's types; strings become bytes objects.

    Shapes are checked where the signature tells them.

    Args:
        rows: One array per input.
        infos: The signature's inputs.

    Returns:
        One array per input, all with the same number of rows.

    Raises:
        ValueError: If names, types, shapes or numbers of rows do not fit.

    Example:
        `coerce({"age": [31.0]}, read_signature(path).inputs)`
    """
    if set(rows) != set(infos):
        raise ValueError(
            f"`inputs` should have the names {sorted(infos)}. Received: {sorted(rows)}"
        )
    arrays = {name: _array(name, rows[name], infos[name].dtype) for name in infos}
    counts = {name: array.shape[:1] for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or () in counts.values():
        shapes = {name: array.shape for name, array in sorted(arrays.items())}
        raise ValueError(
            "`inputs` should have the same number of rows, the first dimension, in "
            f"every array. Received: shapes={shapes}"
        )
    for name, info in infos.items():
        sizes = [dim.size for dim in info.tensor_shape.dim]
        shape = arrays[name].shape
        fits = len(sizes) == len(shape) and all(
            wanted in (-1, size) for wanted, size in zip(sizes, shape, strict=True)
        )
        if sizes and not fits:
            wanted = ", ".join("any" if size == -1 else str(size) for size in sizes)
            raise ValueError(
                f"`inputs[{name!r}]` should have the shape ({wanted}). Received: "
                f"shape={shape}"
            )
    return arrays


def _array(name: str, value: Any, dtype: int) -> np.ndarray:
    wanted = tf.as_dtype(dtype)
    array = as_array(value)
    if wanted != tf.string:
        if not np.can_cast(array.dtype, wanted.as_numpy_dtype, "same_kind"):
            raise ValueError(
                f"`inputs[{name!r}]` should be of type {wanted.name}. Received: "
                f"dtype={array.dtype}"
            )
        found = array.astype(wanted.as_numpy_dtype)
        if wanted.is_integer and (found != array).any():
            raise ValueError(
                f"`inputs[{name!r}]` should be of type {wanted.name}. Received: "
                f"{array[found != array][0]}"
            )
        return found
    if array.dtype.kind not in "SUOT":
        raise ValueError(
            f"`inputs[{name!r}]` should hold strings. Received: dtype={array.dtype}"
        )
    texts = np.empty(array.shape, object)
    texts.ravel()[:] = [encode(name, text) for text in array.ravel().tolist()]
    return texts


def as_array(value: Any) -> np.ndarray:
    """An array; of texts one of objects, as NumPy's own text types drop zero bytes.

    Args:
        value: What NumPy takes for an array, or a tensor.
    """
    array = np.asarray(value)
    texts = array.dtype.kind in "SU" and not isinstance(value, np.ndarray)
    return np.asarray(value, object) if texts else array


def encode(name: str, text: Any) -> bytes:
    """The bytes of a text of the input `name`.

    Raises:
        ValueError: If it is no text.
    """
    if not isinstance(text, str | bytes):
        raise ValueError(f"`inputs[{name!r}]` should hold strings. Received: {text!r}")
    return text if isinstance(text, bytes) else text.encode()


def repeat(rows: Mapping[str, Any], batch_size: int) -> dict[str, np.ndarray]:
    """Repeats rows until there are as many as asked for.

    Args:
        rows: One array per input.
        batch_size: The wanted number of rows.

    Returns:
        One array per input.

    Example:
        `repeat({"age": [1.0, 2.0]}, 3)["age"]  # [1.0, 2.0, 1.0]`
    """
    arrays = {name: as_array(value) for name, value in rows.items()}
    return {
        name: array[np.arange(batch_size) % len(array)]
        for name, array in arrays.items()
    }
