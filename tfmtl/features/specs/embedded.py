"""What embedded features have in common: the width and the rows' start."""

from dataclasses import dataclass
from typing import Any

import keras

from tfmtl.layers.checks import positive_int


@dataclass(frozen=True)
class Embedded:
    """A feature with an embedding.

    Attributes:
        name: Name of the raw column and of the model's input.
        units: Width of the embedding.
        initializer: Keras initializer of the embedding: a name, a configuration, or
            an object, of which the configuration is kept.
        regularizer: Keras regulariser of the embedding, likewise.
    """

    name: str
    units: int = 8
    initializer: Any = "uniform"
    regularizer: Any = None

    def __post_init__(self) -> None:
        positive_int("units", self.units)
        for field in ("initializer", "regularizer"):
            value = getattr(self, field)
            if isinstance(value, keras.initializers.Initializer | keras.Regularizer):
                value = keras.saving.serialize_keras_object(value)
                object.__setattr__(self, field, value)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What features have in common that can share one weight."""
        return self.units, self.initializer, self.regularizer
