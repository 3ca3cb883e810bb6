"""A trained ranker with other tasks, other data or another size."""

from tfmtl.finetuning.add_task import add_task
from tfmtl.finetuning.drop_task import drop_task
from tfmtl.finetuning.groups import freeze, groups, learning_rates, unfreeze

__all__ = [
    "add_task",
    "drop_task",
    "freeze",
    "groups",
    "learning_rates",
    "unfreeze",
]
