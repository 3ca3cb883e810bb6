"""Trained model in, smaller model with the same outputs out."""

from tfmtl.folding.fold import fold, without_training_inputs
from tfmtl.folding.proof import FoldError
from tfmtl.folding.protocol import GateLayer, MixtureLayer, SlotLayer
from tfmtl.folding.report import FoldReport, Structure, compare, structure

__all__ = [
    "FoldError",
    "FoldReport",
    "GateLayer",
    "MixtureLayer",
    "SlotLayer",
    "Structure",
    "compare",
    "fold",
    "structure",
    "without_training_inputs",
]
