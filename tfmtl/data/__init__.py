"""Data: batches from memory and files, synthetic tasks, public datasets.

`tfmtl.data.census_income` and `tfmtl.data.kuairand_pure` are imported by their own
names only, and `from_tfds` on first use: they need tensorflow-datasets, which nothing
else here does.
"""

import importlib
from typing import Any

from tfmtl.data.files import (
    from_csv,
    from_parquet,
    from_tfrecord,
    infer_schema,
    write_tfrecord,
)
from tfmtl.data.pipeline import batches
from tfmtl.data.synthetic import SyntheticData, make_tasks, task_weights

__all__ = [
    "SyntheticData",
    "batches",
    "from_csv",
    "from_parquet",
    "from_tfds",
    "from_tfrecord",
    "infer_schema",
    "make_tasks",
    "task_weights",
    "write_tfrecord",
]


def __getattr__(name: str) -> Any:
    if name == "from_tfds":
        return importlib.import_module("tfmtl.data.tfds_sets").from_tfds
    raise AttributeError(f"module 'tfmtl.data' has no attribute {name!r}")
