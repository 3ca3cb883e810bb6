"""Losses and metrics of tasks together."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfmtl.layers.checks import number
from tfmtl.metrics import Labelled, Listwise
from tfmtl.metrics.listwise import is_listwise
from tfmtl.tasks.funnels import (
    RunningCounts,
    expected_weights,
    step_counts,
    step_weights,
)
from tfmtl.tasks.losses import column
from tfmtl.tasks.task import Task, check_by_task, check_tasks

Tensor = Any


def compile_arguments(tasks: Sequence[Task]) -> dict[str, Any]:
    """Losses, their weights and metrics of tasks, for `compile` of a stock model.

    A model of a recipe needs none of it: `model.compile("adam")`. In a Keras model of
    your own every label has to be there, NaN where it is missing.

    Args:
        tasks: Tasks of different names.

    Returns:
        `{"loss": …, "loss_weights": …, "weighted_metrics": …}`, each by task name.

    Raises:
        ValueError: If there is no task, a name occurs twice, or a label depends on
            another column, which stock Keras cannot tell. The label of a funnel's
            later step has to be 0 where the step before was not taken.

    Example:
        >>> import tfmtl
        >>> click = tfmtl.tasks.Binary("click")
        >>> tasks = [click, tfmtl.tasks.Binary("like", weight=2.0)]
        >>> tfmtl.tasks.compile_arguments(tasks)["loss_weights"]
        {'click': 1.0, 'like': 2.0}
    """
    check_tasks(tasks)
    conditional = [task.name for task in tasks if task.further_columns]
    if conditional:
        raise ValueError(
            "Tasks whose label depends on another column (`where`, `within`) should be "
            f"trained with a tfmtl.models.MultiTaskModel. Received: {conditional}"
        )
    return {
        "loss": {task.name: task.loss() for task in tasks},
        "loss_weights": {task.name: task.weight for task in tasks},
        "weighted_metrics": {
            task.name: [_labelled(task, metric) for metric in task.metrics()]
            for task in tasks
        },
    }


class Objectives:
    """What a model's tasks add to its loss, and the metrics they are followed by.

    Args:
        tasks: Tasks.
        weights: Weights of the losses by task name, in place of the tasks' own.
        metrics: Metrics by task name, in place of the tasks' own.

    Raises:
        ValueError: If a name is that of no task, a weight is not finite, or a metric is
            none of Keras.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        weights: Mapping[str, float] | None = None,
        metrics: Mapping[str, Sequence[keras.metrics.Metric]] | None = None,
    ) -> None:
        for argument, given in (("loss_weights", weights), ("metrics", metrics)):
            if given is not None:
                check_by_task(argument, given, [task.name for task in tasks])
        if not all(
            math.isfinite(number(weight)) for weight in (weights or {}).values()
        ):
            raise ValueError(
                "`loss_weights` should be finite numbers. "
                f"Received: loss_weights={weights}"
            )
        _check_metrics(metrics)
        self._tasks = tasks
        self._given = {"loss_weights": weights, "metrics": metrics}
        self.losses = {task.name: task.loss() for task in tasks}
        self.weights = {
            task.name: keras.Variable(
                (weights or {}).get(task.name, task.weight),
                trainable=False,
                dtype="float32",
                name=f"{task.name}_weight",
            )
            for task in tasks
        }
        self._means = {
            task.name: keras.metrics.Mean(f"{task.name}_loss") for task in tasks
        }
        self._metrics = {
            task.name: [
                _labelled(task, metric, f"{task.name}_{metric.name}")
                for metric in (
                    task.metrics() if metrics is None else metrics.get(task.name, ())
                )
            ]
            for task in tasks
        }
        self.training = True
        self._trained = RunningCounts(tasks)
        self._evaluated = RunningCounts(tasks)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `compile`, serialisable."""
        config: dict[str, Any] = keras.saving.serialize_keras_object(self._given)
        return config

    @property
    def variables(self) -> dict[str, keras.Variable]:
        """What training has seen of the funnels' steps, by name."""
        return self._trained.variables

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The mean loss of every task, and its metrics."""
        groups = [[self._means[name], *self._metrics[name]] for name in self._means]
        return [metric for group in groups for metric in group]

    def count(self, labels: Mapping[str, Tensor], training: bool) -> None:
        """Adds a batch to what is known of the funnels' steps, once in each step.

        The losses and metrics after it weigh by what training has seen, or by what this
        evaluation has, since other labels may be missing from its data.

        Args:
            labels: Of every task, NaN where missing.
            training: Whether this is a step of training.
        """
        self.training = training
        self._counts.update(step_counts(self._tasks, labels))

    def reset_evaluation(self) -> None:
        """Forgets what an evaluation has seen of the funnels' steps."""
        self._evaluated.reset()

    def task_losses(
        self,
        labels: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        weights: Any = None,
    ) -> dict[str, Tensor]:
        """The loss of each task, a scalar, not weighted against the others.

        Args:
            labels: Of every task, NaN where missing.
            outputs: Predictions by task name.
            weights: Of the examples, for all tasks or by task name.
        """
        rows = self._row_weights(labels, weights)
        losses = {
            name: loss(labels[name], outputs[name], rows[name])
            for name, loss in self.losses.items()
        }
        expected = self._row_weights(labels, weights, expected_weights)
        for task in self._tasks:
            if task.after is not None:
                name = task.name
                total = ops.sum(self.losses[name].weights(labels[name], rows[name]))
                mean = ops.where(ops.isnan(expected[name]), 0.0, expected[name])
                scale = _ratio(total, ops.sum(mean))
                losses[name] = losses[name] * ops.cast(scale, losses[name].dtype)
        return losses

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted losses of the tasks, `(tasks,)`."""
        return keras.ops.stack(
            [
                keras.ops.cast(self.weights[name], loss.dtype) * loss
                for name, loss in losses.items()
            ]
        )

    def follow(
        self,
        labels: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        weights: Any = None,
    ) -> None:
        """Adds a batch's losses to their means over labelled examples.

        Not from `task_losses`, which Keras divides by the number of replicas.
        """
        rows = self._row_weights(labels, weights)
        for name, loss in self.losses.items():
            values, counted = loss.per_label(labels[name], outputs[name], rows[name])
            self._means[name].update_state(values, counted)

    def measure(
        self,
        labels: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        weights: Any = None,
    ) -> None:
        """Adds a batch to the metrics."""
        rows = self._row_weights(labels, weights)
        for task in self._tasks:
            name = task.name
            for metric in self._metrics[name]:
                label = labels[name]
                if not isinstance(metric, Listwise):
                    label = label[:, : task.label_units]
                metric.update_state(label, outputs[name], rows[name])

    @property
    def _counts(self) -> RunningCounts:
        return self._trained if self.training else self._evaluated

    def _row_weights(
        self,
        labels: Mapping[str, Tensor],
        weights: Any,
        of_steps: Callable[..., dict[str, Tensor]] = step_weights,
    ) -> Any:
        """Weights of the examples by task name, `None` for 1 each."""
        by_name = dict.fromkeys(self.losses, weights)
        if isinstance(weights, Mapping):
            read = {name for task in self._tasks for name in task.further_columns}
            names = [*self.losses, *sorted(read - set(self.losses))]
            check_by_task("sample_weight", weights, names)
            by_name = {name: weights.get(name) for name in self.losses}
        counts = self._counts.of(step_counts(self._tasks, labels))
        for name, own in of_steps(self._tasks, labels, counts).items():
            given = by_name[name]
            by_name[name] = own if given is None else own * column(given)
        return by_name


def _ratio(total: Tensor, other: Tensor) -> Tensor:
    """One number over another, 0 where that is 0."""
    return ops.where(other != 0, total / ops.where(other != 0, other, 1.0), 0.0)


def _labelled(
    task: Task, metric: keras.metrics.Metric, name: str | None = None
) -> keras.metrics.Metric:
    if isinstance(metric, Listwise):
        metric = metric.metric
    if is_listwise(metric):
        _check_lists(task, metric)
        return Listwise(metric, name=name)
    per_entry = task.label_units > 1
    return Labelled(metric, task.missing, per_entry=per_entry, name=name)


def _check_lists(task: Task, metric: keras.metrics.Metric) -> None:
    if task.within is None:
        raise ValueError(
            f"`metrics` of task {task.name!r} should be of single rows, or the task a "
            f"tfmtl.tasks.Ranking, which has lists. Received: {metric.name}"
        )


def _check_metrics(metrics: Any) -> None:
    for task, given in (metrics or {}).items():
        several = given if isinstance(given, list | tuple) else [None]
        if not all(isinstance(metric, keras.metrics.Metric) for metric in several):
            raise ValueError(
                f"`metrics` should be a list of Keras metrics for task {task!r}. "
                f"Received: {given!r}"
            )
