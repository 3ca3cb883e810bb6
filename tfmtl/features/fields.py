"""Features as fields: tensors `(batch, fields, width)`, one for each width."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl.features.specs import Numeric
from tfmtl.layers import Standardize

Tensor = Any


class Fields(NamedTuple):
    """Features of one width.

    Attributes:
        name: What their layers are called.
        features: Their names.
        tensor: `(batch, fields, width)`.
    """

    name: str
    features: list[str]
    tensor: Tensor


def numeric_fields(
    features: Sequence[Numeric], inputs: dict[str, Tensor]
) -> list[Fields]:
    """Numeric features, standardised, by width."""
    groups: dict[int, list[Numeric]] = {}
    for feature in features:
        groups.setdefault(feature.width, []).append(feature)
    return [
        Fields(
            f"numeric_{width}",
            [feature.name for feature in group],
            _standardize(group, width)([inputs[feature.name] for feature in group]),
        )
        for width, group in groups.items()
    ]


def _standardize(features: list[Numeric], width: int) -> Standardize:
    clip = [feature.clip for feature in features for _ in range(width)]
    missing = [feature.missing for feature in features for _ in range(width)]
    return Standardize(
        mean=[v for feature in features for v in feature.mean or ()],
        std=[v for feature in features for v in feature.std or ()],
        log=[feature.log for feature in features for _ in range(width)],
        clip=clip if any(bounds != (None, None) for bounds in clip) else None,
        missing=missing if any(v is not None for v in missing) else None,
        name=f"standardized_{width}",
        dtype="float32",
    )
