"""Trained model in, smaller model with the same outputs out."""

from tfmtl.folding.fold import (
    fold,
    training_inputs,
    with_layers,
    without_training_inputs,
)
from tfmtl.folding.proof import FoldError
from tfmtl.folding.protocol import (
    GateLayer,
    KernelLayer,
    LinearLayer,
    MixtureLayer,
    OpeningLayer,
    ServedLayer,
    SlotLayer,
    TrainedLayer,
)
from tfmtl.folding.report import Change, FoldReport, Structure, compare, structure

__all__ = [
    "Change",
    "FoldError",
    "FoldReport",
    "GateLayer",
    "KernelLayer",
    "LinearLayer",
    "MixtureLayer",
    "OpeningLayer",
    "ServedLayer",
    "SlotLayer",
    "Structure",
    "TrainedLayer",
    "compare",
    "fold",
    "structure",
    "training_inputs",
    "with_layers",
    "without_training_inputs",
]
