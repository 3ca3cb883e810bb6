"""Tensor maths as functions: tensors in, tensors out, `keras.ops` only."""

from tfmtl.ops.dselect_k import dselect_k, single_expert_selector, smooth_step
from tfmtl.ops.experts import experts
from tfmtl.ops.hard_concrete import (
    closed_below,
    fully_open_probability,
    hard_concrete,
    hard_concrete_sample,
    open_probability,
)
from tfmtl.ops.heads import (
    exceedance,
    joint_probability,
    log_loss,
    logit_of,
    positive,
)
from tfmtl.ops.mixture import gate_weights, log_openness, mixture
from tfmtl.ops.pairs import spread_pairs
from tfmtl.ops.routing import route_average, route_transformation

__all__ = [
    "closed_below",
    "dselect_k",
    "exceedance",
    "experts",
    "fully_open_probability",
    "gate_weights",
    "hard_concrete",
    "hard_concrete_sample",
    "joint_probability",
    "log_loss",
    "log_openness",
    "logit_of",
    "mixture",
    "open_probability",
    "positive",
    "route_average",
    "route_transformation",
    "single_expert_selector",
    "smooth_step",
    "spread_pairs",
]
