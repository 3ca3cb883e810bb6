"""Learning vocabularies and statistics from training data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfmtl.features.batches import checked_batches, num_batches
from tfmtl.features.encoder import Encoder
from tfmtl.features.specs import Cross, Feature
from tfmtl.features.specs.checks import check_tables
from tfmtl.features.specs.looked_up import LookedUp


def adapt(
    features: Sequence[Feature] | Encoder,
    data: Mapping[str, Any] | Iterable[Any],
    verbose: int | None = None,
) -> Any:
    """Features with the vocabularies and statistics of training data.

    Call it on the training rows only: what it learns becomes part of the model. It
    learns what is not known yet: a vocabulary or statistics given stay as they are.

    Data is read once, in bounded memory: a mean and a standard deviation per column,
    one count per distinct value, and up to 2^20 values of a `Bucketized` column (of
    more a sample; see there). The result does not depend on the batches.

    Args:
        features: Feature specifications, or an `Encoder` that has some.
        data: Columns by name, each `(rows, ...)`; or batches of them, such as a
            finite `tf.data.Dataset`, each a dict or a tuple that starts with one.
            Other columns are ignored; those of a `Sequence` may be ragged.
        verbose: 1 for a progress bar, 0 for none. Defaults to 1 for batches and 0
            for arrays.

    Returns:
        New specifications in the same order, or a new `Encoder`; those given are
        left as they are.

    Raises:
        ValueError: If a column is missing or does not fit its feature, there is
            nothing to learn of it, or features of one table do not agree.

    Example:
        >>> import numpy as np, tfmtl
        >>> data = {"age": np.array([[30.0], [50.0]])}
        >>> [age] = tfmtl.features.adapt([tfmtl.features.Numeric("age")], data)
        >>> age.mean
        (40.0,)
    """
    if isinstance(features, Encoder):
        adapted = adapt(features.features, data, verbose)
        return replace(features, features=adapted)
    check_tables(features)
    learners: dict[Any, Any] = {}
    reading: list[tuple[Any, Any]] = []
    for feature in features:
        if not feature.is_adapted and not isinstance(feature, Cross):
            learner = learners.setdefault(_key(feature), feature.learner())
            reading.append((feature, learner))
    if reading:
        _read(reading, data, verbose)
    return [
        feature.learned(learners[_key(feature)])
        if _key(feature) in learners and not isinstance(feature, Cross)
        else feature
        for feature in features
    ]


def _key(feature: Feature) -> Any:
    """What features have in common that learn from each other's columns."""
    if isinstance(feature, LookedUp) and feature.table is not None:
        return feature.table
    return type(feature), feature.name


def _read(reading: list[tuple[Any, Any]], data: Any, verbose: int | None) -> None:
    features = [feature for feature, _ in reading]
    if verbose is None:
        verbose = 0 if isinstance(data, Mapping) else 1
    steps = num_batches(data)
    progress = keras.utils.Progbar(steps, verbose=verbose, unit_name="batch")
    seen = 0
    for batch in checked_batches(features, data, ragged=True):
        for feature, learner in reading:
            feature.read(learner, _array(feature, batch[feature.name]))
        progress.add(1)
        seen += 1
    if not seen:
        raise ValueError("`data` should hold one or more rows. Received: none")


def _array(feature: Any, column: Any) -> np.ndarray:
    """A column in NumPy; of a ragged one the values that are used, in one row."""
    if hasattr(column, "flat_values"):
        return np.asarray(column[:, : feature.length].flat_values)[None]
    return np.asarray(column)
