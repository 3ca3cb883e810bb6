"""What a feature is: a frozen description with the statistics it learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class Numeric:
    """A column of numbers, standardised; NaN and infinity become the mean.

    `y = (g(x) - mean) / std`, with `g(x) = sign(x) log(1 + |x|)` where `log`.

    Attributes:
        name: Name of the raw column and of the model's input.
        log: Whether to take the signed logarithm first, for heavy tails.
        width: Number of values per example: the column is `(batch, width)`.
        mean: Mean of g(x) per value; learned by `adapt`.
        std: Standard deviation of g(x) per value; learned by `adapt`.

    Example:
        >>> import numpy as np, tfmtl
        >>> age = tfmtl.features.Numeric("age").adapted(np.array([[30.0], [50.0]]))
        >>> age.mean, age.std
        ((40.0,), (10.0,))
    """

    name: str
    log: bool = False
    width: int = 1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    dtype: ClassVar[str] = "float32"

    @property
    def is_adapted(self) -> bool:
        """Whether the statistics are known."""
        return self.mean is not None and self.std is not None

    def adapted(self, column: np.ndarray) -> "Numeric":
        """This feature with the statistics of `column`, `(rows, width)`.

        Raises:
            ValueError: If the column has another width or no finite value.
        """
        values, finite = _numbers(self, column)
        if self.log:
            values = np.sign(values) * np.log1p(np.abs(values))
        values = np.where(finite, values, np.nan)
        mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        varies = std > np.finfo("f4").eps * np.abs(mean)  # else it is rounding
        return replace(
            self,
            mean=tuple(mean.tolist()),
            std=tuple(np.where(varies, std, 1.0).tolist()),
        )


@dataclass(frozen=True)
class Categorical:
    """A column of strings, looked up in a vocabulary and embedded.

    Row 0 of the embedding is for what is not in the vocabulary.

    Attributes:
        name: Name of the raw column and of the model's input.
        units: Width of the embedding.
        min_count: How often a value must occur for a row of its own.
        vocabulary: Known values; learned by `adapt`, most frequent first.

    Example:
        >>> import numpy as np, tfmtl
        >>> sex = tfmtl.features.Categorical("sex")
        >>> sex.adapted(np.array([[b"Male"], [b"Female"], [b"Male"]])).vocabulary
        ('Male', 'Female')
    """

    name: str
    units: int = 8
    min_count: int = 1
    vocabulary: tuple[str, ...] | None = None

    dtype: ClassVar[str] = "string"
    width: ClassVar[int] = 1

    @property
    def is_adapted(self) -> bool:
        """Whether the vocabulary is known."""
        return self.vocabulary is not None

    @property
    def rows(self) -> int:
        """Rows of the embedding: the vocabulary, and the unknown value's."""
        return len(self.vocabulary or ()) + 1

    def adapted(self, column: np.ndarray) -> "Categorical":
        """This feature with the vocabulary of `column`, `(rows, 1)`.

        Raises:
            ValueError: If the column has another width or no value occurs
                `min_count` times.
        """
        _check_width(self, np.asarray(column).reshape(len(column), -1))
        values, counts = np.unique(np.asarray(column).reshape(-1), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        known = [values[k] for k in order if counts[k] >= self.min_count]
        if not known:
            raise ValueError(
                f"Feature {self.name!r} should have a value that occurs at least "
                f"{self.min_count} time(s) in the data to adapt to. Received: none"
            )
        return replace(self, vocabulary=tuple(_text(value) for value in known))


@dataclass(frozen=True)
class Bucketized:
    """A column of numbers, cut into buckets that are embedded.

    Half of the boundaries are quantiles of the rows and half of the distinct
    values, so that a value most rows share does not use up the buckets. A missing
    value (NaN, infinity) has a bucket of its own. A column may be `Numeric` too.

    Attributes:
        name: Name of the raw column and of the model's input.
        units: Width of the embedding.
        buckets: Largest number of buckets.
        boundaries: Ascending boundaries; learned by `adapt`.

    Example:
        >>> import numpy as np, tfmtl
        >>> age = tfmtl.features.Bucketized("age", buckets=4)
        >>> age.adapted(np.array([[1.0], [2.0], [3.0]])).boundaries
        (2.0, 3.0)
    """

    name: str
    units: int = 8
    buckets: int = 64
    boundaries: tuple[float, ...] | None = None

    dtype: ClassVar[str] = "float32"
    width: ClassVar[int] = 1

    @property
    def is_adapted(self) -> bool:
        """Whether the boundaries are known."""
        return self.boundaries is not None

    @property
    def rows(self) -> int:
        """Rows of the embedding: buckets, and the missing value's."""
        return len(self.boundaries or ()) + 2

    def adapted(self, column: np.ndarray) -> "Bucketized":
        """This feature with boundaries from `column`, `(rows, 1)`.

        Raises:
            ValueError: If the column has another width or no finite value.
        """
        values, finite = _numbers(self, column)
        values = values[finite].astype("f4")
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


Feature = Numeric | Categorical | Bucketized


def check_adapted(features: Sequence[Feature]) -> None:
    """Raises `ValueError` unless features are adapted and none occurs twice."""
    kinds = [(feature.name, type(feature).__name__) for feature in features]
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(
            "`features` should be one or more features, each column once per kind. "
            f"Received: {kinds}"
        )
    missing = [feature.name for feature in features if not feature.is_adapted]
    if missing:
        raise ValueError(
            "`features` should be adapted to data: call `tfmtl.features.adapt`. "
            f"Received: not adapted={missing}"
        )
    columns: dict[str, tuple[str, int]] = {}
    for feature in features:
        shape = (feature.dtype, feature.width)
        if columns.setdefault(feature.name, shape) != shape:
            raise ValueError(
                "`features` of one column should have one type and width. Received: "
                f"{feature.name!r} as {columns[feature.name]} and as {shape}"
            )


def column(data: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The column of a feature, or `ValueError` with the columns there are."""
    if name not in data:
        raise ValueError(
            f"`data` should have the column {name!r}. Received: columns={sorted(data)}"
        )
    return data[name]


def _numbers(
    feature: Numeric | Bucketized, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The values `(rows, width)` of a column, and where they are finite."""
    values = np.asarray(column, "f8").reshape(len(column), -1)
    _check_width(feature, values)
    finite = np.isfinite(values)
    if not finite.any(axis=0).all():
        raise ValueError(
            f"Feature {feature.name!r} should have a finite value in the data to "
            "adapt to. Received: none"
        )
    return values, finite


def _check_width(feature: Feature, values: np.ndarray) -> None:
    if values.shape[1] != feature.width:
        raise ValueError(
            f"Feature {feature.name!r} should have {feature.width} value(s) per row. "
            f"Received: {values.shape[1]}"
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
