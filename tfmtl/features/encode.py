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
    check_adapted(features)
    inputs = {
        feature.name: keras.Input(
            (feature.width,), name=feature.name, dtype=feature.dtype
        )
        for feature in features
    }
    numeric = [feature for feature in features if isinstance(feature, Numeric)]
    embedded = [feature for feature in features if not isinstance(feature, Numeric)]
    parts = [_standardized(numeric, inputs)] if numeric else []
    embedded.sort(key=lambda feature: feature.units)
    for units, group in groupby(embedded, key=lambda feature: feature.units):
        parts.append(_embedded(list(group), units, inputs))
    return inputs, _concatenate(parts, "encoded_columns")


def _standardized(features: list[Numeric], inputs: dict[str, Tensor]) -> Tensor:
    standardize = Standardize(
        mean=[v for feature in features for v in feature.mean or ()],
        std=[v for feature in features for v in feature.std or ()],
        log=[feature.log for feature in features for _ in range(feature.width)],
        name="standardized_columns",
        dtype="float32",
    )
    return standardize(_columns(features, inputs, "numeric_columns"))


def _embedded(
    features: list[Categorical | Bucketized], units: int, inputs: dict[str, Tensor]
) -> Tensor:
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
    embedding = FieldEmbedding(
        [*(feature.rows for feature in strings), *(f.rows for f in numbers)],
        units,
        name=f"embedding_{units}",
    )
    rows = embedding(_concatenate(ids, f"ids_{units}"))
    return keras.layers.Flatten(name=f"embedding_{units}_flat")(rows)


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
