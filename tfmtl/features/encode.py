"""The input side of a model: raw columns → one dense vector."""

from collections.abc import Sequence
from typing import Any

import keras

from tfmtl.features.embeddings import embedded_fields
from tfmtl.features.encoder import Encoder
from tfmtl.features.fields import Fields, numeric_fields
from tfmtl.features.interactions import interact
from tfmtl.features.rows import Rows
from tfmtl.features.specs import Cross, Feature, Numeric
from tfmtl.features.specs.checks import check_adapted
from tfmtl.layers import FieldGate
from tfmtl.layers.initializers import reseeded

Tensor = Any


def encode(features: Sequence[Feature] | Encoder) -> tuple[dict[str, Tensor], Tensor]:
    """Builds inputs and their encoding as Keras layers.

    Look-up tables and statistics are inside, so that training and serving cannot
    differ. Numeric columns are standardised together; embedded features of equal
    units, initialiser and regulariser share one table, unless a table is shared by
    name or read by a sequence.

    Args:
        features: Adapted features of different names, or an `Encoder` of them.

    Returns:
        `(inputs, vector)`: a dict of symbolic inputs named like the columns, each
        `(batch, width)`, and their encoding, `(batch, d)`.

    Raises:
        ValueError: If features are not adapted or do not fit together.

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
    features: Sequence[Feature] | Encoder, prefixes: Sequence[str]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """As `encode`, with several vectors that share no trained weight.

    Args:
        features: Adapted features of different names, or an `Encoder` of them.
        prefixes: A prefix of the names of each vector's layers with weights.

    Returns:
        `(inputs, vectors)`, one vector for each prefix.

    Raises:
        ValueError: If features are not adapted or do not fit together.

    Example:
        >>> import tfmtl
        >>> sex = tfmtl.features.Categorical("sex", vocabulary=("Male", "Female"))
        >>> _, vectors = tfmtl.features.encode_apart([sex], ["a_", "b_"])
        >>> [vector.shape for vector in vectors]
        [(None, 8), (None, 8)]
    """
    encoder = features if isinstance(features, Encoder) else Encoder(features)
    check_adapted(encoder.features)
    inputs = {
        feature.name: keras.Input(
            (feature.width,), name=feature.name, dtype=feature.dtype
        )
        for feature in encoder.features
        if not isinstance(feature, Cross)
    }
    numeric = [f for f in encoder.features if isinstance(f, Numeric)]
    standardized = numeric_fields(numeric, inputs)
    rows = Rows(encoder.features, inputs)
    vectors = []
    for prefix in prefixes:
        embedded = embedded_fields(encoder.features, rows, prefix)
        vectors.append(_vector(encoder, standardized, embedded, prefix))
    return inputs, vectors


def _vector(
    encoder: Encoder, numeric: list[Fields], embedded: list[Fields], prefix: str
) -> Tensor:
    if encoder.hard_concrete is not None:
        gate = dict(encoder.hard_concrete)
        numeric = [_gated(group, gate, prefix) for group in numeric]
        embedded = [_gated(group, gate, prefix) for group in embedded]
    flat = [
        keras.layers.Flatten(name=f"{prefix}{group.name}_flat")(group.tensor)
        for group in (*numeric, *embedded)
    ]
    vector = flat[0]
    if len(flat) > 1:
        vector = keras.layers.Concatenate(name=f"{prefix}encoded_columns")(flat)
    return interact(encoder, vector, embedded, prefix)


def _gated(group: Fields, hard_concrete: dict[str, Any], prefix: str) -> Fields:
    name = f"{prefix}{group.name}_gate"
    own = reseeded(hard_concrete, name)
    gate = FieldGate(group.features, hard_concrete=own, name=name)
    return group._replace(tensor=gate(group.tensor))
