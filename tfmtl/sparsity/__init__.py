"""How the pressure on gates rises: by a known weight, or to a target."""

from tfmtl.layers.gates import gates
from tfmtl.sparsity.guards import SparsityWarning, findings
from tfmtl.sparsity.open_share import OpenShare, open_share
from tfmtl.sparsity.pressure import GatePressure
from tfmtl.sparsity.ramp import L0Ramp
from tfmtl.sparsity.target import Target

__all__ = [
    "GatePressure",
    "L0Ramp",
    "OpenShare",
    "SparsityWarning",
    "Target",
    "findings",
    "gates",
    "open_share",
]
