"""Combinations of the values of several columns."""

from dataclasses import dataclass
from typing import ClassVar

from tfmtl.features.specs.embedded import Embedded
from tfmtl.layers.checks import positive_int


@dataclass(frozen=True)
class Cross(Embedded):
    """The combination of two or more columns' values, hashed and embedded.

    The columns are `Categorical` or `Bucketized` features of the same model; what is
    crossed is their rows, so the missing and the unknown value combine too.

    Attributes:
        name: What the cross is called; it is no column.
        units: Width of the embedding.
        initializer: As of `Categorical`.
        regularizer: As of `Categorical`.
        columns: Names of the features.
        hash_bins: Number of rows that combinations are hashed to.

    Raises:
        ValueError: If an attribute does not fit.

    Example:
        >>> import tfmtl
        >>> features = [
        ...     tfmtl.features.Categorical("job", vocabulary=("cook", "smith")),
        ...     tfmtl.features.Bucketized("age", boundaries=(30.0, 60.0)),
        ...     tfmtl.features.Cross("job_age", columns=("job", "age")),
        ... ]
        >>> inputs, vector = tfmtl.features.encode(features)
        >>> list(inputs), vector.shape
        (['job', 'age'], (None, 24))
    """

    columns: tuple[str, ...] = ()
    hash_bins: int = 1000

    is_adapted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_int("hash_bins", self.hash_bins)
        if isinstance(self.columns, str) or len(set(self.columns)) < 2:
            raise ValueError(
                "`columns` should be the names of two or more features. "
                f"Received: columns={self.columns!r}"
            )
        object.__setattr__(self, "columns", tuple(self.columns))

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return self.hash_bins
