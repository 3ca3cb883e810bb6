"""Balance between tasks: gradient surgery and loss weighting, as small functions.

`GradientSurgery` turns the Gram matrix of the tasks' gradients into their weights in
the update, `LossWeighting` the tasks' losses into their weights in the sum.
"""

from tfmtl.balancing.aligned_mtl import AlignedMTL
from tfmtl.balancing.at_representation import AtRepresentation
from tfmtl.balancing.ca_grad import CAGrad
from tfmtl.balancing.dwa import DWA
from tfmtl.balancing.famo import FAMO
from tfmtl.balancing.grad_norm import GradNorm
from tfmtl.balancing.grad_vac import GradVac
from tfmtl.balancing.imtl_g import IMTLG
from tfmtl.balancing.loss_weighting import LossWeighting, StaticWeights
from tfmtl.balancing.mgda import MGDA
from tfmtl.balancing.monitor import ConflictMonitor
from tfmtl.balancing.nash_mtl import NashMTL
from tfmtl.balancing.orders import random_orders
from tfmtl.balancing.partition import Partition, partition
from tfmtl.balancing.pc_grad import PCGrad
from tfmtl.balancing.random_weighting import RandomWeighting
from tfmtl.balancing.surgery import EqualWeights, GradientSurgery
from tfmtl.balancing.uncertainty_weighting import UncertaintyWeighting
from tfmtl.balancing.up_grad import UPGrad

__all__ = [
    "AlignedMTL",
    "AtRepresentation",
    "CAGrad",
    "ConflictMonitor",
    "DWA",
    "EqualWeights",
    "FAMO",
    "GradNorm",
    "GradVac",
    "GradientSurgery",
    "IMTLG",
    "LossWeighting",
    "MGDA",
    "NashMTL",
    "PCGrad",
    "Partition",
    "RandomWeighting",
    "StaticWeights",
    "UPGrad",
    "UncertaintyWeighting",
    "partition",
    "random_orders",
]
