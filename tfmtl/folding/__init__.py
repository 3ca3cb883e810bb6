"""Trained model in, smaller model with the same outputs out."""

from tfmtl.folding.fold import fold
from tfmtl.folding.proof import FoldError
from tfmtl.folding.protocol import SlotLayer
from tfmtl.folding.report import FoldReport, Structure, compare, structure

__all__ = [
    "FoldError",
    "FoldReport",
    "SlotLayer",
    "Structure",
    "compare",
    "fold",
    "structure",
]
