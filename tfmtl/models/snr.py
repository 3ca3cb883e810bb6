"""Sub-network routing as a recipe."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import keras

from tfmtl.features import Encoder, encode
from tfmtl.features.specs import Feature
from tfmtl.layers import SubNetworkRouting
from tfmtl.layers.checks import entries, share
from tfmtl.models.multi_task_model import MultiTaskModel
from tfmtl.models.parts import (
    Arguments,
    ExpertList,
    Tensor,
    arguments,
    assemble,
    count,
    parallel_experts,
)
from tfmtl.tasks.task import Task, check_tasks


def snr(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    levels: Sequence[tuple[ExpertList, int]] = ((6, 48), (6, 32)),
    kind: str = "transformation",
    dropout: float = 0.0,
    routing: Arguments | None = None,
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "snr",
) -> MultiTaskModel:
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
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        levels: `(number of sub-networks, width)` per level, from the input on; the
            average keeps the width, so that there all widths are equal. In place of
            the number, a list of unlike Keras layers: a copy of each is a
            sub-network and keeps its own width. It reads x in the first level, and
            what routing passes to it, of the width given, in the others.
        kind: `"transformation"` (SNR-Trans) or `"average"` (SNR-Aver).
        dropout: Share of values dropped after each level, in training.
        routing: Further arguments of the levels' `SubNetworkRouting`, for example
            `{"hard_concrete": {"beta": 0.5}}`. They are ReLU layers with a bias
            unless it says otherwise.
        expert: Further arguments of the first level's `Experts`.
        tower: Arguments of each task's `Tower`.
        name: Name of the model.

    Returns:
        A `MultiTaskModel`: a dict of raw columns in, a dict of predictions
        `(batch, 1)` by task name out.

    Raises:
        ValueError: If features, tasks or levels do not fit.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.snr([x], tasks, levels=[(4, 8), (4, 8)])
        >>> model.compile("adam")
        >>> sorted(model.output)
        ['click', 'like']

    Source: Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing
    in Multi-Task Learning", AAAI 2019.
    """
    check_tasks(tasks)
    pairs = _check_levels(levels, kind)
    dropout = share("dropout", dropout)
    inputs, x = encode(features)
    for level, (experts, units) in enumerate(pairs, 1):
        own_name, size = f"level_{level}", count(experts)
        if level == 1:
            x = parallel_experts(x, experts, units, None, expert, own_name)
        else:
            x = _routing(size, units, kind, routing, own_name)(x)
        if level > 1 and isinstance(experts, list | tuple):
            passed = f"{own_name}_expert"
            x = parallel_experts(x, experts, units, range(size), None, passed)
        if kind == "average" and x.shape[-1] != units:
            raise ValueError(
                "`levels` should state the width of layers where kind='average', "
                "which keeps its input's width. Received: a width of "
                f"{units} for layers of width {x.shape[-1]} in level {level}"
            )
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"level_{level}_dropout")(x)
    width = x.shape[-1]
    x = _routing(len(tasks), width, kind, routing, "task_routing")(x)
    streams: list[Tensor] = keras.ops.unstack(x, len(tasks), axis=1)
    return assemble(inputs, streams, tasks, tower, name)


def _routing(
    outputs: int, units: int, kind: str, routing: Arguments | None, name: str
) -> SubNetworkRouting:
    taken = ("num_outputs", "units", "kind")
    given = arguments("routing", routing, name, taken)
    width = units if kind == "transformation" else None
    given = {"activation": "relu", "use_bias": True, **given}
    return SubNetworkRouting(outputs, width, kind, name=name, **given)


def _check_levels(levels: Any, kind: str) -> list[list[Any]]:
    """The levels as a list of `[experts, width]`."""
    pairs = [entries(pair) or [] for pair in entries(levels) or []]
    fits = [len(pair) == 2 and isinstance(pair[1], Integral) for pair in pairs]
    if not pairs or not all(fits):
        raise ValueError(
            "`levels` should be one or more pairs (number of sub-networks, width). "
            f"Received: levels={levels}"
        )
    if kind == "average" and len({units for _, units in pairs}) > 1:
        raise ValueError(
            "`levels` should have one width where kind='average', which keeps its "
            f"input's width. Received: levels={levels}"
        )
    return pairs
