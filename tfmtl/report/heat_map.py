"""The cosines of the tasks' gradients as a picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def heat_map(
    cosines: Any,
    tasks: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "Cosine of the tasks' gradients",
) -> Path:
    """Writes the picture of cosines: red where tasks pull apart, blue together.

    Args:
        cosines: `(T, T)`, or `(measurements, T, T)` to be averaged, as a
            `tfmtl.balancing.ConflictMonitor` has them.
        tasks: Names of the T tasks.
        path: File to write; its ending gives the format, for example `.png`.
        title: Line above the picture.

    Returns:
        The path.

    Raises:
        ValueError: If there is not one row and column for each task, or no measurement.

    Example:
        ```python
        monitor = tfmtl.balancing.ConflictMonitor(batch)
        model.fit(data, callbacks=[monitor])
        tfmtl.report.heat_map(monitor.cosines, monitor.tasks, "cosines.png")
        ```
    """
    path, count, found = Path(path), len(tasks), np.asarray(cosines, "float64")
    if found.shape[-2:] != (count, count) or found.ndim > 3 or not found.size:
        raise ValueError(
            f"`cosines` should be ({count}, {count}) or (measurements, {count}, "
            f"{count}) for the tasks {list(tasks)}. Received: cosines of shape "
            f"{found.shape}"
        )
    found = found.reshape(-1, count, count).mean(axis=0)
    size = 1.5 + 0.6 * count + 0.08 * max(map(len, tasks))  # inches
    figure = Figure(figsize=(size + 0.8, size))
    axes = figure.add_subplot()
    image = axes.imshow(found, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(count), tasks, rotation=45, ha="right")
    axes.set_yticks(range(count), tasks)
    for (i, j), cosine in np.ndenumerate(found):
        colour = "white" if abs(cosine) > 0.6 else "black"
        text = f"{round(cosine, 2) + 0:.2f}"  # no -0.00
        axes.text(j, i, text, ha="center", va="center", color=colour)
    figure.colorbar(image, shrink=0.8)
    axes.set_title(title, fontsize=12)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    figure.savefig(partial, dpi=150, bbox_inches="tight", pad_inches=0.2)
    os.replace(partial, path)
    return path
