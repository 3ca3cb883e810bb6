"""Features for the columns of data, as a start."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tfmtl.features.columns import column_kind
from tfmtl.features.specs import Categorical, Feature, Numeric, Sequence


def suggest(data: Any) -> list[Feature]:
    """Features for the columns of data, to be printed, edited and adapted.

    | column | feature |
    |---|---|
    | numbers `(rows,)`, `(rows, 1)` or `(rows, k)` | `Numeric` of that width |
    | strings or integers `(rows,)` or `(rows, 1)` | `Categorical` |
    | strings or integers, several per row | `Sequence` |

    Types tell no more: whether an integer is an id or an amount, and which numbers have
    a heavy tail, is for you to say. Vocabularies are learned whole by `adapt`; give ids
    without bound `max_size` or `hash_bins`. Columns of other types, and numbers of any
    length, are left out.

    Args:
        data: Columns by name, or a `tf.data.Dataset` of them, alone or as the first
            element of a tuple. Only types and shapes are looked at.

    Returns:
        A list in the order of the columns.

    Raises:
        ValueError: If there are no columns by name.

    Example:
        >>> import numpy as np, tfmtl
        >>> data = {"age": np.array([30.0, 50.0]), "tags": np.array([["a", "b"]] * 2)}
        >>> for feature in tfmtl.features.suggest(data):
        ...     print(type(feature).__name__, feature.name, feature.dtype)
        Numeric age float32
        Sequence tags string
    """
    columns = getattr(data, "element_spec", data)
    if isinstance(columns, tuple) and columns:
        columns = columns[0]
    if not isinstance(columns, Mapping):
        raise ValueError(
            "`data` should be a dict of columns, or a dataset of these. "
            f"Received: {type(columns).__name__}"
        )
    found = [_feature(name, column) for name, column in columns.items()]
    return [feature for feature in found if feature is not None]


def _feature(name: str, column: Any) -> Feature | None:
    if not hasattr(column, "shape") or not hasattr(column, "dtype"):
        column = np.asarray(column)
    kind, shape = column_kind(column.dtype), tuple(column.shape)
    width = 1 if len(shape) == 1 else shape[-1]
    if len(shape) > 2 or kind == "other" or kind == "float" and width is None:
        return None
    if kind == "float":
        return Numeric(name, width=width)
    dtype = "string" if kind == "string" else "int64"
    if width == 1:
        return Categorical(name, dtype=dtype)
    feature = Sequence(name, dtype=dtype)
    return feature if width is None else replace(feature, length=width)
