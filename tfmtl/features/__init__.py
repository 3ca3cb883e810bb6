"""Named raw columns in, one dense vector out, all inside the model."""

from tfmtl.features.adapt import adapt
from tfmtl.features.encode import encode, encode_apart
from tfmtl.features.specs import Bucketized, Categorical, Numeric

__all__ = ["Bucketized", "Categorical", "Numeric", "adapt", "encode", "encode_apart"]
