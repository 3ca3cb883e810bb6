"""A new model that starts from what an old one has learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.finetuning.labels import Axes


@dataclass(frozen=True)
class WarmStart:
    """What a model has taken from another one.

    Attributes:
        taken: Weights that are all the other's, `<layer>/<weight>`.
        resized: Weights that are the other's in part, with that part's share.
        new: Weights that are as they were.
        left: Layers of the other model that nothing was taken from.
    """

    taken: list[str]
    resized: dict[str, float]
    new: list[str]
    left: list[str]

    def __str__(self) -> str:
        resized = [f"{name} ({share:.0%})" for name, share in self.resized.items()]
        groups = {"taken": self.taken, "resized": resized, "new": self.new}
        lines = [
            f"{kind:<8} {len(names):>4}   {', '.join(names) or 'nothing'}"
            for kind, names in {**groups, "left": self.left}.items()
        ]
        return "\n".join(lines)


def warm_start(
    model: keras.Model,
    old: keras.Model,
    names: Mapping[str, str] | None = None,
) -> WarmStart:
    """Gives a model the weights of an old one, as far as parts of it are the same.

    Layers are matched by name and their weights entry by entry, by what each stands
    for: a row of a table by its value, a row of a first kernel by its column, experts,
    rows of gates and connections by the task whose own they are, everything else by its
    number. So an architecture of more experts, other widths, more tasks in another
    order, further columns or longer vocabularies starts from what it has in common with
    the old one, and what it has not is as it was. Unlike `add_task`, this does not keep
    outputs: new experts and units take part at once.

    Args:
        model: A built Functional model. Its weights are changed.
        old: A trained one, also loaded or folded. Of weights that Keras saved,
            `old.load_weights(path)` first, on a model of the old architecture.
        names: Name of a layer to that of the old layer, or of a task to that of the old
            task, where they differ.

    Returns:
        What was taken, resized, new, and left. Print it.

    Raises:
        ValueError: If a name is that of no task and no layer with weights, or nothing
            matches.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> old = tfmtl.models.mmoe([x], tasks, experts=4)
        >>> model = tfmtl.models.mmoe([x], tasks, experts=8)
        >>> found = tfmtl.finetuning.warm_start(model, old)
        >>> found.resized
        {'level_1/kernel_1': 0.5, 'level_1/bias_1': 0.5, 'task_gate/kernel': 0.5}
    """
    tasks = {task.name for task in getattr(model, "tasks", ())}
    renamed = {n: source for n, source in (names or {}).items() if n in tasks}
    new_axes = Axes(model, renamed)
    old_axes = Axes(old)
    chosen = {name: _of_task(name, renamed) for name in new_axes.layers}
    given = {n: source for n, source in (names or {}).items() if n not in renamed}
    unknown = [*(set(given) - set(chosen)), *({*given.values()} - {*old_axes.layers})]
    if unknown:
        raise ValueError(
            "`names` should have tasks or layers with weights, of the model as keys "
            f"and of the old one as values. Received: {unknown}"
        )
    chosen |= given
    taken, resized, new, used = [], {}, [], set()
    for name in new_axes.layers:
        source = chosen[name]
        known = old_axes.weights(source) if source in old_axes.layers else {}
        for path, (weight, labels) in _matched(new_axes.weights(name), known).items():
            share = 0.0
            if path in known and len(known[path][1]) == len(labels):
                share = _take(weight, labels, *known[path])
            full = f"{name}/{path}"
            if share == 1:
                taken.append(full)
            elif share:
                resized[full] = share
            else:
                new.append(full)
            if share:
                used.add(source)
    if not used:
        raise ValueError(
            "`old` should have layers of the model's names. Received: "
            f"{sorted(old_axes.layers)} for {sorted(new_axes.layers)}"
        )
    left = [name for name in old_axes.layers if name not in used]
    return WarmStart(taken, resized, new, left)


def _of_task(layer: str, renamed: Mapping[str, str]) -> str:
    """The name of the old layer: that of a task starts with the task's name."""
    for task, source in renamed.items():
        if layer.startswith(f"{task}_"):
            return source + layer.removeprefix(task)
    return layer


def _matched(weights: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Weights by the old ones' paths, in order where paths inside layers differ."""
    if len(weights) == len(known) and not set(weights) & set(known):
        return dict(zip(known, weights.values(), strict=True))
    return weights


def _take(
    weight: Any, labels: Sequence[Any], old: Any, old_labels: Sequence[Any]
) -> float:
    """Takes the entries of the same labels over; returns their share."""
    places, sources = [], []
    for axis, old_axis in zip(labels, old_labels, strict=True):
        position = {label: k for k, label in enumerate(old_axis)}
        pairs = [(k, position[x]) for k, x in enumerate(axis) if x in position]
        places.append([k for k, _ in pairs])
        sources.append([k for _, k in pairs])
    values = ops.convert_to_numpy(weight).copy()
    taken = ops.convert_to_numpy(old)[np.ix_(*sources)]
    values[np.ix_(*places)] = taken
    weight.assign(values)
    return float(taken.size / max(values.size, 1))
