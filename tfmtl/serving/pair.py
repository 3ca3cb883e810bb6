"""One number of two versions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """One number of two versions, `None` where it is not defined.

    Args:
        old: That of the old version.
        new: That of the new one.

    Example:
        >>> from tfmtl.serving.pair import Pair
        >>> Pair(0.75, 0.5).change
        -0.25
    """

    old: float | None
    new: float | None

    @property
    def change(self) -> float | None:
        """New - old."""
        if self.old is None or self.new is None:
            return None
        return self.new - self.old


UNDEFINED = Pair(None, None)
