"""Layers between the encoded columns and the experts."""

from typing import Any

import keras

from tfmtl.features.encoder import Encoder, OfFields
from tfmtl.features.fields import Fields
from tfmtl.layers.initializers import copy_of

Tensor = Any


def interact(
    encoder: Encoder, vector: Tensor, embedded: list[Fields], prefix: str
) -> Tensor:
    """Calls copies of an encoder's interactions, each on what came before.

    Args:
        encoder: What has the interactions.
        vector: The encoded columns, `(batch, d)`.
        embedded: The embedded features, for `OfFields`.
        prefix: A prefix of the copies' names.

    Raises:
        ValueError: If there are no such fields or the result is no vector.
    """
    for k, interaction in enumerate(encoder.interactions, 1):
        name = f"{prefix}interaction_{k}"
        if isinstance(interaction, OfFields):
            fields = _read(embedded, interaction.units)
            made = copy_of(interaction.layer, name)(fields)
            beside = keras.layers.Concatenate(name=f"{name}_beside")
            vector = beside([vector, made])
        else:
            vector = copy_of(interaction, name)(vector)
    if len(vector.shape) != 2:
        raise ValueError(
            "`interactions` should give a vector of shape (batch, d). "
            f"Received: shape={vector.shape}"
        )
    return vector


def _read(embedded: list[Fields], units: int | None) -> list[Tensor]:
    """The fields of one width, one by one."""
    groups = [g for g in embedded if units in (None, g.tensor.shape[-1])]
    if len(groups) != 1:
        found = [group.tensor.shape[-1] for group in embedded]
        raise ValueError(
            "`units` of OfFields should be the width of some embedded features, and "
            f"may be left out where all have one width. Received: units={units!r}, "
            f"widths={found}"
        )
    [group] = groups
    return keras.ops.unstack(group.tensor, len(group.features), axis=1)
