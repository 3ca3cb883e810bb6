"""What a person looks at: the topology and the tasks' conflicts as pictures."""

from tfmtl.report.drawing import draw
from tfmtl.report.heat_map import heat_map
from tfmtl.report.topology import Edge, Node, Topology, topology

__all__ = ["Edge", "Node", "Topology", "draw", "heat_map", "topology"]
