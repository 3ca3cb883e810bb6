"""One value per example, of a vocabulary."""

from dataclasses import dataclass
from typing import ClassVar

from tfmtl.features.specs.looked_up import LookedUp


@dataclass(frozen=True)
class Categorical(LookedUp):
    """A column of strings or ids, looked up in a vocabulary and embedded.

    What is missing ("" or a negative id) has a row of its own, and so has what is
    not in the vocabulary. The vocabulary is learned by `adapt`, given as a tuple, or
    a file with one value per line, which becomes an asset of the SavedModel; or
    values are hashed to `hash_bins` rows and there is none.

    Attributes:
        name: Name of the raw column and of the model's input.
        units: Width of the embedding.
        initializer: Keras initializer of the embedding: a name, a configuration, or
            an object, of which the configuration is kept.
        regularizer: Keras regulariser of the embedding, likewise.
        dtype: `"string"` or `"int64"`.
        min_count: How often a value must occur for a row of its own.
        max_size: How many values get a row of their own at most.
        vocabulary: Known values, or the path of a file; learned by `adapt` unless
            given, most frequent first.
        hash_bins: Number of rows that values are hashed to.
        table: Features with the same table share vocabulary and embedding.

    Raises:
        ValueError: If an attribute does not fit.

    Example:
        >>> import numpy as np, tfmtl
        >>> sex = tfmtl.features.Categorical("sex")
        >>> data = {"sex": np.array([[b"Male"], [b"Female"], [b"Male"]])}
        >>> tfmtl.features.adapt([sex], data)[0].vocabulary
        ('Male', 'Female')
    """

    width: ClassVar[int] = 1
