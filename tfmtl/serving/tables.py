"""Embedding tables as a version stores them: in fewer bits, in several variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.folding import with_layers
from tfmtl.folding.proof import difference
from tfmtl.layers import FieldEmbedding
from tfmtl.layers.field_embedding import rows_of_fields
from tfmtl.serving.publish import temporary_files
from tfmtl.serving.score_drift import rank_correlation
from tfmtl.serving.stateless import walk

Tensor = Any
KINDS = ("float16", "int8")
LIMIT = 1 << 16  # bytes from which a table is worth it
LARGE = 1 << 24  # values beyond which TensorFlow reads a variable on its own thread
THREADS = 8  # of these
_LARGEST = {"float16": 65504.0, "int8": np.inf}


@dataclass(frozen=True)
class TableError:
    """What tables in fewer bits change in one output.

    Args:
        difference: The largest difference, relative for outputs beyond 1.
        rank_correlation: Spearman's correlation between the orders of the rows.
    """

    difference: float
    rank_correlation: float


@keras.saving.register_keras_serializable(package="tfmtl")
class CompactEmbedding(keras.layers.Layer):
    """An embedding whose rows are of float16, or of int8 with a scale each.

    ```
    y = table[id] * scale[id],   scale = max |row| / 127 (int8),  1 (float16)
    input integers, output (..., units)
    ```

    Args:
        table: `(rows, units)`, or its shape, for a layer that is loaded.
        kind: `"float16"` or `"int8"`.
        sizes: Rows of each field, where it stands for a `FieldEmbedding`.
        **kwargs: `name`, `dtype`.
    """

    def __init__(
        self,
        table: Any,
        kind: str,
        sizes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable=False, **kwargs)
        self.kind = kind
        self.sizes = sizes
        self.scales = None
        given = np.zeros(table) if np.ndim(table) == 1 else np.asarray(table)
        self.embeddings = self._table("embeddings", given.shape, kind)
        if kind == "int8":
            self.scales = self._table("scales", (len(given), 1), "float32")
            largest = np.abs(given).max(axis=1, keepdims=True)
            scales = np.where(largest > 0, largest / 127, 1.0).astype("float32")
            self.scales.assign(scales)
            given = np.rint(given / scales)
        self.embeddings.assign(given.astype(kind))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the rows."""
        rows = inputs if self.sizes is None else rows_of_fields(inputs, self.sizes)
        rows = ops.cast(rows, "int64")
        values = ops.cast(ops.take(self.embeddings, rows, axis=0), "float32")
        if self.scales is not None:
            values = values * ops.take(self.scales, rows, axis=0)
        return ops.cast(values, self.compute_dtype)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """The shape of the ids, and the width of a row."""
        first = keras.tree.flatten(inputs)[0]
        ids = first.shape if self.sizes is None else (first.shape[0], len(self.sizes))
        return keras.KerasTensor((*ids, self.embeddings.shape[1]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable: of the table its shape."""
        config = super().get_config()
        del config["trainable"]
        own = {"table": list(self.embeddings.shape), "kind": self.kind}
        return {**config, **own, "sizes": self.sizes}

    def _table(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer="zeros",
            dtype=dtype,
            trainable=False,
            autocast=False,
        )


@temporary_files()
def with_compact_tables(model: keras.Model, kind: str) -> keras.Model:
    """The model with its embedding tables in fewer bits.

    Tables of less than 64 KiB stay, as do those with a mask, and a float16 table
    that would have numbers beyond 65504.

    Args:
        model: A Functional model.
        kind: `"float16"` or `"int8"`.

    Returns:
        A copy, for serving only.

    Raises:
        ValueError: If `kind` is neither.

    Example:
        `with_compact_tables(model, "int8").count_params()`
    """
    if kind not in KINDS:
        raise ValueError(
            f"`tables` should be one of {KINDS}. Received: tables={kind!r}"
        )

    def compact(layer: keras.Operation) -> keras.Operation:
        fields = type(layer) is FieldEmbedding
        plain = type(layer) is keras.layers.Embedding and not layer.mask_zero
        if not (fields or plain) or getattr(layer, "quantization_mode", None):
            return layer
        table = ops.convert_to_numpy(layer.embeddings).astype("float32")
        if table.nbytes < LIMIT or np.abs(table).max() > _LARGEST[kind]:
            return layer
        sizes = layer.sizes if fields else None
        policy = layer.dtype_policy
        return CompactEmbedding(table, kind, sizes, name=layer.name, dtype=policy)

    return with_layers(model, compact)


@temporary_files()
def with_tables_apart(model: keras.Model) -> keras.Model:
    """The model with the largest tables of several fields in several variables.

    TensorFlow reads variables of more than 16.8 million values side by side, on up to
    eight threads. A table of twice that and more becomes as many as it fills, each of
    some of the fields: a look-up reads as many rows as before.

    Args:
        model: A Functional model.

    Returns:
        The model, or a copy for serving only.

    Example:
        `with_tables_apart(model).count_params()  # as before`
    """
    cuts = {
        id(layer): found
        for layer in walk(model, lambda value: type(value) is FieldEmbedding)
        if (found := _cuts(layer))
    }

    def apart(layer: keras.Operation) -> keras.Operation:
        return _fields_apart(layer, cuts[id(layer)]) if id(layer) in cuts else layer

    return with_layers(model, apart) if cuts else model


def _cuts(layer: FieldEmbedding) -> list[int]:
    """The fields before which a table is cut into parts of about as many rows."""
    ends = np.cumsum(layer.sizes)
    parts = min(THREADS, int(ends[-1]) * layer.units // LARGE)
    wanted = ends[-1] * np.arange(1, parts) / parts
    cuts = np.abs(ends[:-1, None] - wanted).argmin(axis=0) + 1 if len(ends) > 1 else []
    return sorted(set(map(int, cuts)))


def _fields_apart(layer: FieldEmbedding, cuts: list[int]) -> keras.Model:
    """A table for each group of fields, and their embeddings one after the other."""
    count = len(layer.sizes)
    inputs: Any = keras.Input((count,), dtype="int64")
    if layer.apart:
        inputs = [keras.Input((1,), dtype="int64") for _ in range(count)]
    groups = [slice(*ends) for ends in pairwise([0, *cuts, count])]
    tables = np.split(
        ops.convert_to_numpy(layer.embeddings),
        np.cumsum(layer.sizes)[np.array(cuts) - 1],
    )
    embedded = []
    for group, table in zip(groups, tables, strict=True):
        part = FieldEmbedding(layer.sizes[group], layer.units, dtype=layer.dtype_policy)
        embedded.append(part(inputs[group] if layer.apart else inputs[:, group]))
        part.embeddings.assign(table)
    return keras.Model(inputs, ops.concatenate(embedded, axis=1), name=layer.name)


def table_errors(
    expected: Mapping[str, np.ndarray], compact: Mapping[str, np.ndarray]
) -> dict[str, TableError]:
    """Compares a model's outputs with those of its tables in fewer bits.

    Args:
        expected: Outputs by name, `(batch, ...)`.
        compact: The same of the other model.

    Returns:
        The error by name.

    Example:
        `table_errors({"click": p}, {"click": q})["click"].rank_correlation`
    """
    errors = {}
    for name, array in expected.items():
        first, second = (np.asarray(a, "f8").ravel() for a in (array, compact[name]))
        rank = rank_correlation(first, second)
        errors[name] = TableError(difference(second, first), rank)
    return errors
