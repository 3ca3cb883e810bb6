"""Named raw columns in, one dense vector out, all inside the model."""

from tfmtl.features.adapt import adapt
from tfmtl.features.columns import check_columns, pad
from tfmtl.features.encode import encode, encode_apart
from tfmtl.features.encoder import Encoder, OfFields
from tfmtl.features.specs import Bucketized, Categorical, Cross, Numeric, Sequence
from tfmtl.features.suggest import suggest
from tfmtl.features.vocabularies import write_vocabularies

__all__ = [
    "Bucketized",
    "Categorical",
    "Cross",
    "Encoder",
    "Numeric",
    "OfFields",
    "Sequence",
    "adapt",
    "check_columns",
    "encode",
    "encode_apart",
    "pad",
    "suggest",
    "write_vocabularies",
]
