"""Weights of a funnel's later steps, so that labels with gaps train all exposures."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfmtl.tasks.losses import column
from tfmtl.tasks.task import Task

Tensor = Any
Counts = dict[str, Tensor]

_LATEST = 2.0**16  # who took a step, so that float32 counts on and the share may drift


def step_counts(tasks: Sequence[Task], labels: Mapping[str, Tensor]) -> Counts:
    """How many took each step before a later step, and what is known of these.

    ```
    n_sk    number of rows that took step s and are of kind k
    kinds   later step's label known | first step not taken: the last before it, …,
            the first of all | any
    ```

    Args:
        tasks: Tasks, steps after those they depend on.
        labels: Of every task, NaN where missing, as of `complete_labels`.

    Returns:
        `(steps before, steps before + 2)` by name of the steps with `after`.
    """
    found = {}
    for name, steps in _steps_before(tasks).items():
        kinds = _kinds(name, steps, labels)
        kinds = ops.concatenate([kinds, ops.ones_like(kinds[:, :1])], axis=1)
        taken = ops.concatenate([column(labels[step] > 0) for step in steps], axis=1)
        found[name] = ops.matmul(ops.transpose(taken), kinds)
    return found


def step_weights(
    tasks: Sequence[Task],
    labels: Mapping[str, Tensor],
    counts: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Weights of the examples, by name of the funnels' later steps.

    ```
    w_i = 1 where the label is known and no step before is known not to be taken
    w_i = mean of w over those who took step s, where s is the first i did not take
    ```

    The label of who did not take a step before is known to be 0. Where only some of
    those who took it have a label, all of these zeros would make the step look rare.

    Args:
        tasks: Tasks, steps after those they depend on.
        labels: Of every task, NaN where missing, as of `complete_labels`.
        counts: Those of `step_counts`, which the means are of. Defaults to those of
            the batch.

    Returns:
        Weights `(batch, 1)`, each for a step with `after`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> from tfmtl.tasks.funnels import step_weights
        >>> binary = tfmtl.tasks.Binary
        >>> tasks = [binary("click"), binary("buy", after="click")]
        >>> click, buy = [[1], [1], [0], [0]], [[1], [float("nan")], [0], [0]]
        >>> labels = {"click": ops.array(click), "buy": ops.array(buy)}
        >>> [float(w) for w in step_weights(tasks, labels)["buy"][:, 0]]
        [1.0, 0.0, 0.5, 0.5]

    Source: inverse propensity weighting, Horvitz and Thompson, 1952.
    """
    counts = step_counts(tasks, labels) if counts is None else counts
    return {
        name: ops.matmul(_kinds(name, steps, labels), _means(counts[name]))
        for name, steps in _steps_before(tasks).items()
    }


def expected_weights(
    tasks: Sequence[Task],
    labels: Mapping[str, Tensor],
    counts: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Means of `step_weights` over rows alike but for what follows the first step.

    A loss divided by these and not by the weights is not drawn to 0 in a batch that
    happens to hold more labels than most.

    Args:
        tasks: As of `step_weights`.
        labels: As of `step_weights`.
        counts: As of `step_weights`.

    Returns:
        Weights `(batch, 1)`, each for a step with `after`.
    """
    counts = step_counts(tasks, labels) if counts is None else counts
    weights = step_weights(tasks, labels, counts)
    return {
        name: ops.where(
            ops.isnan(labels[steps[-1]]), weights[name], _means(counts[name])[-1]
        )
        for name, steps in _steps_before(tasks).items()
    }


class RunningCounts:
    """`step_counts` over batches: of all, then about the latest 65,536 of a step.

    A share of one batch is far off where few take the step. Each replica of
    `tf.distribute` has the mean over replicas, which leaves the shares as they are.

    Args:
        tasks: Tasks.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.variables = {
            name: keras.Variable(
                ops.zeros((len(steps), len(steps) + 2)),
                trainable=False,
                dtype="float32",
                aggregation="mean",
                name=f"{name}_counts",
            )
            for name, steps in _steps_before(tasks).items()
        }

    def update(self, counts: Counts) -> None:
        """Adds those of a batch."""
        for name, variable in self.variables.items():
            total = variable + ops.cast(counts[name], "float32")
            variable.assign(total * (_LATEST / ops.maximum(total[:, -1:], _LATEST)))

    def of(self, counts: Counts) -> Counts:
        """Those seen so far; those of a batch for steps that nobody has taken yet."""
        found = {}
        for name, variable in self.variables.items():
            seen = ops.cast(variable.value, counts[name].dtype)
            found[name] = ops.where(seen[:, -1:] > 0, seen, counts[name])
        return found

    def reset(self) -> None:
        """Forgets all."""
        for variable in self.variables.values():
            variable.assign(ops.zeros(variable.shape))


def _steps_before(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """The steps before each later step, the last one first."""
    after = {task.name: task.after for task in tasks}
    found = {}
    for name, step in after.items():
        steps = []
        while step is not None:
            steps.append(step)
            step = after[step]
        if steps:
            found[name] = steps
    return found


def _kinds(name: str, steps: Sequence[str], labels: Mapping[str, Tensor]) -> Tensor:
    """Whether each row is of a kind, any but the last: `(batch, steps before + 1)`."""
    left = column(ops.ones_like(labels[name]))
    found = []
    for step in reversed(steps):
        found.append(left * column(labels[step] == 0))
        left = left - found[-1]
    known = left * column(ops.logical_not(ops.isnan(labels[name])))
    return ops.concatenate([known, *reversed(found)], axis=1)


def _means(counts: Tensor) -> Tensor:
    """1, and the mean weight of who took each step, 1 of none: `(steps + 1, 1)`."""
    means = [ops.ones_like(counts[0, 0])]
    for k in range(counts.shape[0]):
        took = counts[k, -1]
        total = sum(counts[k, j] * mean for j, mean in enumerate(means))
        means.append(ops.where(took > 0, total / ops.where(took > 0, took, 1.0), 1.0))
    return ops.expand_dims(ops.stack(means), 1)
