"""Recipes without gates: single-task networks, Shared-Bottom, cross-stitch."""

from collections.abc import Sequence
from itertools import permutations

import keras
import numpy as np

from tfmtl.features import Encoder, encode, encode_apart
from tfmtl.features.specs import Feature
from tfmtl.features.specs import Sequence as SequenceFeature
from tfmtl.layers import StaticMixture
from tfmtl.layers.checks import number, some_widths
from tfmtl.models.multi_task_model import MultiTaskModel
from tfmtl.models.parts import (
    Arguments,
    Tensor,
    Units,
    assemble,
    check_levels,
    count,
    parallel_experts,
)
from tfmtl.tasks.task import Task, check_tasks


def single_task(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    bottom: Units | keras.layers.Layer = (64, 32),
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "single_task",
) -> MultiTaskModel:
    """One network for each task, which share no trained weight.

    ```
    y_k = tower_k(bottom_k(x_k)),  x_k encoded with embeddings of task k's own
    ```

    The baseline that the gain of multi-task learning is measured against. With an
    optimiser that treats each weight on its own, such as Adam without clipping by a
    global norm, it trains as the networks would one by one.

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        bottom: Widths of each network's hidden layers, or a Keras layer of which
            each task gets a copy; see `mmoe`.
        expert: Further arguments of `Experts`, which hold the hidden layers.
        tower: Arguments of each task's `Tower`.
        name: Name of the model.

    Returns:
        A `MultiTaskModel`: a dict of raw columns in, a dict of predictions
        `(batch, 1)` by task name out.

    Raises:
        ValueError: If features or tasks do not fit.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> sorted(tfmtl.models.single_task([x], tasks).output)
        ['click', 'like']

    Source: the single-task models of Ma et al., KDD 2018, section 6, and Tang et
    al., RecSys 2020, section 5.
    """
    check_tasks(tasks)
    prefixes = _prefixes(features, tasks)
    inputs, vectors = encode_apart(features, prefixes)
    streams = [
        _single(x, bottom, expert, f"{prefix}bottom")
        for x, prefix in zip(vectors, prefixes, strict=True)
    ]
    return assemble(inputs, streams, tasks, tower, name)


def shared_bottom(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    bottom: Units | keras.layers.Layer = (64, 32),
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "shared_bottom",
) -> MultiTaskModel:
    """One network for all tasks, and a tower for each.

    ```
    y_k = tower_k(bottom(x))
    ```

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        bottom: Widths of the shared hidden layers, or a Keras layer of which a copy
            is shared.
        expert: Further arguments of `Experts`, which hold the hidden layers.
        tower: Arguments of each task's `Tower`.
        name: Name of the model.

    Returns:
        A `MultiTaskModel`: a dict of raw columns in, a dict of predictions
        `(batch, 1)` by task name out.

    Raises:
        ValueError: If features or tasks do not fit.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> sorted(tfmtl.models.shared_bottom([x], tasks).output)
        ['click', 'like']

    Source: Ma et al., KDD 2018, eq. 1, after Caruana, "Multitask Learning", 1997.
    """
    check_tasks(tasks)
    inputs, x = encode(features)
    shared = _single(x, bottom, expert, "level_1")
    return assemble(inputs, [shared] * len(tasks), tasks, tower, name)


def cross_stitch(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    levels: Sequence[Units] = (64, 32),
    streams: Sequence[keras.layers.Layer] | None = None,
    own_share: float = 0.9,
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "cross_stitch",
) -> MultiTaskModel:
    """A stream for each task, mixed with the others after every level.

    ```
    h_k = f_k(g_k),  g'_k = sum_l a_kl h_l      a a learned T x T matrix per level
    a_kk = own_share, a_kl = (1 - own_share) / (T - 1) at the start
    ```

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        levels: Width of a stream per level; several widths for several layers
            between two mixtures. Streams given as layers keep their own
            widths, one level for each entry.
        streams: A list of Keras layers, one for each task: in every level, task k's
            network is a copy of layer k. Defaults to MLPs of the widths of `levels`.
        own_share: Weight of a task's own stream at the start.
        expert: Further arguments of `Experts`.
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
        >>> sorted(tfmtl.models.cross_stitch([x], tasks).output)
        ['click', 'like']

    Source: Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR
    2016, eq. 1, with one weight for all units of a stream.
    """
    check_tasks(tasks)
    if not 0 <= number(own_share) <= 1:
        raise ValueError(
            f"`own_share` should be from 0 to 1. Received: own_share={own_share!r}"
        )
    size = len(tasks)
    experts = size if streams is None else streams
    if not isinstance(streams, list | tuple | None) or count(experts) != size:
        raise ValueError(
            f"`streams` should be a list of Keras layers, one for each of {size} "
            f"tasks. Received: streams={streams!r}"
        )
    levels = check_levels(levels, experts)
    inputs, x = encode(features)
    others = (1 - own_share) / (size - 1) if size > 1 else 0.0
    mixing = np.full((size, size), others)
    np.fill_diagonal(mixing, own_share)
    for level, units in enumerate(levels, 1):
        slots = None if level == 1 else range(size)
        x = parallel_experts(x, experts, units, slots, expert, f"level_{level}")
        x = StaticMixture(
            size,
            mixing_initializer=keras.initializers.Constant(mixing.tolist()),
            name=f"level_{level}_stitch",
        )(x)
    return assemble(inputs, keras.ops.unstack(x, size, axis=1), tasks, tower, name)


def _prefixes(
    features: Sequence[Feature] | Encoder, tasks: Sequence[Task]
) -> list[str]:
    """The start of the names of each task's layers.

    It has the task's number where else two names could be one: "view" with the column
    "long_history", and "view_long" with "history".
    """
    prefixes = [f"task_{task.name}_" for task in tasks]
    known = features.features if isinstance(features, Encoder) else features
    sequences = {f.name for f in known if isinstance(f, SequenceFeature)}
    named = sequences | {f"{name}_values" for name in sequences}
    named |= {getattr(feature, "table", None) or "" for feature in known}
    further = [b[len(a) :] for a, b in permutations(prefixes, 2) if b.startswith(a)]
    if any(f"{start}{name}" in named for start in further for name in named if name):
        return [f"task_{k}_{task.name}_" for k, task in enumerate(tasks, 1)]
    return prefixes


def _single(
    x: Tensor,
    bottom: Units | keras.layers.Layer,
    expert: Arguments | None,
    name: str,
) -> Tensor:
    """The output of one network, `(batch, d)`."""
    if isinstance(bottom, keras.layers.Layer):
        return parallel_experts(x, [bottom], (), None, expert, name)[:, 0]
    units = some_widths("bottom", bottom)
    return parallel_experts(x, 1, units, None, expert, name)[:, 0]
