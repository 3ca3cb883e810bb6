"""Raw columns: do they fit a model, and filling ragged ones up."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfmtl.features.encoder import Encoder
from tfmtl.features.specs import Cross

_MEANING = {"string": "strings", "int": "integers", "float": "numbers"}
_NAMES = {"object": "string", "str": "string", "bytes": "string", "bool": "int"}


def check_columns(
    inputs: Any, columns: Mapping[str, Any], ragged: bool = False
) -> None:
    """Checks columns before a model reads them.

    Args:
        inputs: A model's inputs by name, as `model.input` is, or features, or an
            `Encoder`.
        columns: Arrays, tensors or a dataset's element spec, by name; other columns
            are ignored.
        ragged: Whether a column of any length may be ragged.

    Raises:
        ValueError: If a column is missing, or has another type, rank or width.

    Example:
        >>> import numpy as np, tfmtl
        >>> age = tfmtl.features.Numeric("age")
        >>> tfmtl.features.check_columns([age], {"age": np.ones((3, 1))})
        >>> tfmtl.features.check_columns([age], {"age": np.array(["a"])})
        Traceback (most recent call last):
        ValueError: Column 'age' should be numbers of shape (rows, 1). Received: \
dtype=string, shape=(1,)
    """
    if not isinstance(columns, Mapping):
        raise ValueError(
            "`columns` should be a dict of columns by name. "
            f"Received: {type(columns).__name__}"
        )
    for name, (dtype, width) in _expected(inputs).items():
        if name not in columns:
            raise ValueError(
                f"`columns` should have the column {name!r}. "
                f"Received: columns={sorted(columns)}"
            )
        _check(name, dtype, width, columns[name], ragged)


def pad(columns: Mapping[str, Any], length: int | None = None) -> dict[str, Any]:
    """Columns with the ragged ones filled up: "" in strings, -1 in numbers.

    For a dataset: `dataset.map(lambda x, y: (pad(x), y))`.

    Args:
        columns: Tensors by name; what is not ragged stays as it is.
        length: Width of the ragged columns from then on; longer rows are cut at the
            end. Defaults to each batch's longest row.

    Example:
        >>> import tensorflow as tf, tfmtl
        >>> tags = tf.ragged.constant([["a"], ["b", "c"]])
        >>> tfmtl.features.pad({"tags": tags})["tags"].numpy().tolist()
        [[b'a', b''], [b'b', b'c']]
    """
    return {name: _dense(column, length) for name, column in columns.items()}


def _dense(column: Any, length: int | None) -> Any:
    if not hasattr(column, "to_tensor"):
        return column
    missing: Any = "" if column.dtype == "string" else -1
    return column.to_tensor(missing, shape=(None, length))


def _expected(inputs: Any) -> dict[str, tuple[str, int | None]]:
    """Type and width of each column."""
    if isinstance(inputs, Mapping):
        return {name: (t.dtype, t.shape[-1]) for name, t in inputs.items()}
    features: Iterable[Any] = inputs.features if isinstance(inputs, Encoder) else inputs
    return {f.name: (f.dtype, f.width) for f in features if not isinstance(f, Cross)}


def _check(name: str, dtype: str, width: int | None, column: Any, ragged: bool) -> None:
    if not hasattr(column, "shape") or not hasattr(column, "dtype"):
        column = np.asarray(column)
    # a tensor has the first, a spec the second
    is_ragged = hasattr(column, "row_splits") or hasattr(column, "flat_values_spec")
    got, shape = _type(column.dtype), _shape(column.shape)
    wanted = _MEANING[_kind(dtype)]
    fits_type = _kind(got) == _kind(dtype) or (wanted, _kind(got)) == ("numbers", "int")
    if _is_sparse(column):
        received, hint = f"a sparse column, shape={shape}", ": use `tf.sparse.to_dense`"
    elif is_ragged and not (ragged and width is None):
        received = f"a ragged column, shape={shape}"
        hint = ": use `tfmtl.features.pad`" if width is None else ""
    elif fits_type and _fits(shape, width):
        return
    else:
        received, hint = f"dtype={got}, shape={shape}", ""
    size = "any length" if width is None else width
    raise ValueError(
        f"Column {name!r} should be {wanted} of shape (rows, {size}){hint}. "
        f"Received: {received}"
    )


def _is_sparse(column: Any) -> bool:
    """Whether this is a sparse tensor, or a spec of one."""
    kind = getattr(column, "value_type", None)
    return hasattr(column, "dense_shape") or hasattr(kind, "dense_shape")


def _fits(shape: tuple[int | None, ...] | None, width: int | None) -> bool:
    if shape is None:
        return True
    if len(shape) == 1:
        return width == 1
    return len(shape) == 2 and (width is None or shape[1] in (None, width))


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    """A shape as a tuple, `None` where the rank is not known."""
    return None if getattr(shape, "rank", 0) is None else tuple(shape)


def _type(dtype: Any) -> str:
    """The name of a NumPy, TensorFlow or other type."""
    name = np.dtype(dtype).name if isinstance(dtype, np.dtype) else None
    name = name or getattr(dtype, "name", None) or str(dtype).split(".")[-1]
    letters = name.rstrip("0123456789")
    return _NAMES.get(letters, name)


def column_kind(dtype: Any) -> str:
    """`string`, `int`, `float` or `other`, of a NumPy, TensorFlow or other type.

    Args:
        dtype: The type.

    Example:
        >>> import numpy as np
        >>> from tfmtl.features.columns import column_kind
        >>> column_kind(np.dtype(bool)), column_kind(np.dtype("U3"))
        ('int', 'string')
    """
    return _kind(_type(dtype))


def _kind(dtype: str) -> str:
    """`string`, `int` or `float`."""
    letters = dtype.rstrip("0123456789").removeprefix("u").removeprefix("b")
    return letters if letters in _MEANING else "other"
