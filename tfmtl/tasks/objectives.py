"""Losses and metrics of tasks together."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfmtl.metrics import Labelled, Listwise
from tfmtl.metrics.listwise import is_listwise
from tfmtl.tasks.labels import step_weights
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
        ValueError: If a name is that of no task, or a metric is none of Keras.
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

    def get_config(self) -> dict[str, Any]:
        """Arguments of `compile`, serialisable."""
        config: dict[str, Any] = keras.saving.serialize_keras_object(self._given)
        return config

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The mean loss of every task, and its metrics."""
        groups = [[self._means[name], *self._metrics[name]] for name in self._means]
        return [metric for group in groups for metric in group]

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
        return {
            name: loss(labels[name], outputs[name], rows[name])
            for name, loss in self.losses.items()
        }

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

    def _row_weights(self, labels: Mapping[str, Tensor], weights: Any) -> Any:
        """Weights of the examples by task name, `None` for 1 each."""
        by_name = dict.fromkeys(self.losses, weights)
        if isinstance(weights, Mapping):
            read = {name for task in self._tasks for name in task.further_columns}
            names = [*self.losses, *sorted(read - set(self.losses))]
            check_by_task("sample_weight", weights, names)
            by_name = {name: weights.get(name) for name in self.losses}
        for name, own in step_weights(self._tasks, labels).items():
            given = by_name[name]
            by_name[name] = own if given is None else own * column(given)
        return by_name


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
