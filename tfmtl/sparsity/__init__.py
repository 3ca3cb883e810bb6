"""How the L0 pressure on gates rises, and what it has closed."""

from tfmtl.sparsity.gates import OpenShare, gates, open_share
from tfmtl.sparsity.ramp import L0Ramp

__all__ = ["L0Ramp", "OpenShare", "gates", "open_share"]
