"""Recipes: feature and task specifications in, a Functional model out."""

from tfmtl.models.bottoms import cross_stitch, shared_bottom, single_task
from tfmtl.models.fusion import with_score
from tfmtl.models.mmoe import mmoe, omoe
from tfmtl.models.multi_task_model import MultiTaskModel
from tfmtl.models.ple import adatt, cgc, extraction, fusion, ple
from tfmtl.models.snr import snr

__all__ = [
    "MultiTaskModel",
    "adatt",
    "cgc",
    "cross_stitch",
    "extraction",
    "fusion",
    "mmoe",
    "omoe",
    "ple",
    "shared_bottom",
    "single_task",
    "snr",
    "with_score",
]
