"""The whole way once: data → SNR → fold → SavedModel, on one screen."""

from tfmtl.demo.run import Outcome, run
from tfmtl.demo.screen import screen
from tfmtl.demo.sources import Source, census_income, synthetic

__all__ = ["Outcome", "Source", "census_income", "run", "screen", "synthetic"]
