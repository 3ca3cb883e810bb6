"""The topology as a picture."""

import os
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from tfmtl.report.topology import Edge, Node, Topology

_TASK_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7f7f7f",
    "#8c564b",
)
_SHARED, _DEAD = "#333333", "#c8c8c8"
_LEGEND = (
    "dark: shared   ·   coloured: for one task   ·   hollow: no live input, "
    "a constant   ·   pale: reaches no task   ·   dashed: read by a gate"
)
# In rows, which are the distance of two nodes of a level.
_LEVEL_GAP, _LABEL_ABOVE, _CLEARANCE = 0.5, 0.47, 0.4

Place = tuple[float, float]


def draw(topology: Topology, path: str | os.PathLike[str], title: str = "") -> Path:
    """Writes the picture of a topology.

    Sub-networks stand in columns from the input to the tasks; levels that run in
    parallel share a column. Lines are open connections, wider where they are stronger
    (relative to the strongest into their level). What reaches one task only has the
    task's colour; what is shared is dark; what reaches no task is pale; a hollow
    sub-network has no live input, so that it is a constant.

    Args:
        topology: What `tfmtl.report.topology` found.
        path: File to write; its ending gives the format, for example `.png`.
        title: Line above the picture.

    Returns:
        The path.

    Example:
        ```python
        tfmtl.report.draw(tfmtl.report.topology(model), "topology.png")
        ```
    """
    path = Path(path)
    layout = _layout(topology)
    columns, top = len(topology.levels), max(y for _, y in layout.labels)
    pitch = max(2.6, 0.1 * max(map(len, layout.labels.values())))  # inches
    figure = Figure(figsize=(pitch * columns, 1.6 * (top + 0.5)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    colours = _colours(topology)
    for edge, share in zip(topology.edges, _shares(topology.edges), strict=True):
        is_constant = edge.source in topology.constant
        colour = colours[edge.target]
        _draw_edge(axes, edge, layout.route(edge), colour, share, is_constant)
    for node, place in layout.places.items():
        _draw_node(axes, node, place, colours[node], topology)
    for (x, y), label in layout.labels.items():
        _draw_label(axes, x, y, label)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(-top - 0.5, top + 0.5)
    figure.text(0.5, 1, title, ha="center", va="bottom", fontsize=12)
    figure.text(0.5, 0, _LEGEND, ha="center", va="top", fontsize=9, color="#555555")
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    figure.savefig(partial, dpi=150, bbox_inches="tight", pad_inches=0.2)
    os.replace(partial, path)
    return path


@dataclass(frozen=True)
class _Layout:
    """Where nodes and the labels of their levels stand: column, and row upwards."""

    places: dict[Node, Place]
    labels: dict[Place, str]

    def route(self, edge: Edge) -> list[Place]:
        """Places that a connection goes through, beside what stands between."""
        (x0, y0), (x1, y1) = self.places[edge.source], self.places[edge.target]
        between = np.arange(x0 + 1, x1)
        straight = np.interp(between, [x0, x1], [y0, y1])
        passed = [(x, self._free(x, y)) for x, y in zip(between, straight, strict=True)]
        return [(x0, y0), *passed, (x1, y1)]

    def _free(self, x: float, y: float) -> float:
        """The nearest row of a column where nothing stands, the lower of two."""
        standing = [*self.places.values(), *self.labels]
        taken = [row for column, row in standing if column == x]
        free = [
            row
            for row in [y, *(row - 0.5 for row in taken), max(taken) + 0.5]
            if min(abs(row - other) for other in taken) >= _CLEARANCE
        ]
        return min(free, key=lambda row: (round(abs(row - y), 3), row))


def _layout(topology: Topology) -> _Layout:
    places: dict[Node, Place] = {}
    labels: dict[Place, str] = {}
    for x, nodes in enumerate(topology.levels):
        is_tasks = x == len(topology.levels) - 1
        named = groupby(nodes, key=lambda node: "tasks" if is_tasks else node.layer)
        levels = [(name, list(level)) for name, level in named]
        y = (len(nodes) - 1 + _LEVEL_GAP * (len(levels) - 1)) / 2
        for name, level in levels:
            labels[x, y + _LABEL_ABOVE] = name.replace("_", " ")
            for node in level:
                places[node] = (x, y)
                y -= 1
            y -= _LEVEL_GAP
    return _Layout(places, labels)


def _shares(edges: list[Edge]) -> list[float]:
    """Strength of each connection, relative to the strongest into its layer."""
    strongest: dict[str, float] = {}
    for edge in edges:
        layer = edge.target.layer
        strongest[layer] = max(strongest.get(layer, 0.0), abs(edge.strength))
    return [abs(edge.strength) / strongest[edge.target.layer] for edge in edges]


def _colours(topology: Topology) -> dict[Node, str]:
    tasks_of = _tasks_reached(topology)
    return {
        node: _colour(node, tasks_of, topology)
        for level in topology.levels
        for node in level
    }


def _tasks_reached(topology: Topology) -> dict[Node, set[Node]]:
    reached = {task: {task} for task in topology.levels[-1]}
    for edge in reversed(topology.edges):
        if edge.target in reached:
            reached.setdefault(edge.source, set()).update(reached[edge.target])
    return reached


def _colour(node: Node, tasks_of: dict[Node, set[Node]], topology: Topology) -> str:
    if node not in topology.live:
        return _DEAD
    tasks = tasks_of[node]
    if len(tasks) > 1:
        return _SHARED
    [task] = tasks
    return _TASK_COLOURS[topology.levels[-1].index(task) % len(_TASK_COLOURS)]


def _draw_edge(
    axes: Axes,
    edge: Edge,
    route: list[Place],
    colour: str,
    share: float,
    is_constant: bool,
) -> None:
    axes.plot(
        *zip(*route, strict=True),
        color=colour,
        linewidth=1.0 if edge.selects else 0.6 + 3.4 * share,
        alpha=0.35 + 0.5 * share,
        linestyle="--" if edge.selects else ":" if is_constant else "-",
        solid_joinstyle="round",
        zorder=1,
    )


def _draw_node(
    axes: Axes, node: Node, place: Place, colour: str, topology: Topology
) -> None:
    x, y = place
    is_task = node in topology.levels[-1]
    hollow = node in topology.constant
    axes.plot(
        x,
        y,
        "s" if is_task else "o",
        color=colour,
        markerfacecolor="white" if hollow else colour,
        markersize=17,
        zorder=2,
    )
    if is_task:
        axes.text(x + 0.14, y, node.layer, ha="left", va="center", fontsize=11)
    else:
        text = colour if hollow else "white"
        axes.text(x, y, str(node.slot), color=text, ha="center", va="center", zorder=3)


def _draw_label(axes: Axes, x: float, y: float, label: str) -> None:
    text = axes.text(x, y, label, ha="center", va="center", fontsize=11, zorder=4)
    text.set_path_effects([withStroke(linewidth=3, foreground="white")])
