"""What a task is: its label, head, loss, metrics and weight."""

from tfmtl.tasks.decay import DecayingWeights
from tfmtl.tasks.kinds import (
    Binary,
    Count,
    LogNormal,
    MultiClass,
    MultiLabel,
    Ordinal,
    Regression,
    WeightedLogistic,
)
from tfmtl.tasks.losses import LabelledLoss
from tfmtl.tasks.objectives import compile_arguments
from tfmtl.tasks.ranking import Ranking
from tfmtl.tasks.task import Position, Task

__all__ = [
    "Binary",
    "Count",
    "DecayingWeights",
    "LabelledLoss",
    "LogNormal",
    "MultiClass",
    "MultiLabel",
    "Ordinal",
    "Position",
    "Ranking",
    "Regression",
    "Task",
    "WeightedLogistic",
    "compile_arguments",
]
