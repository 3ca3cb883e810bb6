"""Keras layers of multi-task networks; each works alone in a stock model."""

from tfmtl.layers.bucketize import Bucketize
from tfmtl.layers.experts import Experts
from tfmtl.layers.field_embedding import FieldEmbedding
from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.layers.pruned_average import PrunedAverage
from tfmtl.layers.pruned_transformation import PrunedTransformation
from tfmtl.layers.slots import BroadcastConstant, GatherSlots
from tfmtl.layers.standardize import Standardize
from tfmtl.layers.sub_network_routing import SubNetworkRouting
from tfmtl.layers.tower import Tower

__all__ = [
    "BroadcastConstant",
    "Bucketize",
    "Experts",
    "FieldEmbedding",
    "GatherSlots",
    "HardConcreteGate",
    "PrunedAverage",
    "PrunedTransformation",
    "Standardize",
    "SubNetworkRouting",
    "Tower",
]
