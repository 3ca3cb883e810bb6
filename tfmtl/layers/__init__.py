"""Keras layers of multi-task networks; each works alone in a stock model."""

from tfmtl.layers.bucketize import Bucketize
from tfmtl.layers.dselect_k_gate import DSelectKGate
from tfmtl.layers.experts import Experts
from tfmtl.layers.field_embedding import FieldEmbedding
from tfmtl.layers.field_gate import FieldGate
from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.layers.hashed_cross import HashedCross
from tfmtl.layers.joint_probability import JointProbability
from tfmtl.layers.mixture import Mixture
from tfmtl.layers.position_bias import PositionBias
from tfmtl.layers.pruned_transformation import PrunedTransformation
from tfmtl.layers.score_fusion import ScoreFusion
from tfmtl.layers.sequence_pooling import SequencePooling
from tfmtl.layers.slots import BroadcastConstant, GatherSlots, ScaleSlots
from tfmtl.layers.softmax_gate import SoftmaxGate
from tfmtl.layers.standardize import Standardize
from tfmtl.layers.static_mixture import StaticMixture
from tfmtl.layers.sub_network_routing import SubNetworkRouting
from tfmtl.layers.target_attention import TargetAttention
from tfmtl.layers.tower import Tower

__all__ = [
    "BroadcastConstant",
    "Bucketize",
    "DSelectKGate",
    "Experts",
    "FieldEmbedding",
    "FieldGate",
    "GatherSlots",
    "HardConcreteGate",
    "HashedCross",
    "JointProbability",
    "Mixture",
    "PositionBias",
    "PrunedTransformation",
    "ScaleSlots",
    "ScoreFusion",
    "SequencePooling",
    "SoftmaxGate",
    "Standardize",
    "StaticMixture",
    "SubNetworkRouting",
    "TargetAttention",
    "Tower",
]
