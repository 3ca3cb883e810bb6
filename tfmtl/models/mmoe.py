"""Mixtures of experts: one gate for all tasks, or one for each."""

from collections.abc import Sequence

import keras

from tfmtl.features import Encoder, encode
from tfmtl.features.specs import Feature
from tfmtl.layers import Mixture
from tfmtl.models.multi_task_model import MultiTaskModel
from tfmtl.models.parts import (
    Arguments,
    ExpertList,
    Gate,
    Tensor,
    Units,
    assemble,
    check_levels,
    count,
    make_gate,
    parallel_experts,
)
from tfmtl.tasks.task import Task, check_tasks


def mmoe(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    experts: ExpertList = 8,
    levels: Sequence[Units] = (64,),
    gate: Gate | None = None,
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "mmoe",
) -> MultiTaskModel:
    """Multi-gate mixture of experts: each task weighs shared experts by its gate.

    ```
    f_k = sum_i g_k(x)_i f_i(x),  g_k(x) = softmax(x W_k),  y_k = tower_k(f_k)
    ```

    With several levels (ML-MMoE), each expert of an upper level reads its own
    mixture of the level below; all gates read x.

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        experts: Number of experts per level, or a list of unlike Keras layers, of
            which each level gets copies, made from their configuration: a class of
            your own needs `get_config` and `**kwargs`.
        levels: Width of an expert per level; several widths for an expert of
            several layers, as in `[(256, 128)]`. Experts given as layers keep their
            own widths, one level for each entry.
        gate: Arguments of the `SoftmaxGate`s, for example `{"dropout": 0.1}` against
            polarisation or `{"hard_concrete": {"l0": 1e-3}}` to prune; or another
            gate's class, such as `DSelectKGate`, or a function that makes a gate as
            that class does.
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
        >>> model = tfmtl.models.mmoe([x], tasks, experts=4, levels=[(16, 8)])
        >>> model.get_layer("task_gate").output.shape
        (None, 2, 4)

    Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts", KDD 2018, eq. 5 to 7; gate dropout after Zhao
    et al., RecSys 2019; several levels as in the comparisons of Ma et al., AAAI
    2019, and Tang et al., RecSys 2020.
    """
    check_tasks(tasks)
    inputs, x = encode(features)
    mixed = _mixture(x, len(tasks), experts, levels, gate, expert)
    streams = keras.ops.unstack(mixed, len(tasks), axis=1)
    return assemble(inputs, streams, tasks, tower, name)


def omoe(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    experts: ExpertList = 8,
    levels: Sequence[Units] = (64,),
    gate: Gate | None = None,
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "omoe",
) -> MultiTaskModel:
    """One-gate mixture of experts (MoE, OMoE): all tasks share one mixture.

    ```
    f = sum_i g(x)_i f_i(x),  g(x) = softmax(x W),  y_k = tower_k(f)
    ```

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        experts: Number of experts, or a list of unlike Keras layers.
        levels: Width of an expert per level; see `mmoe`.
        gate: Arguments of the gates, or a gate's class; see `mmoe`.
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
        >>> model = tfmtl.models.omoe([x], tasks, experts=4)
        >>> model.get_layer("task_gate").output.shape
        (None, 1, 4)

    Source: Ma et al., KDD 2018 (OMoE); Jacobs et al., "Adaptive Mixtures of Local
    Experts", 1991.
    """
    check_tasks(tasks)
    inputs, x = encode(features)
    [mixed] = keras.ops.unstack(_mixture(x, 1, experts, levels, gate, expert), axis=1)
    return assemble(inputs, [mixed] * len(tasks), tasks, tower, name)


def _mixture(
    x: Tensor,
    num_gates: int,
    experts: ExpertList,
    levels: Sequence[Units],
    gate: Gate | None,
    expert: Arguments | None,
) -> Tensor:
    """Mixtures of the last level's experts, `(batch, num_gates, d)`."""
    first, *upper = check_levels(levels, experts)
    size = count(experts)
    stack = parallel_experts(x, experts, first, None, expert, "level_1")
    for level, units in enumerate(upper, 2):
        own_name = f"level_{level}"
        weights = make_gate(gate, size, size, f"{own_name}_gate")(x)
        mixed = Mixture(name=f"{own_name}_mixture")([stack, weights])
        stack = parallel_experts(mixed, experts, units, range(size), expert, own_name)
    weights = make_gate(gate, num_gates, size, "task_gate")(x)
    return Mixture(name="task_mixture")([stack, weights])
