"""Features, and what happens to them before the experts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tfmtl.features.specs import Feature


@dataclass(frozen=True)
class OfFields:
    """An interaction that reads a list of field vectors, each `(batch, units)`.

    What its layer gives, `(batch, d)`, is put beside the vector that came before.

    Attributes:
        layer: The layer, such as `keras_rs.layers.DotInteraction()`.
        units: Width of the fields it reads. Defaults to that of all embedded
            features, where it is one.

    Example:
        >>> import keras, tfmtl
        >>> features = [
        ...     tfmtl.features.Categorical(name, vocabulary=("x", "y"), units=4)
        ...     for name in ["job", "city"]
        ... ]
        >>> dots = tfmtl.features.OfFields(keras.layers.Dot(axes=-1))
        >>> encoder = tfmtl.features.Encoder(features, [dots])
        >>> _, vector = tfmtl.features.encode(encoder)
        >>> vector.shape
        (None, 9)

    With `keras_rs.layers.DotInteraction()` in `Dot`'s place, for any number of fields,
    this is DLRM's interaction: Naumov et al., "Deep Learning Recommendation Model for
    Personalization and Recommendation Systems", 2019.
    """

    layer: keras.layers.Layer
    units: int | None = None


@dataclass(frozen=True)
class Encoder:
    """Features with gates on their fields and layers between them and the experts.

    It takes the features' place: in `encode`, `adapt` and every recipe of
    `tfmtl.models`.

    Attributes:
        features: Feature specifications.
        interactions: Keras layers, `(batch, d)` to `(batch, d')`, each called on what
            came before, the first on the encoded columns; or `OfFields`. A model gets
            copies, so that no two share a weight.
        hard_concrete: Arguments of the hard-concrete gate that each field gets, one
            for every feature; `{}` for its defaults. Defaults to no gates. What
            training closed is gone after `tfmtl.folding.fold`.

    Raises:
        ValueError: If an interaction is no layer or `hard_concrete` no dict.

    Example:
        >>> import keras, tfmtl
        >>> age = tfmtl.features.Numeric("age", mean=(40.0,), std=(10.0,))
        >>> encoder = tfmtl.features.Encoder([age], [keras.layers.Dense(3)])
        >>> inputs, vector = tfmtl.features.encode(encoder)
        >>> vector.shape
        (None, 3)
    """

    features: Sequence[Feature]
    interactions: Sequence[keras.layers.Layer | OfFields] = ()
    hard_concrete: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for interaction in self.interactions:
            layer = getattr(interaction, "layer", interaction)
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(
                    "`interactions` should be Keras layers, or OfFields of one. "
                    f"Received: {interaction!r}"
                )
        if not isinstance(self.hard_concrete, Mapping | None):
            raise ValueError(
                "`hard_concrete` should be a dict of arguments. "
                f"Received: hard_concrete={self.hard_concrete!r}"
            )
