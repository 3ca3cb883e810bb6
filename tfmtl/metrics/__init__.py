"""How good a ranker is: metrics for `fit`, and exact ones after it.

Keras metrics, for `model.compile`: `LogitAUC`, `Calibration`, `CalibrationError`,
`NormalizedEntropy`, `Labelled` around any metric whose label may be missing, and
`Listwise` around one of keras-rs. On arrays, exact: `auc`, `group_auc`, `ndcg`,
`mean_average_precision` and `multi_task_gain`, on batches `GroupAUC`, `GroupNDCG` and
`GroupMAP`. What has no value, such as the AUC of one class, is NaN.
"""

from tfmtl.metrics.auc import auc, group_auc
from tfmtl.metrics.calibration import Calibration
from tfmtl.metrics.calibration_error import CalibrationError
from tfmtl.metrics.gain import Gain, multi_task_gain
from tfmtl.metrics.labelled import Labelled
from tfmtl.metrics.lists import Lists, by_group, mean_average_precision, ndcg
from tfmtl.metrics.listwise import Listwise
from tfmtl.metrics.logit_auc import LogitAUC
from tfmtl.metrics.normalized_entropy import NormalizedEntropy
from tfmtl.metrics.streaming import GroupAUC, GroupMAP, GroupNDCG

__all__ = [
    "Calibration",
    "CalibrationError",
    "Gain",
    "GroupAUC",
    "GroupMAP",
    "GroupNDCG",
    "Labelled",
    "Lists",
    "Listwise",
    "LogitAUC",
    "NormalizedEntropy",
    "auc",
    "by_group",
    "group_auc",
    "mean_average_precision",
    "multi_task_gain",
    "ndcg",
]
