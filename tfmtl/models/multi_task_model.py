"""A Functional model that knows its tasks and trains on their labels."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tfmtl.balancing.balancer import Balancer, EndOfEpoch
from tfmtl.features import check_columns
from tfmtl.features.columns import column_kind
from tfmtl.layers.gates import without_decay_of_gates
from tfmtl.models.sources import (
    check_first,
    each_checked,
    readable,
    with_labels_in_range,
)
from tfmtl.tasks.arrays import check_arrays, row_weights
from tfmtl.tasks.labels import complete_labels
from tfmtl.tasks.objectives import Objectives
from tfmtl.tasks.task import Task, check_tasks

Tensor = Any

_BALANCING = "balancing_"  # before the names of what balancing remembers, in a file
_FUNNELS = "funnels_"  # and before those of what training has seen of funnels


@keras.saving.register_keras_serializable(package="tfmtl")
class MultiTaskModel(keras.Model):
    """A Functional model with a dict of outputs, some of which are tasks.

    `compile` needs no losses: those of the tasks are used, with their metrics.

    ```
    loss = sum_k w_k mean of L_k over the examples that have label k  +  penalties
    ```

    Labels are given by task name. One may be NaN or a task's `missing` in some
    examples, or be left out of a batch altogether; its task then has loss 0 and no
    gradient, and its metrics stay. Sample weights are for all tasks, `(batch,)`, or a
    dict by task name. The progress bar and the history show `<task>_loss`, a mean
    over labelled examples, and `<task>_<metric>`.

    Recipes return this class. It is an ordinary Keras model otherwise: it saves,
    clones, trains with losses of your own (`compile(loss=…)`), folds and exports.
    `keras.models.clone_model` gives the clone of a compiled model its tasks; one that
    is not compiled is cloned, tasks included, by `from_config(model.get_config())`.

    Args:
        inputs: Dict of symbolic inputs by column.
        outputs: Dict of symbolic outputs by name, with one for each task.
        name: Name of the model.
        **kwargs: `tasks`, a list of tasks, and `trainable`.

    Raises:
        ValueError: If a task has no output.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.Input((3,), name="x")
        >>> click = keras.layers.Dense(1, "sigmoid")(x)
        >>> tasks = [tfmtl.tasks.Binary("click")]
        >>> model = tfmtl.models.MultiTaskModel({"x": x}, {"click": click}, tasks=tasks)
        >>> model.compile("adam")
        >>> y = {"click": keras.ops.array([1.0, float("nan")])}
        >>> history = model.fit({"x": keras.ops.ones((2, 3))}, y, verbose=0)
        >>> sorted(history.history)
        ['click_auc', 'click_calibration', 'click_loss', 'loss']
    """

    _objectives: Any = None  # Objectives, of a model compiled without losses
    _balancer: Balancer | None = None
    _sparsity: Sequence[keras.callbacks.Callback] = ()

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any
    ) -> None:
        tasks = tuple(kwargs.pop("tasks", ()))
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self._tasks = tasks
        if not tasks:  # a clone, which Keras makes without them
            return
        check_tasks(tasks)
        names = sorted(outputs) if isinstance(outputs, Mapping) else outputs
        if names is outputs or not {task.name for task in tasks} <= set(names):
            raise ValueError(
                "`outputs` should be a dict with one for each task, of "
                f"{[task.name for task in tasks]}. Received: outputs={names}"
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks."""
        return self._tasks

    @property
    def task_weights(self) -> dict[str, keras.Variable]:
        """Weights of the tasks' losses by name, as variables; of a compiled model."""
        return {} if self._objectives is None else self._objectives.weights

    def of_graph(self, inputs: Any, outputs: Any, name: str) -> "MultiTaskModel":
        """The model of another graph, as a fold makes it, for the tasks that it has.

        A step of a funnel comes after the nearest step before it that is a task still;
        it is over all exposures in any case.
        """
        after = {task.name: task.after for task in self._tasks}
        kept = []
        for task in self._tasks:
            if task.name not in outputs:
                continue
            before = task.after
            while before is not None and before not in outputs:
                before = after[before]
            kept.append(task if before == task.after else replace(task, after=before))
        return type(self)(inputs, outputs, name=name, tasks=kept)

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        balancing: Any = None,
        shared: Sequence[str] | None = None,
        sparsity: Any = None,
        **kwargs: Any,
    ) -> None:
        """Sets how the model trains.

        Args:
            optimizer: Keras optimizer or its name.
            loss: Keras losses, in place of those of the tasks. Defaults to `None`,
                the tasks' own; the next two arguments are then by task name.
            loss_weights: Weights of the losses. Defaults to those of the tasks.
            metrics: Metrics. Defaults to those of the tasks; `{}` for none.
            weighted_metrics: Metrics that take sample weights; only with `loss`,
                since all metrics of tasks do.
            balancing: How tasks are kept from fighting: a method of gradient surgery
                of `tfmtl.balancing`, a rule of loss weighting, or a list of one of
                each. Defaults to `None`, the plain sum. On TensorFlow. An optimizer
                that accumulates gradients gets the mean of what surgery makes of each
                batch, not surgery of the mean.
            shared: Names of the layers whose gradients surgery looks at. Defaults to
                `None`, all that two or more tasks reach.
            sparsity: How gates are closed: a `tfmtl.sparsity.Target`, an `L0Ramp`, or
                a list of several, for layers of their own. They end after the
                callbacks given to `fit`, which may restore weights. Defaults to
                `None`, no pressure beyond the gates' own `l0`. No weight decay applies
                to gates, unless the optimizer is built already.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: If there is neither a loss nor a task, a name is that of no
                task, or the tasks cannot be balanced.
        """
        self._objectives = self._balancer = None
        self._sparsity = _callbacks("sparsity", sparsity)
        optimizer = without_decay_of_gates(self, keras.optimizers.get(optimizer))
        if loss is not None and balancing is not None:
            raise ValueError(
                "`balancing` should be given without `loss`, for the losses of tasks. "
                f"Received: loss={loss!r}"
            )
        if loss is not None:
            given = (loss_weights, metrics, weighted_metrics)
            super().compile(optimizer, loss, *given, **kwargs)
            return
        if not self._tasks:
            raise ValueError(
                "`loss` should be given for a model without tasks, such as a clone of "
                "one not compiled; MultiTaskModel(clone.input, clone.output, tasks=…) "
                "has them. "
                "Received: loss=None"
            )
        if weighted_metrics is not None:
            raise ValueError(
                "`weighted_metrics` should be given with `loss` only; `metrics` of "
                f"tasks take weights. Received: weighted_metrics={weighted_metrics!r}"
            )
        super().compile(optimizer, **kwargs)
        self._objectives = Objectives(self._tasks, loss_weights, metrics)
        self._balanced_by = {"balancing": balancing, "shared": shared}
        if balancing is not None:
            names = [task.name for task in self._tasks]
            self._balancer = Balancer(self, names, balancing, shared)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of a Keras model; columns and labels that do not fit are named.

        With arrays `sample_weight` may have some of the tasks, the others' being 1,
        and `class_weight` is `{task: {value of its label: weight}}`.
        """
        fit = super().fit
        given = inspect.signature(fit).bind(x, *args, **kwargs).arguments
        given = self._of_arrays(given)
        validation = given.get("validation_data")
        if isinstance(validation, tuple):
            names = ("x", "y", "sample_weight")
            of_arrays = self._of_arrays(dict(zip(names, validation, strict=False)))
            given["validation_data"] = tuple(of_arrays.values())
        elif validation is not None:
            given["validation_data"] = self._of_arrays({"x": validation})["x"]
        added = []
        if self._balancer is not None and self._balancer.needs_epochs:
            added.append(EndOfEpoch(self._balancer))
        if added or self._sparsity:
            callbacks = filter(None, keras.tree.flatten(given.get("callbacks")))
            started = map(_Unended, self._sparsity)
            ended = [
                keras.callbacks.LambdaCallback(on_train_end=callback.on_train_end)
                for callback in self._sparsity
            ]
            given["callbacks"] = [*started, *added, *callbacks, *ended]
        return fit(**given)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of a Keras model; columns and labels that do not fit are named."""
        evaluate = super().evaluate
        given = inspect.signature(evaluate).bind(x, *args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        if not given.get("_use_cached_eval_dataset"):  # which `fit` has checked
            given = self._of_arrays(given)
        return evaluate(**given)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As of a Keras model; columns that do not fit are named."""
        return super().predict(self._source(x, labelled=False), *args, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As of a Keras model; columns that do not fit are named."""
        if isinstance(inputs, Mapping) and isinstance(self.input, Mapping):
            check_columns(_castable(self.input), inputs)
        return super().__call__(inputs, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of a Keras model; columns and labels that do not fit are named."""
        self._check_labels(y)
        return super().train_on_batch(self._columns(x), y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of a Keras model; columns and labels that do not fit are named."""
        self._check_labels(y)
        return super().test_on_batch(self._columns(x), y, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """As of a Keras model; columns that do not fit are named."""
        return super().predict_on_batch(self._columns(x))

    def losses_on(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None
    ) -> list[Tensor]:
        """The weighted loss of each task on a batch; of a compiled model.

        Args:
            x: Columns.
            y: Labels.
            outputs: Predictions by task name.
            sample_weight: Weights of the examples, for all tasks or by task name.
        """
        labels = complete_labels(self._tasks, y, x, outputs)
        self._objectives.training = True  # though the step before was an evaluation's
        losses = self._objectives.task_losses(labels, outputs, sample_weight)
        weights = self._objectives.weights
        return [
            keras.ops.cast(weights[name].value, loss.dtype) * loss
            for name, loss in losses.items()
        ]

    def train_step(self, *args: Any) -> Any:
        """As of a Keras model, or with balanced tasks."""
        try:
            if self._balancer is None:
                return super().train_step(*args)
            return self._balanced_step(self._balancer, *args)
        except ValueError:
            self.train_function = None  # TensorFlow lets it make no variables again
            raise

    def _balanced_step(self, balancer: Balancer, *args: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(*args)
        self._check_columns(x)
        column = keras.tree.flatten(x)[0]  # of as many rows as the outputs to come
        labels = complete_labels(self._tasks, y, x, dict.fromkeys(self.output, column))
        self._objectives.count(labels, training=True)
        outputs, loss = balancer.step(
            self, x, lambda outputs: self.losses_on(x, y, outputs, sample_weight)
        )
        self._objectives.follow(labels, outputs, sample_weight)
        rows = keras.ops.shape(next(iter(outputs.values())))[0]
        self._mean_loss.update_state(loss, sample_weight=rows)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The weighted sum of the tasks' losses, and the layers' penalties."""
        if self._objectives is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        labels = complete_labels(self._tasks, y, x, y_pred)
        self._objectives.count(labels, training)
        losses = self._objectives.task_losses(labels, y_pred, sample_weight)
        self._objectives.follow(labels, y_pred, sample_weight)
        total = keras.ops.sum(self._objectives.weighted(losses))
        if not self.losses:
            return total
        return total + keras.ops.cast(super().compute_loss(), total.dtype)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics and returns all of them by name."""
        if self._objectives is None:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        labels = complete_labels(self._tasks, y, x, y_pred)
        self._objectives.measure(labels, y_pred, sample_weight)
        return self.get_metrics_result()

    def reset_metrics(self) -> None:
        """Resets the metrics, and what they know of an evaluation's funnels."""
        super().reset_metrics()
        if self._objectives is not None:
            self._objectives.reset_evaluation()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Loss and metrics, those of the tasks included."""
        own = [] if self._objectives is None else self._objectives.metrics
        return [*super().metrics, *own]

    @property
    def _mean_loss(self) -> keras.metrics.Metric:
        return next(metric for metric in self.metrics if metric.name == "loss")

    def get_compile_config(self) -> dict[str, Any]:
        """Arguments of `compile`, serialisable."""
        config = super().get_compile_config()
        if not self.compiled:
            return config
        sparsity = keras.saving.serialize_keras_object(list(self._sparsity))
        config["sparsity"] = sparsity
        if self._objectives is None:
            return config
        balanced = keras.saving.serialize_keras_object(dict(self._balanced_by))
        tasks = {"tasks": self._serialized_tasks()}  # Keras clones models without
        return {**config, **self._objectives.get_config(), **balanced, **tasks}

    def save_own_variables(self, store: Any) -> None:
        """Saves, beside the layers, what balancing and funnels remember."""
        super().save_own_variables(store)
        for name, variable in self._remembered.items():
            store[name] = variable

    def load_own_variables(self, store: Any) -> None:
        """Loads, beside the layers, what these remember, where it is there."""
        saved = {name: store[name] for name in store.keys()}
        for name, variable in self._remembered.items():
            if name in saved:
                variable.assign(saved[name])
        others = (_BALANCING, _FUNNELS)
        own = {n: v for n, v in saved.items() if not n.startswith(others)}
        super().load_own_variables(own)

    @property
    def _remembered(self) -> dict[str, keras.Variable]:
        return {
            f"{prefix}{name}": variable
            for prefix, owner in (
                (_BALANCING, self._balancer),
                (_FUNNELS, self._objectives),
            )
            if owner is not None
            for name, variable in owner.variables.items()
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with the arguments of `get_compile_config`, for its tasks."""
        arguments = keras.saving.deserialize_keras_object(config)
        tasks = arguments.pop("tasks", ())
        self._tasks = self._tasks or tuple(tasks)
        if self._tasks or arguments.get("loss") is not None:
            self.compile(**arguments)
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """Graph and tasks, serialisable."""
        return {**super().get_config(), "tasks": self._serialized_tasks()}

    def _serialized_tasks(self) -> Any:
        return keras.saving.serialize_keras_object(list(self._tasks))

    def _of_arrays(self, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `fit`, their columns and labels checked, weights as of Keras."""
        x, y = self._source(given.get("x")), given.get("y")
        weights = given.get("sample_weight"), given.get("class_weight")
        if self._objectives is None:
            return {**given, "x": x}
        self._check_labels(y)
        if y is not None:
            by_row = row_weights(self._tasks, x, y, *weights)
            rest = {
                name: value for name, value in given.items() if name != "class_weight"
            }
            return {**rest, "x": x, "sample_weight": by_row}
        if weights[1] and len(self._tasks) > 1:
            raise ValueError(
                "`class_weight` should be given with arrays of labels; a dataset may "
                "have weights by task name as the third element of its batches. "
                f"Received: class_weight={weights[1]!r}"
            )
        return {**given, "x": x}

    def _source(self, x: Any, labelled: bool = True) -> Any:
        """Columns or batches, checked; the labels too where tasks train on them."""
        labelled = labelled and self._objectives is not None
        check_labels = self._check_labels if labelled else None
        if isinstance(x, keras.utils.PyDataset):
            check_first(x, self._columns, check_labels)
        elif isinstance(x, Iterator) and not hasattr(x, "element_spec"):
            return each_checked(x, self._columns, check_labels)
        x = self._columns(x)
        if labelled and isinstance(x, tf.data.Dataset):
            return with_labels_in_range(self._tasks, x)
        return x

    def _check_labels(self, y: Any) -> None:
        if self._objectives is not None and y is not None:
            check_arrays(self._tasks, y)

    def _check_columns(self, x: Any) -> None:
        if isinstance(x, Mapping) and isinstance(self.input, Mapping):
            check_columns(self.input, x)

    def _columns(self, x: Any) -> Any:
        """Checks columns, or what a dataset says of them; strings become tensors."""
        columns = getattr(x, "element_spec", x)
        if isinstance(columns, tuple) and columns:
            columns = columns[0]
        self._check_columns(columns)
        if columns is not x or not isinstance(x, Mapping):
            return x
        return {name: readable(name, column) for name, column in x.items()}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> "MultiTaskModel":
        """The model of `get_config`."""
        graph = {key: value for key, value in config.items() if key != "tasks"}
        model = super().from_config(graph, custom_objects)
        model._tasks = tuple(_deserialized(config.get("tasks", ()), custom_objects))
        return model


def _castable(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of numbers instead of integers, which a call makes of them."""
    return {
        name: keras.KerasTensor(tensor.shape, "float32")
        if column_kind(tensor.dtype) == "int"
        else tensor
        for name, tensor in inputs.items()
    }


def _callbacks(name: str, given: Any) -> list[keras.callbacks.Callback]:
    several = given if isinstance(given, list | tuple) else [given]
    found = [callback for callback in several if callback is not None]
    if not all(isinstance(callback, keras.callbacks.Callback) for callback in found):
        raise ValueError(
            f"`{name}` should be a Target, an L0Ramp, or a list of these. "
            f"Received: {name}={given!r}"
        )
    return found


class _Unended:
    """A callback, but for what it does at the end of training."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        self._callback = callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Does nothing."""


def _deserialized(tasks: Any, custom_objects: Any) -> Sequence[Task]:
    found: Any = keras.saving.deserialize_keras_object(tasks, custom_objects)
    return found
