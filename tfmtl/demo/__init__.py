"""The whole way once: data → SNR → fold → SavedModel, on one screen."""

from tfmtl.demo.run import Outcome, auc, difference, predict, run, train
from tfmtl.demo.screen import screen
from tfmtl.demo.sources import Source, census_income, held_out, synthetic

__all__ = [
    "Outcome",
    "Source",
    "auc",
    "census_income",
    "difference",
    "held_out",
    "predict",
    "run",
    "screen",
    "synthetic",
    "train",
]
