"""Numbers that are used as buckets."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tfmtl.features.learning.sample import Sample
from tfmtl.features.specs.embedded import Embedded
from tfmtl.features.specs.numbers import ascend, no_finite_value, numbers
from tfmtl.layers.checks import positive_int


@dataclass(frozen=True)
class Bucketized(Embedded):
    """A column of numbers, cut into buckets that are embedded.

    Half of the boundaries are quantiles of the rows and half of the distinct
    values, so that a value most rows share does not use up the buckets. They are
    exact for up to 2^20 = 1,048,576 values; of more, a uniform sample of that size
    is used, drawn with a fixed seed. A missing value (NaN, infinity, `missing`) has a
    bucket of its own. A column may be `Numeric` too.

    Attributes:
        name: Name of the raw column and of the model's input.
        units: Width of the embedding.
        initializer: Keras initializer of the embedding.
        regularizer: Keras regulariser of the embedding.
        buckets: Largest number of buckets.
        boundaries: Ascending boundaries; learned by `adapt`.
        missing: A number that stands for a missing value, beside NaN, such as -1.

    Raises:
        ValueError: If `buckets` is not positive or `boundaries` do not ascend.

    Example:
        >>> import numpy as np, tfmtl
        >>> age = tfmtl.features.Bucketized("age", buckets=4)
        >>> data = {"age": np.array([[1.0], [2.0], [3.0]])}
        >>> tfmtl.features.adapt([age], data)[0].boundaries
        (2.0, 3.0)
    """

    buckets: int = 64
    boundaries: tuple[float, ...] | None = None
    missing: float | None = None

    dtype: ClassVar[str] = "float32"
    width: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_int("buckets", self.buckets)
        if not ascend(self.boundaries or ()):
            raise ValueError(
                f"`boundaries` of {self.name!r} should ascend. "
                f"Received: boundaries={self.boundaries!r}"
            )

    @property
    def is_adapted(self) -> bool:
        """Whether the boundaries are known."""
        return self.boundaries is not None

    @property
    def rows(self) -> int:
        """Rows of the embedding: buckets, and the missing value's."""
        return len(self.boundaries or ()) + 2

    def learner(self) -> Sample:
        """What learns the boundaries."""
        return Sample()

    def read(self, learner: Sample, column: np.ndarray) -> None:
        """Gives a batch of the column to the learner."""
        values = numbers(column, self.missing).reshape(-1)
        learner.update(values[~np.isnan(values)].astype("f4"))

    def learned(self, learner: Sample) -> "Bucketized":
        """This feature with the learner's boundaries.

        Raises:
            ValueError: If there was no finite value.
        """
        values = learner.finish()
        if not len(values):
            raise no_finite_value(self.name)
        distinct = np.unique(values)
        shares = np.linspace(0, 1, self.buckets // 2 + 1)[1:-1]
        cuts = np.concatenate(
            [
                np.quantile(values, shares, method="higher"),
                np.quantile(distinct, shares, method="higher"),
            ]
        )
        if len(distinct) <= self.buckets:
            cuts = distinct[1:]
        return replace(self, boundaries=tuple(np.unique(cuts).tolist()))
