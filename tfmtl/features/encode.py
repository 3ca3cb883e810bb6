"""The input side of a model: raw columns → one dense vector."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import keras

from tfmtl.features.specs import (
    Bucketized,
    Categorical,
    Feature,
    Numeric,
    check_adapted,
)
from tfmtl.layers import Bucketize, FieldEmbedding, Standardize

Tensor = Any


def encode(features: Sequence[Feature]) -> tuple[dict[str, Tensor], Tensor]:
    """Builds inputs and their encoding as Keras layers.

    Look-up tables and statistics are inside, so that training and serving
    cannot differ. Numeric columns are standardised together; categorical
    columns of equal width share one embedding table.

    Args:
        features: Adapted features of different names.

    Returns:
        `(inputs, vector)`: a dict of symbolic inputs named like the features,
        each `(batch, width)`, and their encoding, `(batch, d)`.

    Raises:
        ValueError: If a feature is not adapted or a name occurs twice.

    Example:
        >>> import tfmtl
        >>> sex = tfmtl.features.Categorical("sex", vocabulary=("Male", "Female"))
        >>> inputs, vector = tfmtl.features.encode([sex])
        >>> list(inputs), vector.shape
        (['sex'], (None, 8))
    """
    inputs, [vector] = encode_apart(features, [""])
    return inputs, vector


def encode_apart(
    features: Sequence[Feature], prefixes: Sequence[str]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """As `encode`, with several vectors that share no trained weight.

    Args:
        features: Adapted features of different names.
        prefixes: A prefix of the names of each vector's embeddings.

    Returns:
        `(inputs, vectors)`, one vector for each prefix.

    Raises:
        ValueError: If a feature is not adapted or a name occurs twice.

    Example:
        >>> import tfmtl
        >>> sex = tfmtl.features.Categorical("sex", vocabulary=("Male", "Female"))
        >>> _, vectors = tfmtl.features.encode_apart([sex], ["a_", "b_"])
        >>> [vector.shape for vector in vectors]
        [(None, 8), (None, 8)]
    """
    check_adapted(features)
    inputs = {
        feature.name: keras.Input(
            (feature.width,), name=feature.name, dtype=feature.dtype
        )
        for feature in features
    }
    numeric = [feature for feature in features if isinstance(feature, Numeric)]
    embedded = [feature for feature in features if not isinstance(feature, Numeric)]
    standardized = [_standardized(numeric, inputs)] if numeric else []
    parts = [list(standardized) for _ in prefixes]
    embedded.sort(key=lambda feature: feature.units)
    for units, group in groupby(embedded, key=lambda feature: feature.units):
        rows, ids = _ids(list(group), units, inputs)
        for own, prefix in zip(parts, prefixes, strict=True):
            own.append(_embedded(rows, units, ids, f"{prefix}embedding_{units}"))
    vectors = [
        _concatenate(own, f"{prefix}encoded_columns")
        for own, prefix in zip(parts, prefixes, strict=True)
    ]
    return inputs, vectors


def _standardized(features: list[Numeric], inputs: dict[str, Tensor]) -> Tensor:
    standardize = Standardize(
        mean=[v for feature in features for v in feature.mean or ()],
        std=[v for feature in features for v in feature.std or ()],
        log=[feature.log for feature in features for _ in range(feature.width)],
        name="standardized_columns",
        dtype="float32",
    )
    return standardize(_columns(features, inputs, "numeric_columns"))


def _ids(
    features: list[Categorical | Bucketized], units: int, inputs: dict[str, Tensor]
) -> tuple[list[int], Tensor]:
    """Numbers of rows of the fields' tables, and the row of each field."""
    strings = [feature for feature in features if isinstance(feature, Categorical)]
    numbers = [feature for feature in features if isinstance(feature, Bucketized)]
    ids = [_look_up(feature, inputs[feature.name]) for feature in strings]
    if numbers:
        bucketize = Bucketize(
            [feature.boundaries or () for feature in numbers],
            name=f"bucketize_{units}",
            dtype="float32",
        )
        ids.append(bucketize(_columns(numbers, inputs, f"bucketized_{units}")))
    rows = [*(feature.rows for feature in strings), *(f.rows for f in numbers)]
    return rows, _concatenate(ids, f"ids_{units}")


def _embedded(rows: list[int], units: int, ids: Tensor, name: str) -> Tensor:
    embedding = FieldEmbedding(rows, units, name=name)
    return keras.layers.Flatten(name=f"{name}_flat")(embedding(ids))


def _look_up(feature: Categorical, column: Tensor) -> Tensor:
    return keras.layers.StringLookup(
        vocabulary=list(feature.vocabulary or ()), name=f"{feature.name}_lookup"
    )(column)


def _columns(
    features: Sequence[Feature], inputs: dict[str, Tensor], name: str
) -> Tensor:
    return _concatenate([inputs[feature.name] for feature in features], name)


def _concatenate(parts: list[Tensor], name: str) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    return keras.layers.Concatenate(name=name, dtype=parts[0].dtype)(parts)
