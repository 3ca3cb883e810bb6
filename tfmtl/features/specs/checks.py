"""Whether features fit together."""

import keyword
import re
import warnings
from collections.abc import Sequence as Several
from typing import Any

from tfmtl.features.specs.bucketized import Bucketized
from tfmtl.features.specs.categorical import Categorical
from tfmtl.features.specs.cross import Cross
from tfmtl.features.specs.looked_up import LookedUp
from tfmtl.features.specs.sequence import Sequence


def check_together(features: Several[Any]) -> None:
    """Raises `ValueError` unless features can be in one model."""
    several = features if isinstance(features, list | tuple) else [None]
    if not all(hasattr(feature, "name") for feature in several):
        raise ValueError(
            f"`features` should be a list of features. Received: features={features!r}"
        )
    kinds = [(feature.name, type(feature).__name__) for feature in features]
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(
            "`features` should be one or more features, each column once per kind. "
            f"Received: {kinds}"
        )
    _check_names(features)
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


def _check_names(features: Several[Any]) -> None:
    names = [feature.name for feature in features]
    for name in names:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(
                "Names of `features` should be texts without '/'. "
                f"Received: name={name!r}"
            )
    columns = [f.name for f in features if not isinstance(f, Cross)]
    unfit = [name for name in columns if not _is_served(name)]
    if unfit:
        warnings.warn(
            "A model is exported only where its columns have names of ASCII letters, "
            "digits, '_', '-' and '.', that start with a letter or digit and are no "
            f"Python keyword or 'self'. Received: {unfit}",
            stacklevel=2,
        )


def _is_served(name: str) -> bool:
    fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", name)
    return bool(fits) and not keyword.iskeyword(name) and name != "self"


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
    """Raises `ValueError` unless features of one table agree, apart from all others."""
    looked_up = [f for f in features if isinstance(f, LookedUp)]
    first: dict[str, LookedUp] = {}
    for feature in looked_up:
        if feature.table is None:
            continue
        other = first.setdefault(feature.table, feature)
        if other.sharing != feature.sharing:
            raise ValueError(
                f"`features` of the table {feature.table!r} should agree in units, "
                "initializer, regularizer, dtype, vocabulary, hash_bins, min_count and "
                f"max_size. Received: {other!r} and {feature!r}"
            )
    _check_names_of_tables(looked_up)


def _check_names_of_tables(features: Several[LookedUp]) -> None:
    """A table has the name `table`, that of its feature, or "<sequence>_values"."""
    named = {feature.name: feature for feature in features}
    named |= {feature.table: feature for feature in features if feature.table}
    for feature in features:
        names = [feature.name]
        if isinstance(feature, Sequence):
            names.append(f"{feature.name}_values")
        for name in names:
            other = named.get(name, feature)
            together = other.table is not None and other.table == feature.table
            if other is not feature and not together:
                raise ValueError(
                    f"Features {feature.name!r} and {other.name!r} should have one "
                    f"`table` or tables of different names. Received: {name!r} for both"
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
