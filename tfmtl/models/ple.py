"""Experts of tasks' own beside shared ones: CGC, PLE, AdaTT."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import keras
import numpy as np

from tfmtl.features import Encoder, encode
from tfmtl.features.specs import Feature
from tfmtl.layers import Mixture, StaticMixture
from tfmtl.models.multi_task_model import MultiTaskModel
from tfmtl.models.parts import (
    Arguments,
    ExpertList,
    Gate,
    Tensor,
    Units,
    assemble,
    check_levels,
    check_unused,
    check_widths,
    count,
    make_gate,
    parallel_experts,
)
from tfmtl.tasks.task import Task, check_tasks

Specific = ExpertList | Sequence[int] | Mapping[str, ExpertList]


def extraction(
    inputs: Tensor,
    specific: Sequence[ExpertList],
    shared: ExpertList,
    units: Units = 64,
    *,
    last: bool,
    gate: Gate | None = None,
    expert: Arguments | None = None,
    selector: Tensor | None = None,
    name: str = "extraction",
) -> Tensor:
    """One level of PLE: experts of each module, and gates that mix them (CGC).

    ```
    modules      tasks 1 … T, and s where there are shared experts
    experts      those of module k read stream k, or x in the first level
    task k       g_k = softmax(stream_k W_k) over its own experts and the shared ones
    s            g_s = softmax(stream_s W_s) over all experts; not in the last level
    inputs       (batch, d), or (batch, modules, d)
    output       (batch, modules, h), or (batch, T, h) of the last level
    ```

    Args:
        inputs: x, or the streams of the level below, the shared one last.
        specific: Own experts of each task: a number, which may be 0 and differ from
            task to task, or a list of unlike Keras layers of which copies are made.
        shared: Shared experts, likewise; with 0 there is no shared module.
        units: Width of an expert, or widths of its layers; experts given as layers
            keep their own.
        last: Whether the level is the last one, without a shared stream.
        gate: Arguments of the `SoftmaxGate`, or another gate's class.
        expert: Further arguments of `Experts`.
        selector: What the gates read. Defaults to `inputs`: each gate its stream.
        name: Start of the layers' names, which also tells seeds apart.

    Returns:
        The streams of the next level, or of the towers.

    Raises:
        ValueError: If counts and shapes do not fit, or a task has no expert to read.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.Input((6,))
        >>> x = tfmtl.models.extraction(x, [1, 2], 1, 8, last=False, name="level_1")
        >>> x.shape
        (None, 3, 8)
        >>> tfmtl.models.extraction(x, [1, 2], 1, 8, last=True, name="level_2").shape
        (None, 2, 8)

    Source: Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020, eq. 1
    to 7.
    """
    module_of = _module_of(specific, shared)
    reads = [
        [module in (task, len(specific)) for module in module_of]
        for task in range(len(specific))
    ]
    if count(shared) and not last:
        reads.append([True] * len(module_of))
    stack = _experts(inputs, [*specific, shared], units, expert, name)
    made = make_gate(gate, *np.shape(reads), f"{name}_gate", reads)
    weights = made(inputs if selector is None else selector)
    return Mixture(name=f"{name}_mixture")([stack, weights])


def fusion(
    inputs: Tensor,
    specific: Sequence[ExpertList],
    shared: ExpertList = 0,
    units: Units = 64,
    *,
    last: bool,
    gate: Gate | None = None,
    expert: Arguments | None = None,
    selector: Tensor | None = None,
    name: str = "fusion",
) -> Tensor:
    """One level of AdaTT: gates over all experts, and a residual path of one's own.

    ```
    stream'_k = sum_e g_k(stream_k)_e f_e  +  sum_{e of module k} v_ke f_e
    g_k = softmax(stream_k W_k) over the experts of all modules
    ```

    v is learned, from U(-sqrt(1/n_k), sqrt(1/n_k)) for n_k own experts; where every
    module has a single expert there is none: a plain residual connection.

    Args:
        inputs: x, or the streams of the level below, the shared one last.
        specific: Own experts of each task: a number, or a list of Keras layers.
        shared: Shared experts, likewise. Defaults to 0 (AdaTT-sp).
        units: Width of an expert, or widths of its layers; experts given as layers
            keep their own.
        last: Whether the level is the last one, without a shared stream.
        gate: Arguments of the `SoftmaxGate`, or another gate's class.
        expert: Further arguments of `Experts`.
        selector: What the gates read. Defaults to `inputs`: each gate its stream.
        name: Start of the layers' names, which also tells seeds apart.

    Returns:
        The streams of the next level, or of the towers.

    Raises:
        ValueError: If counts and shapes do not fit.

    Example:
        >>> import keras, tfmtl
        >>> x = tfmtl.models.fusion(keras.Input((6,)), [1, 2], 0, 8, last=True)
        >>> x.shape
        (None, 2, 8)

    Source: Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask
    Learning in Recommendations", KDD 2023, section 3.
    """
    module_of = np.array(_module_of(specific, shared))
    rows = len(specific) + (1 if count(shared) and not last else 0)
    stack = _experts(inputs, [*specific, shared], units, expert, name)
    made = make_gate(gate, rows, len(module_of), f"{name}_gate")
    weights = made(inputs if selector is None else selector)
    mixed = Mixture(name=f"{name}_mixture")([stack, weights])
    if set(np.bincount(module_of)) == {1}:
        residual = stack if rows == len(module_of) else stack[:, :rows]
    else:
        own = module_of == np.arange(rows)[:, None]
        residual = StaticMixture(
            rows,
            None if own.all() else own.tolist(),
            mixing_initializer=NativeWeights(own.sum(axis=1)),
            name=f"{name}_residual",
        )(stack)
    return keras.layers.Add(name=f"{name}_sum")([mixed, residual])


@keras.saving.register_keras_serializable(package="tfmtl")
class NativeWeights(keras.initializers.Initializer):
    """Row k of a matrix from U(-sqrt(1/n_k), sqrt(1/n_k)), as AdaTT starts.

    Args:
        counts: n_k, the number of own experts, of each row.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = [int(n) for n in counts]

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        limits = np.sqrt(1 / np.maximum(self.counts, 1)).astype("float32")
        draw = keras.random.uniform(shape, -1.0, 1.0, dtype="float32")
        return keras.ops.cast(draw * limits[:, None], dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {"counts": self.counts}


def ple(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    specific: Specific = 2,
    shared: ExpertList = 2,
    levels: Sequence[Units] = (64, 32),
    gate: Gate | None = None,
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "ple",
) -> MultiTaskModel:
    """Progressive layered extraction: own and shared experts on every level.

    ```
    x → extraction → streams of the tasks and a shared one → extraction → … → towers
    ```

    See `extraction` for the level's formulas; the last one has no shared stream.

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        specific: Own experts of a task per level: a number, or a list of unlike
            Keras layers of which copies are made; see `mmoe`. A dict by task name
            where tasks differ, as in `{"click": 3, "like": 1}`, or a list with the
            number of each task.
        shared: Shared experts per level, likewise; 0 for none.
        levels: Width of an expert per level; several widths for an expert of
            several layers. Experts given as layers keep their own widths, one level
            for each entry.
        gate: Arguments of the `SoftmaxGate`s, for example `{"dropout": 0.1}` or
            `{"hard_concrete": {"l0": 1e-3}}`; or another gate's class.
        expert: Further arguments of `Experts`.
        tower: Arguments of each task's `Tower`.
        name: Name of the model.

    Returns:
        A `MultiTaskModel`: a dict of raw columns in, a dict of predictions
        `(batch, 1)` by task name out.

    Raises:
        ValueError: If features, tasks, counts or levels do not fit.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> own = {"click": 3, "like": 1}
        >>> model = tfmtl.models.ple([x], tasks, own, shared=2, levels=[16, 8])
        >>> model.get_layer("level_1_gate").output.shape
        (None, 3, 6)

    Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task
    Learning (MTL) Model for Personalized Recommendations", RecSys 2020.
    """
    check_tasks(tasks)
    own = _of_each(specific, tasks)
    widths = check_levels(levels, *own, shared)
    inputs, x = encode(features)
    level = partial(extraction, specific=own, shared=shared, gate=gate, expert=expert)
    return assemble(inputs, _streams(x, level, widths), tasks, tower, name)


def cgc(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    specific: Specific = 2,
    shared: ExpertList = 2,
    units: Units = 64,
    gate: Gate | None = None,
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "cgc",
) -> MultiTaskModel:
    """Customized gate control: PLE of a single level.

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        specific: Own experts of a task; see `ple`.
        shared: Shared experts; see `ple`.
        units: Width of an expert, or widths of its layers; experts given as layers
            keep their own.
        gate: Arguments of the `SoftmaxGate`, or another gate's class.
        expert: Further arguments of `Experts`.
        tower: Arguments of each task's `Tower`.
        name: Name of the model.

    Returns:
        A `MultiTaskModel`: a dict of raw columns in, a dict of predictions
        `(batch, 1)` by task name out.

    Raises:
        ValueError: If features, tasks or counts do not fit.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> sorted(tfmtl.models.cgc([x], tasks, specific=1, shared=1).output)
        ['click', 'like']

    Source: Tang et al., RecSys 2020, section 4.2.
    """
    return ple(features, tasks, specific, shared, [units], gate, expert, tower, name)


def adatt(
    features: Sequence[Feature] | Encoder,
    tasks: Sequence[Task],
    specific: Specific = 1,
    shared: ExpertList = 0,
    levels: Sequence[Units] = (64, 32),
    gate: Gate | None = None,
    expert: Arguments | None = None,
    tower: Arguments | None = None,
    name: str = "adatt",
) -> MultiTaskModel:
    """Adaptive task-to-task fusion: gates over all experts, residual of one's own.

    See `fusion` for the level's formulas.

    Args:
        features: Adapted features, or an `Encoder` of them; see `tfmtl.features`.
        tasks: Tasks; they name the outputs.
        specific: Own experts of a task per level; see `ple`.
        shared: Shared experts per level; 0 is AdaTT-sp.
        levels: Width of an expert per level; see `ple`.
        gate: Arguments of the `SoftmaxGate`s, or another gate's class.
        expert: Further arguments of `Experts`.
        tower: Arguments of each task's `Tower`.
        name: Name of the model.

    Returns:
        A `MultiTaskModel`: a dict of raw columns in, a dict of predictions
        `(batch, 1)` by task name out.

    Raises:
        ValueError: If features, tasks, counts or levels do not fit.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> sorted(tfmtl.models.adatt([x], tasks).output)
        ['click', 'like']

    Source: Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask
    Learning in Recommendations", KDD 2023.
    """
    check_tasks(tasks)
    own = _of_each(specific, tasks)
    widths = check_levels(levels, *own, shared)
    inputs, x = encode(features)
    level = partial(fusion, specific=own, shared=shared, gate=gate, expert=expert)
    return assemble(inputs, _streams(x, level, widths), tasks, tower, name)


def _streams(
    x: Tensor, level: Callable[..., Tensor], widths: Sequence[Units]
) -> list[Tensor]:
    """The streams of the towers: levels one after the other, of the widths given."""
    for k, units in enumerate(widths, 1):
        x = level(x, units=units, last=k == len(widths), name=f"level_{k}")
    return keras.ops.unstack(x, axis=1)


def _of_each(specific: Specific, tasks: Sequence[Task]) -> list[ExpertList]:
    names = [task.name for task in tasks]
    if isinstance(specific, list | tuple) and len(specific) > 1:
        numbers = [own for own in specific if isinstance(own, Integral)]
        if numbers and len(specific) != len(tasks):
            raise ValueError(
                "`specific` should be a number, a list of Keras layers, or a dict or "
                f"list with an entry for each of the tasks {names}. "
                f"Received: specific={specific!r}"
            )
        if numbers:
            return list(specific)
    if not isinstance(specific, Mapping):
        return [specific] * len(tasks)
    if set(specific) != set(names):
        raise ValueError(
            f"`specific` should have an entry for each of the tasks {names}. "
            f"Received: {sorted(specific)}"
        )
    return [specific[name] for name in names]


def _module_of(specific: Sequence[ExpertList], shared: ExpertList) -> list[int]:
    """The module of each expert; the shared module has the number of tasks."""
    if not isinstance(specific, list | tuple):
        raise ValueError(
            "`specific` should be a list with the experts of each task. "
            f"Received: specific={specific!r}"
        )
    counts = [count(experts) for experts in specific]
    if min([*counts, count(shared)]) < 0 or not count(shared) and 0 in counts:
        raise ValueError(
            "Each task should have an expert of its own or a shared one to read. "
            f"Received: specific={counts}, shared={count(shared)}"
        )
    sizes = [*counts, count(shared)]
    return [module for module, size in enumerate(sizes) for _ in range(size)]


def _experts(
    inputs: Tensor,
    modules: Sequence[ExpertList],
    units: Units,
    expert: Arguments | None,
    name: str,
) -> Tensor:
    """The experts of all modules, one module after the other, `(batch, e, h)`."""
    sizes = [count(experts) for experts in modules]
    _check_streams(inputs, len(modules) if sizes[-1] else len(modules) - 1)
    stacked = len(inputs.shape) == 3
    lists = [isinstance(experts, list | tuple) for experts in modules]
    if not any(lists):
        slots = [k for k, size in enumerate(sizes) for _ in range(size)]
        own_name = f"{name}_experts"
        read = slots if stacked else None
        return parallel_experts(inputs, len(slots), units, read, expert, own_name)
    if all(is_list for is_list, size in zip(lists, sizes, strict=True) if size):
        check_unused(expert)
    parts = [
        parallel_experts(
            inputs,
            experts,
            units,
            [k] * size if stacked else None,
            None if is_list else expert,
            f"{name}_experts_{k + 1}",
        )
        for k, (experts, size, is_list) in enumerate(
            zip(modules, sizes, lists, strict=True)
        )
        if size
    ]
    check_widths([(part.shape[0], *part.shape[2:]) for part in parts])
    return keras.ops.concatenate(parts, axis=1)


def _check_streams(inputs: Tensor, modules: int) -> None:
    shape = tuple(inputs.shape)
    if len(shape) not in (2, 3) or len(shape) == 3 and shape[1] != modules:
        raise ValueError(
            "The streams should be of shape (batch, d), or of shape "
            f"(batch, {modules}, d) with one for each module. Received: shape={shape}"
        )
