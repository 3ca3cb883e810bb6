"""A trained ranker with other tasks, other data or another size."""

from tfmtl.finetuning.add_task import add_task
from tfmtl.finetuning.distil import DistillationLoss, distil
from tfmtl.finetuning.drop_task import drop_task
from tfmtl.finetuning.groups import freeze, groups, learning_rates, unfreeze
from tfmtl.finetuning.statistics import ColumnDrift, Drift, drift, readapt
from tfmtl.finetuning.vocabularies import grow_vocabularies, keep_rows, new_values
from tfmtl.finetuning.warm_start import WarmStart, warm_start

__all__ = [
    "ColumnDrift",
    "DistillationLoss",
    "Drift",
    "WarmStart",
    "add_task",
    "distil",
    "drift",
    "drop_task",
    "freeze",
    "groups",
    "grow_vocabularies",
    "keep_rows",
    "learning_rates",
    "new_values",
    "readapt",
    "unfreeze",
    "warm_start",
]
