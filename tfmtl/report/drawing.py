"""The topology as a picture."""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def draw(topology: Topology, path: str | os.PathLike[str], title: str = "") -> Path:
    """Writes the picture of a topology.

    Sub-networks stand in columns from the input to the tasks. Lines are open
    connections, wider where they are stronger (relative to the strongest of
    their column). What reaches one task only has the task's colour; what is
    shared is dark; what reaches no task is pale; a hollow sub-network has no live
    input, so that it is a constant.

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
    height = max(len(level) for level in topology.levels)
    figure = Figure(figsize=(2.6 * len(topology.levels) + 1, 0.75 * height + 1.4))
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.86))
    axes.set_axis_off()
    places = {
        node: (float(column), (len(level) - 1) / 2 - row)
        for column, level in enumerate(topology.levels)
        for row, node in enumerate(level)
    }
    tasks_of = _tasks_reached(topology)
    colours = {node: _colour(node, tasks_of, topology) for node in places}
    strongest: dict[str, float] = {}
    for edge in topology.edges:
        layer = edge.target.layer
        strongest[layer] = max(strongest.get(layer, 0.0), abs(edge.strength))
    for edge in topology.edges:
        scale = strongest[edge.target.layer]
        _draw_edge(axes, edge, places, colours, scale, topology.constant)
    for node, (x, y) in places.items():
        _draw_node(axes, node, x, y, colours[node], topology)
    for column, level in enumerate(topology.levels):
        is_tasks = column == len(topology.levels) - 1
        name = "tasks" if is_tasks else level[0].layer.replace("_", " ")
        axes.text(column, height / 2 + 0.35, name, ha="center", fontsize=11)
    axes.set_xlim(-0.4, len(topology.levels) - 0.3)
    axes.set_ylim(-height / 2 - 0.3, height / 2 + 0.6)
    figure.suptitle(title, fontsize=12)
    figure.text(0.5, 0.02, _LEGEND, ha="center", fontsize=9, color="#555555")
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    figure.savefig(partial, dpi=150)
    os.replace(partial, path)
    return path


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
    places: dict[Node, tuple[float, float]],
    colours: dict[Node, str],
    strongest: float,
    constant: frozenset[Node],
) -> None:
    (x0, y0), (x1, y1) = places[edge.source], places[edge.target]
    share = abs(edge.strength) / strongest
    axes.plot(
        [x0, x1],
        [y0, y1],
        color=colours[edge.target],
        linewidth=1.0 if edge.selects else 0.6 + 3.4 * share,
        alpha=0.35 + 0.5 * share,
        linestyle="--" if edge.selects else ":" if edge.source in constant else "-",
        zorder=1,
    )


def _draw_node(
    axes: Axes, node: Node, x: float, y: float, colour: str, topology: Topology
) -> None:
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
