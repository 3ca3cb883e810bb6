"""Numbers that are used as numbers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tfmtl.features.learning.moments import Moments
from tfmtl.features.specs.numbers import ascend, no_finite_value, numbers
from tfmtl.layers.checks import positive_int

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Numeric:
    """A column of numbers, standardised; NaN and infinity become the mean.

    ```
    y = (g(clip(x)) - mean) / std, kept in [-1000, 1000]
    g(x) = sign(x) log(1 + |x|) where `log`, else x
    ```

    Attributes:
        name: Name of the raw column and of the model's input.
        log: Whether to take the signed logarithm first, for heavy tails.
        width: Number of values per example: the column is `(batch, width)`.
        clip: Lower and upper bound of the raw values; either may be `None`.
        mean: Mean of g(clip(x)) per value; learned by `adapt`.
        std: Standard deviation of g(clip(x)) per value; learned by `adapt`.
        missing: A number that stands for a missing value, beside NaN, such as -1.

    Raises:
        ValueError: If the width is not positive, the bounds are in disorder, or there
            are not as many means and standard deviations as values.

    Example:
        >>> import numpy as np, tfmtl
        >>> age = tfmtl.features.Numeric("age", clip=(0, 100))
        >>> data = {"age": np.array([[30.0], [50.0]])}
        >>> [age] = tfmtl.features.adapt([age], data)
        >>> age.mean, age.std
        ((40.0,), (10.0,))
    """

    name: str
    log: bool = False
    width: int = 1
    clip: Bounds = (None, None)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    missing: float | None = None

    dtype: ClassVar[str] = "float32"

    def __post_init__(self) -> None:
        positive_int("width", self.width)
        bounds = tuple(self.clip) if isinstance(self.clip, Iterable) else ()
        given = [float(bound) for bound in bounds if bound is not None]
        if len(bounds) != 2 or not ascend(given):
            raise ValueError(
                "`clip` should be a lower and a greater upper bound, either of which "
                f"may be None. Received: clip={self.clip!r}"
            )
        for name in ("mean", "std"):
            known = getattr(self, name)
            if known is not None and np.shape(known) != (self.width,):
                raise ValueError(
                    f"`{name}` should be a tuple of one number per value, "
                    f"{self.width}. Received: {name}={known!r}"
                )

    @property
    def is_adapted(self) -> bool:
        """Whether the statistics are known."""
        return self.mean is not None and self.std is not None

    def learner(self) -> Moments:
        """What learns the statistics."""
        return Moments(self.width)

    def read(self, learner: Moments, column: np.ndarray) -> None:
        """Gives a batch of the column to the learner."""
        values = numbers(column, self.missing).reshape(-1, self.width)
        if self.clip != (None, None):
            values = np.clip(values, *self.clip)
        if self.log:
            values = np.sign(values) * np.log1p(np.abs(values))
        learner.update(values)

    def learned(self, learner: Moments) -> "Numeric":
        """This feature with the learner's statistics.

        Raises:
            ValueError: If there was no finite value.
        """
        count, mean, std = learner.finish()
        if not count.all():
            raise no_finite_value(self.name)
        varies = std > np.finfo("f4").eps * np.abs(mean)  # else it is rounding
        return replace(
            self,
            mean=tuple(mean.tolist()),
            std=tuple(np.where(varies, std, 1.0).tolist()),
        )
