"""The whole way once: data → SNR → fold → SavedModel, on one screen."""

from tfmtl.demo.run import Outcome, Quality, difference, predict, quality, run, train
from tfmtl.demo.screen import screen
from tfmtl.demo.sources import (
    Source,
    census_income,
    from_folder,
    held_out,
    kuairand_pure,
    synthetic,
)

__all__ = [
    "Outcome",
    "Quality",
    "Source",
    "census_income",
    "difference",
    "from_folder",
    "held_out",
    "kuairand_pure",
    "predict",
    "quality",
    "run",
    "screen",
    "synthetic",
    "train",
]
