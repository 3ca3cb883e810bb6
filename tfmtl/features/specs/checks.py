"""Whether features fit together."""

from collections.abc import Sequence as Several
from typing import Any

from tfmtl.features.specs.bucketized import Bucketized
from tfmtl.features.specs.categorical import Categorical
from tfmtl.features.specs.cross import Cross
from tfmtl.features.specs.looked_up import LookedUp
from tfmtl.features.specs.sequence import Sequence


def check_together(features: Several[Any]) -> None:
    """Raises `ValueError` unless features can be in one model."""
    kinds = [(feature.name, type(feature).__name__) for feature in features]
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(
            "`features` should be one or more features, each column once per kind. "
            f"Received: {kinds}"
        )
    _check_columns(features)
    check_tables(features)
    for feature in features:
        if isinstance(feature, Sequence) and feature.target is not None:
            _check_target(feature, features)
        if isinstance(feature, Cross):
            _check_crossed(feature, features)


def check_adapted(features: Several[Any]) -> None:
    """Raises `ValueError` unless features can be in one model and are adapted."""
    check_together(features)
    missing = [feature.name for feature in features if not feature.is_adapted]
    if missing:
        raise ValueError(
            "`features` should be adapted to data: call `tfmtl.features.adapt`. "
            f"Received: not adapted={missing}"
        )


def _check_columns(features: Several[Any]) -> None:
    columns: dict[str, tuple[str, int | None]] = {}
    for feature in features:
        if isinstance(feature, Cross):
            continue
        shape = (feature.dtype, feature.width)
        if columns.setdefault(feature.name, shape) != shape:
            raise ValueError(
                "`features` of one column should have one type and width. Received: "
                f"{feature.name!r} as {columns[feature.name]} and as {shape}"
            )


def check_tables(features: Several[Any]) -> None:
    """Raises `ValueError` unless features of one table agree."""
    first: dict[str, LookedUp] = {}
    for feature in features:
        if not isinstance(feature, LookedUp) or feature.table is None:
            continue
        other = first.setdefault(feature.table, feature)
        if other.sharing != feature.sharing:
            raise ValueError(
                f"`features` of the table {feature.table!r} should agree in units, "
                "initializer, regularizer, dtype, vocabulary, hash_bins, min_count and "
                f"max_size. Received: {other!r} and {feature!r}"
            )


def _check_target(feature: Sequence, features: Several[Any]) -> None:
    found = [
        other
        for other in features
        if isinstance(other, Categorical) and other.name == feature.target
    ]
    if not found or found[0].units != feature.units:
        raise ValueError(
            f"`target` of {feature.name!r} should be the name of a Categorical feature "
            f"of {feature.units} units. Received: target={feature.target!r}, which has "
            f"units={found[0].units if found else None}"
        )


def _check_crossed(feature: Cross, features: Several[Any]) -> None:
    known = {
        other.name for other in features if isinstance(other, Categorical | Bucketized)
    }
    if not set(feature.columns) <= known:
        raise ValueError(
            f"`columns` of {feature.name!r} should be Categorical or Bucketized "
            f"features, of {sorted(known)}. Received: columns={feature.columns}"
        )
