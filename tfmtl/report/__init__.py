"""What a person looks at: the learned topology as a picture."""

from tfmtl.report.drawing import draw
from tfmtl.report.topology import Edge, Node, Topology, topology

__all__ = ["Edge", "Node", "Topology", "draw", "topology"]
