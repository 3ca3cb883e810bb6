"""Recipes: feature and task specifications in, a Functional model out."""

from tfmtl.models.snr import snr

__all__ = ["snr"]
