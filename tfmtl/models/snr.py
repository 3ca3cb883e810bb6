"""Sub-network routing as a recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfmtl.features import encode
from tfmtl.features.specs import Feature
from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.tasks.tasks import Task, check_tasks


def snr(
    features: Sequence[Feature],
    tasks: Sequence[Task],
    levels: Sequence[tuple[int, int]] = ((6, 48), (6, 32)),
    kind: str = "transformation",
    tower_units: Sequence[int] = (16,),
    dropout: float = 0.0,
    gate: Mapping[str, Any] | None = None,
    name: str = "snr",
) -> keras.Model:
    """A ranker whose sharing between tasks is learned: SNR-Trans or SNR-Aver.

    ```
    columns → x → level 1: n_1 sub-networks, all read x
                → level 2: n_2 sub-networks, each reads level 1 through gates
                → …
                → one slot per task, reads the last level through gates → tower
    ```

    Train it as any Keras model; `tfmtl.sparsity.L0Ramp` closes gates and
    `tfmtl.folding.fold` removes what is closed.

    Args:
        features: Adapted features; see `tfmtl.features.adapt`.
        tasks: Tasks; they name the outputs.
        levels: `(number of sub-networks, width)` per level, from the input on.
            The average keeps the width, so that there all widths are equal.
        kind: `"transformation"` (SNR-Trans) or `"average"` (SNR-Aver).
        tower_units: Hidden widths of each task's tower.
        dropout: Share of values dropped after each level, in training.
        gate: Arguments of the gates, for example `{"l0": 1e-3}`.
        name: Name of the model.

    Returns:
        A Functional model: a dict of raw columns in, a dict of predictions
        `(batch, 1)` by task name out.

    Raises:
        ValueError: If features, tasks or levels do not fit.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.snr([x], tasks, levels=[(4, 8), (4, 8)])
        >>> model.compile("adam", **tfmtl.tasks.compile_arguments(tasks))
        >>> sorted(model.output)
        ['click', 'like']

    Source: Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing
    in Multi-Task Learning", AAAI 2019.
    """
    check_tasks(tasks)
    _check_levels(levels, kind)
    inputs, x = encode(features)
    _check_names(inputs, tasks, levels)
    for level, (count, units) in enumerate(levels, 1):
        if level == 1:
            x = Experts(count, units, name="level_1")(x)
        else:
            x = _routing(count, units, kind, _seeded(gate, level), f"level_{level}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"level_{level}_dropout")(x)
    gate = _seeded(gate, len(levels) + 1)
    x = _routing(len(tasks), levels[-1][1], kind, gate, "task_routing")(x)
    streams = keras.ops.unstack(x, len(tasks), axis=1)
    outputs = {
        task.name: Tower(
            tower_units,
            task.output_units,
            head_activation=task.head_activation,
            name=f"{task.name}_tower",
        )(stream)
        for task, stream in zip(tasks, streams, strict=True)
    }
    return keras.Model(inputs, outputs, name=name)


def _seeded(gate: Mapping[str, Any] | None, level: int) -> dict[str, Any]:
    """The gate's arguments with a seed of the level's own, if one is given."""
    gate = dict(gate or {})
    if gate.get("seed") is not None:
        gate["seed"] += level
    return gate


def _routing(
    count: int, units: int, kind: str, gate: Mapping[str, Any] | None, name: str
) -> SubNetworkRouting:
    return SubNetworkRouting(
        count,
        units if kind == "transformation" else None,
        kind,
        activation="relu",
        use_bias=True,
        gate=gate,
        name=name,
    )


def _check_names(
    inputs: Mapping[str, Any], tasks: Sequence[Task], levels: Sequence[Any]
) -> None:
    layers = {f"level_{level}" for level in range(1, len(levels) + 1)}
    layers |= {f"{task.name}_tower" for task in tasks} | {"task_routing"}
    taken = sorted(layers & set(inputs))
    if taken:
        raise ValueError(
            "Columns should not be named like layers of the model. "
            f"Received: columns={taken}"
        )


def _check_levels(levels: Sequence[tuple[int, int]], kind: str) -> None:
    pairs = [tuple(level) for level in levels]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            "`levels` should be one or more pairs (number of sub-networks, width). "
            f"Received: levels={levels}"
        )
    if kind == "average" and len({units for _, units in pairs}) > 1:
        raise ValueError(
            "`levels` should have one width where kind='average', which keeps its "
            f"input's width. Received: levels={levels}"
        )
