"""What features with a vocabulary have in common: values → rows."""

import os
from dataclasses import dataclass, replace
from typing import Any, Self

import keras
import numpy as np

from tfmtl.features.learning.counts import Counts, is_missing
from tfmtl.features.specs.embedded import Embedded
from tfmtl.features.specs.file_lookup import (
    NO_ID,
    IntegerFileLookup,
    StringFileLookup,
    check_file,
)
from tfmtl.features.specs.hashed_ids import HashedIds
from tfmtl.layers.checks import entries, positive_int

_MOST_BINS = 2**31
_KINDS = {"string": str, "int64": int}


@dataclass(frozen=True)
class LookedUp(Embedded):
    """A feature whose values are looked up in a vocabulary, or hashed.

    Attributes:
        name: Name of the raw column and of the model's input.
        units: Width of the embedding.
        initializer: Keras initializer of the embedding.
        regularizer: Keras regulariser of the embedding.
        dtype: `"string"`, where "" is missing, or `"int64"`, where negative ids are.
        min_count: How often a value must occur for a row of its own.
        max_size: How many values get a row of their own at most.
        vocabulary: The known values, or the path of a file with one value per line;
            learned by `adapt` unless given, most frequent first.
        hash_bins: Number of rows that values are hashed to, in place of a vocabulary.
        table: Features with the same table share vocabulary and embedding.
    """

    dtype: str = "string"
    min_count: int = 1
    max_size: int | None = None
    vocabulary: tuple[Any, ...] | str | None = None
    hash_bins: int | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype not in _KINDS:
            raise ValueError(
                f"`dtype` should be one of {[*_KINDS]}. Received: dtype={self.dtype!r}"
            )
        positive_int("min_count", self.min_count)
        for name in ("max_size", "hash_bins"):
            if getattr(self, name) is not None:
                positive_int(name, getattr(self, name))
        if (self.hash_bins or 0) >= _MOST_BINS:
            raise ValueError(
                f"`hash_bins` should be less than 2**31. Received: "
                f"hash_bins={self.hash_bins}"
            )
        object.__setattr__(self, "vocabulary", _plain(self.vocabulary))
        known = self.vocabulary is None or self.hash_bins is None
        if known and self._is_vocabulary(self.vocabulary):
            return
        raise ValueError(
            "`vocabulary` should be a path, or one or more different values of dtype "
            f"{self.dtype}, none of them missing, and left out where there are "
            f"`hash_bins`. Received: vocabulary={self.vocabulary!r}, "
            f"hash_bins={self.hash_bins!r} for {self.name!r}"
        )

    @property
    def is_adapted(self) -> bool:
        """Whether values have rows."""
        return self.vocabulary is not None or self.hash_bins is not None

    @property
    def sharing(self) -> tuple[Any, ...]:
        """What features that share a table must have in common."""
        learned = (self.min_count, self.max_size)
        return (*self.kind, self.dtype, self.vocabulary, self.hash_bins, *learned)

    def look_up(self, name: str, padded: bool) -> keras.layers.Layer:
        """A Keras layer from values to rows.

        Args:
            name: Name of the layer.
            padded: Whether the missing value's row should be row 0. Otherwise it may
                be any.

        Raises:
            ValueError: If the vocabulary is a file that is not one.
        """
        text = self.dtype == "string"
        missing: Any = "" if text else -1
        if self.hash_bins is not None and text:
            bins = self.hash_bins + 1
            return keras.layers.Hashing(bins, mask_value=missing, name=name)
        if self.hash_bins is not None:
            return HashedIds([self.hash_bins], name=name)
        if isinstance(self.vocabulary, str):
            check_file(self.name, self.vocabulary, _KINDS[self.dtype])
        arguments: dict[str, Any] = {"name": name}
        if padded or isinstance(self.vocabulary, str):
            arguments |= {"vocabulary": self.vocabulary, "mask_token": missing}
        else:  # in the vocabulary, where it costs no operation of its own
            arguments["vocabulary"] = [missing, *(self.vocabulary or ())]
        if isinstance(self.vocabulary, str):
            return (StringFileLookup if text else IntegerFileLookup)(**arguments)
        if text:
            return keras.layers.StringLookup(**arguments)
        return keras.layers.IntegerLookup(oov_token=NO_ID, **arguments)

    @property
    def is_hashed_id(self) -> bool:
        """Whether values are ids that arithmetic hashes."""
        return self.hash_bins is not None and self.dtype == "int64"

    def rows(self, lookup: Any) -> int:
        """Rows of the embedding: a lookup's values, the missing and the unknown one."""
        if self.hash_bins is not None:
            return self.hash_bins + 1
        return lookup.vocabulary_size()

    def learner(self) -> Counts:
        """What learns the vocabulary."""
        return Counts(self.table or self.name, _KINDS[self.dtype])

    def read(self, learner: Counts, column: np.ndarray) -> None:
        """Gives a batch of the column to the learner."""
        learner.update(column)

    def learned(self, learner: Counts) -> Self:
        """This feature with the learner's vocabulary.

        Raises:
            ValueError: If no value occurs `min_count` times.
        """
        vocabulary = learner.vocabulary(self.min_count, self.max_size)
        return replace(self, vocabulary=vocabulary)

    def _is_vocabulary(self, values: Any) -> bool:
        return isinstance(values, str | None) or (
            isinstance(values, tuple)
            and all(isinstance(value, _KINDS[self.dtype]) for value in values)
            and 0 < len(values) == len(set(values))
            and not any(map(is_missing, values))
        )


def _plain(vocabulary: Any) -> Any:
    """A path as text, and values as a tuple of Python's own types."""
    if isinstance(vocabulary, os.PathLike):
        return os.fspath(vocabulary)
    values = entries(vocabulary)
    if values is None:
        return vocabulary
    return tuple(v.item() if isinstance(v, np.generic) else v for v in values)
