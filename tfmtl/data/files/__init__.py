"""Files of one's own as batches: CSV, Parquet, TFRecord.

All three go the same way: the files' rows come in *windows* of some thousand, held in
memory by column; a window's rows are permuted and cut into batches, and each batch is
gathered at once. Nothing is done row by row.
"""

from tfmtl.data.files.csv import from_csv
from tfmtl.data.files.inference import infer_schema
from tfmtl.data.files.parquet import from_parquet
from tfmtl.data.files.tfrecord import from_tfrecord
from tfmtl.data.files.writing import write_tfrecord

__all__ = [
    "from_csv",
    "from_parquet",
    "from_tfrecord",
    "infer_schema",
    "write_tfrecord",
]
