"""Data: synthetic tasks with a chosen correlation, batching, public datasets.

`tfmtl.data.census_income` is imported by its own name only: it needs
tensorflow-datasets, which nothing else here does.
"""

from tfmtl.data.pipeline import batches
from tfmtl.data.synthetic import SyntheticData, make_tasks, task_weights

__all__ = ["SyntheticData", "batches", "make_tasks", "task_weights"]
