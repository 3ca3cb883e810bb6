"""Embedded features as fields."""

from collections.abc import Sequence as Several
from typing import Any

import keras

from tfmtl.features.fields import Fields
from tfmtl.features.rows import Rows
from tfmtl.features.specs import Categorical, Numeric, Sequence
from tfmtl.layers import FieldEmbedding, SequencePooling, TargetAttention
from tfmtl.layers.initializers import own

Tensor = Any


def embedded_fields(features: Several[Any], rows: Rows, prefix: str) -> list[Fields]:
    """Embedded features, by width.

    Args:
        features: All features of a model.
        rows: The rows they read.
        prefix: A prefix of the embeddings' names: each has embeddings of its own.
    """
    embeddings = _Embeddings(rows, prefix)
    embedded = [f for f in features if not isinstance(f, Numeric)]
    for group in _of_one_kind([f for f in embedded if rows.table(f) is None]):
        embeddings.add_joint(group)
    single = [f for f in embedded if rows.table(f) is not None]
    for feature in sorted(single, key=lambda f: isinstance(f, Sequence)):
        embeddings.add_of_table(feature)  # sequences after their targets
    return embeddings.fields()


class _Embeddings:
    """Embeddings side by side, with what makes them."""

    def __init__(self, rows: Rows, prefix: str) -> None:
        self._rows = rows
        self._prefix = prefix
        self._tables: dict[str | None, keras.layers.Layer] = {}
        self._targets: dict[str, tuple[Tensor, int]] = {}
        self._names: dict[int, list[str]] = {}
        self._parts: dict[int, list[Tensor]] = {}

    def add_joint(self, features: list[Any]) -> None:
        """Features of one kind, in one table."""
        units = features[0].units
        number = len(self._parts.get(units, ())) + 1
        name = f"{self._prefix}embedding_{units}" + (f"_{number}" if number > 1 else "")
        sizes = [self._rows.size(feature) for feature in features]
        embedding = FieldEmbedding(sizes, units, **_arguments(features[0], name))
        tensor = embedding([self._rows.ids(feature) for feature in features])
        for slot, feature in enumerate(features):
            if isinstance(feature, Categorical):
                self._targets[feature.name] = tensor, slot
        self._add(units, [feature.name for feature in features], tensor)

    def add_of_table(self, feature: Any) -> None:
        """A feature that shares a table, or a sequence."""
        table = self._rows.table(feature)
        if table not in self._tables:
            self._tables[table] = keras.layers.Embedding(
                self._rows.size(feature),
                feature.units,
                **_arguments(feature, f"{self._prefix}{table}_table"),
            )
        tensor = self._tables[table](self._rows.ids(feature))
        if isinstance(feature, Sequence):
            tensor = self._pooled(feature, tensor)
        else:
            self._targets[feature.name] = tensor, 0
        self._add(feature.units, [feature.name], tensor)

    def fields(self) -> list[Fields]:
        """What was added, joined by width."""
        found = []
        for units in sorted(self._parts):
            name, parts = f"fields_{units}", self._parts[units]
            tensor = parts[0]
            if len(parts) > 1:
                join = keras.layers.Concatenate(axis=1, name=f"{self._prefix}{name}")
                tensor = join(parts)
            found.append(Fields(name, self._names[units], tensor))
        return found

    def _add(self, units: int, names: list[str], tensor: Tensor) -> None:
        self._names.setdefault(units, []).extend(names)
        self._parts.setdefault(units, []).append(tensor)

    def _pooled(self, feature: Sequence, values: Tensor) -> Tensor:
        name = f"{self._prefix}{feature.name}_pooling"
        ids = self._rows.ids(feature)
        if feature.target is None:
            return SequencePooling(feature.pooling, name=name)([values, ids])
        tensor, slot = self._targets[feature.target]
        target = tensor if tensor.shape[1] == 1 else tensor[:, slot : slot + 1]
        return TargetAttention(name=name)([values, ids, target])


def _of_one_kind(features: list[Any]) -> list[list[Any]]:
    """Features grouped by units, initialiser and regulariser."""
    groups: list[list[Any]] = []
    for feature in features:
        same = [group for group in groups if group[0].kind == feature.kind]
        if same:
            same[0].append(feature)
        else:
            groups.append([feature])
    return groups


def _arguments(feature: Any, name: str) -> dict[str, Any]:
    """Of an embedding layer; one of a seeded initialiser draws numbers of its own."""
    return {
        "name": name,
        "embeddings_initializer": own(feature.initializer, name),
        "embeddings_regularizer": keras.regularizers.get(feature.regularizer),
    }
