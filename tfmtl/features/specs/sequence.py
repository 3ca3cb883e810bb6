"""Several values per example, of one vocabulary."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfmtl.features.learning.counts import Counts
from tfmtl.features.specs.looked_up import LookedUp
from tfmtl.layers.checks import positive_int

POOLINGS = ("mean", "sum", "max", "attention")


@dataclass(frozen=True)
class Sequence(LookedUp):
    """A column of several values per example: tags, or the last videos watched.

    The column is `(batch, any length)`, filled up with "" or negative ids, which
    `tfmtl.features.pad` does to a ragged one. The first `length` values are used and
    the rest is cut off: put the latest first. Missing values are left out wherever
    they are, and an example without any gets zeros.

    Attributes:
        name: Name of the raw column and of the model's input.
        units: Width of the embedding.
        initializer: As of `Categorical`.
        regularizer: As of `Categorical`.
        dtype: `"string"` or `"int64"`.
        min_count: How often a value must occur for a row of its own.
        max_size: How many values get a row of their own at most.
        vocabulary: As of `Categorical`.
        hash_bins: Number of rows that values are hashed to.
        table: Features with the same table share vocabulary and embedding.
        length: Largest number of values that are used.
        pooling: `"mean"`, `"sum"`, `"max"` or `"attention"`.
        target: With attention: name of the `Categorical` feature, of the same width,
            that each value is compared with; most often of the same table.

    Raises:
        ValueError: If an attribute does not fit.

    Example:
        >>> import numpy as np, tfmtl
        >>> tags = tfmtl.features.Sequence("tags", length=3)
        >>> data = {"tags": np.array([["b", "a"], ["a", ""]])}
        >>> tfmtl.features.adapt([tags], data)[0].vocabulary
        ('a', 'b')

    Source: attention is the local activation unit of Zhou et al., "Deep Interest
    Network for Click-Through Rate Prediction", KDD 2018.
    """

    length: int = 50
    pooling: str = "mean"
    target: str | None = None

    width: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_int("length", self.length)
        if self.pooling not in POOLINGS:
            raise ValueError(
                f"`pooling` should be one of {POOLINGS}. "
                f"Received: pooling={self.pooling!r}"
            )
        if (self.pooling == "attention") != (self.target is not None):
            raise ValueError(
                "`target` should be the name of a Categorical feature where "
                "pooling='attention', and left out otherwise. Received: "
                f"pooling={self.pooling!r}, target={self.target!r}"
            )

    def read(self, learner: Counts, column: np.ndarray) -> None:
        """Gives a batch of the column to the learner, as far as it is used."""
        learner.update(column[:, : self.length])
