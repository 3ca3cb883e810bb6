"""Learning vocabularies and statistics from training data."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl.features.specs import Feature, column


def adapt(features: Sequence[Feature], data: Mapping[str, np.ndarray]) -> list[Feature]:
    """Features with the vocabularies and statistics of training data.

    Call it on the training rows only: what it learns becomes part of the model.

    Args:
        features: Feature specifications.
        data: Columns by name, each `(rows, ...)`; other columns are ignored.

    Returns:
        New specifications in the same order; those given are left as they are.

    Raises:
        ValueError: If a column is missing or does not fit its feature.

    Example:
        >>> import numpy as np, tfmtl
        >>> data = {"age": np.array([[30.0], [50.0]])}
        >>> [age] = tfmtl.features.adapt([tfmtl.features.Numeric("age")], data)
        >>> age.mean
        (40.0,)
    """
    return [feature.adapted(column(data, feature.name)) for feature in features]
