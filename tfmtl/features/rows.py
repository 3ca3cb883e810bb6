"""Raw columns as rows of embeddings."""

from collections import Counter
from collections.abc import Sequence as Several
from typing import Any

import keras

from tfmtl.features.specs import Bucketized, Cross, Sequence
from tfmtl.features.specs.hashed_ids import HashedIds
from tfmtl.features.specs.looked_up import LookedUp
from tfmtl.layers import Bucketize, HashedCross

Tensor = Any


class Rows:
    """Which row of its embedding each feature reads.

    Args:
        features: Adapted features.
        inputs: The columns by name.
    """

    def __init__(self, features: Several[Any], inputs: dict[str, Tensor]) -> None:
        self._inputs = inputs
        self._found: dict[tuple[type, str], tuple[Tensor, int]] = {}
        self._lookups: dict[str, Any] = {}
        looked_up = [f for f in features if isinstance(f, LookedUp)]
        users = Counter(feature.table for feature in looked_up)
        self._shared = {table for table in users if table and users[table] > 1}
        self._padded = {
            self.table(feature) for feature in features if isinstance(feature, Sequence)
        }
        hashed = [
            f for f in looked_up if f.is_hashed_id and not isinstance(f, Sequence)
        ]
        self._hash(hashed)
        for feature in looked_up:
            if feature not in hashed:
                self._look_up(feature)
        self._bucketize([f for f in features if isinstance(f, Bucketized)])
        named = {name: ids for (_, name), (ids, _) in self._found.items()}
        for feature in features:
            if isinstance(feature, Cross):
                cross = HashedCross(feature.hash_bins, name=f"{feature.name}_cross")
                ids = cross([named[column] for column in feature.columns])
                self._set(feature, ids, feature.rows)

    def ids(self, feature: Any) -> Tensor:
        """The rows that a feature reads, `(batch, 1)`, of a sequence `(batch, n)`."""
        return self._found[type(feature), feature.name][0]

    def size(self, feature: Any) -> int:
        """Number of rows of a feature's embedding."""
        return self._found[type(feature), feature.name][1]

    def table(self, feature: Any) -> str | None:
        """The table that a feature shares or reads a sequence of, if any."""
        table = getattr(feature, "table", None)
        if isinstance(feature, Sequence):
            return table or f"{feature.name}_values"
        return table if table in self._shared else None

    def _set(self, feature: Any, ids: Tensor, size: int) -> None:
        self._found[type(feature), feature.name] = ids, size

    def _look_up(self, feature: LookedUp) -> None:
        column = self._inputs[feature.name]
        if isinstance(feature, Sequence):
            column = column[:, : feature.length]
        if feature.dtype == "int64" and not feature.is_hashed_id:
            column = keras.ops.maximum(column, -1)
        table = self.table(feature)
        key = table or feature.name
        if key not in self._lookups:
            name, padded = f"{key}_lookup", table in self._padded
            self._lookups[key] = feature.look_up(name, padded)
        lookup = self._lookups[key]
        self._set(feature, lookup(column), feature.rows(lookup))

    def _hash(self, features: list[LookedUp]) -> None:
        if not features:
            return
        hashed = HashedIds([f.hash_bins or 0 for f in features], name="hashed_ids")
        ids = hashed([self._inputs[feature.name] for feature in features])
        for feature, own in zip(features, ids, strict=True):
            self._set(feature, own, feature.rows(hashed))

    def _bucketize(self, features: list[Bucketized]) -> None:
        if not features:
            return
        missing = [feature.missing for feature in features]
        bucketize = Bucketize(
            [feature.boundaries or () for feature in features],
            missing if any(number is not None for number in missing) else None,
            name="bucketize",
            dtype="float32",
        )
        ids = bucketize([self._inputs[feature.name] for feature in features])
        for feature, own in zip(features, ids, strict=True):
            self._set(feature, own, feature.rows)
