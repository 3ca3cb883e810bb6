"""The items' columns in the order of an index, as a ranker reads them."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.serving.rows import coerce


def rows_of(items: Mapping[str, Any], ids: str, wanted: np.ndarray) -> np.ndarray:
    """Finds the row of each wanted identifier.

    Args:
        items: Columns by name, one row for each item.
        ids: Name of the column of identifiers.
        wanted: Identifiers, `(n,)`.

    Returns:
        Rows, `(n,)`.

    Raises:
        ValueError: If an identifier is missing or twice there.

    Example:
        >>> import numpy as np
        >>> from tfmtl.interop.tfrs.items import rows_of
        >>> rows_of({"id": ["a", "b"]}, "id", np.array([b"b"], object)).tolist()
        [1]
    """
    if ids not in items:
        raise ValueError(
            f"`items` should have the identifiers, {ids!r}. "
            f"Received: items={sorted(items)}"
        )
    known = [_key(value) for value in np.ravel(items[ids])]
    rows = {key: row for row, key in enumerate(known)}
    if len(rows) != len(known):
        raise ValueError(
            f"`items[{ids!r}]` should be different for each item. "
            f"Received: {len(rows)} values in {len(known)} rows"
        )
    unknown = [key for key in map(_key, wanted) if key not in rows]
    if unknown:
        raise ValueError(
            f"`items[{ids!r}]` should have every identifier of the index. Received: "
            f"{len(unknown)} are missing, such as {unknown[0]!r}"
        )
    return np.array([rows[_key(value)] for value in wanted])


def columns_of(
    items: Mapping[str, Any], inputs: Mapping[str, keras.KerasTensor]
) -> dict[str, np.ndarray]:
    """The items' columns among a ranker's inputs, in its types and shapes.

    Args:
        items: Columns by name; of width 1 also as `(items,)`.
        inputs: The ranker's inputs.

    Returns:
        Arrays by name, one row for each item.

    Raises:
        ValueError: If a type, a shape or a number of rows does not fit.

    Example:
        `columns_of({"price": [1, 2]}, ranker.input)["price"].shape  # (2, 1)`
    """
    read = {name: tensor for name, tensor in inputs.items() if name in items}
    rows = {name: _matrix(items[name], len(t.shape)) for name, t in read.items()}
    return fitting("items", rows, read) if rows else {}


def fitting(
    argument: str, columns: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Columns as arrays of the wanted types.

    Args:
        argument: The name of the columns in errors.
        columns: Arrays by name.
        wanted: What has a type and a shape, by name.

    Raises:
        ValueError: If a name, a type, a shape or a number of rows does not fit.

    Example:
        `fitting("golden", {"age": [31]}, {"age": tf.TensorSpec((None,), tf.float32)})`
    """
    infos = {
        name: meta_graph_pb2.TensorInfo(
            dtype=tf.as_dtype(tensor.dtype).as_datatype_enum,
            tensor_shape=tf.TensorShape([None, *tensor.shape[1:]]).as_proto(),
        )
        for name, tensor in wanted.items()
    }
    try:
        return coerce(columns, infos)
    except ValueError as error:
        raise ValueError(str(error).replace("`inputs", f"`{argument}", 1)) from error


def _matrix(values: Any, rank: int) -> np.ndarray:
    texts = isinstance(values, list) and all(isinstance(v, str) for v in values)
    array = np.asarray(values, object) if texts else np.asarray(values)
    return array[:, None] if (array.ndim, rank) == (1, 2) else array


def _key(value: Any) -> Any:
    """An identifier as Python has it; a text as its bytes."""
    value = value.item() if isinstance(value, np.generic) else value
    return value.encode() if isinstance(value, str) else value
