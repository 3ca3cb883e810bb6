"""Training on what another model says, beside the labels."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
from keras import ops

from tfmtl.models import MultiTaskModel
from tfmtl.tasks.task import Task, check_by_task

Tensor = Any

_LEAST = 1e-7


def distil(
    student: MultiTaskModel,
    teacher: keras.Model,
    weight: float | Mapping[str, float] = 1.0,
) -> MultiTaskModel:
    """A model that trains another one on a teacher's outputs, beside its labels.

    ```
    loss = sum_k w_k L_k(y_k, p_k) + sum_k d_k mean D_k(q_k, p_k)
    D(q, p) = - q log p - (1 - q) log(1 - p)      of probabilities
    D(q, p) = - sum_c q_c log p_c                 of classes
    D(q, p) = (log q - log p)^2                   of positive numbers
    D(q, p) = (q - p)^2                           of other numbers
    ```

    q are the teacher's outputs, p the student's, on every example: also on those that
    lack a label of the task. A task whose labels are left out learns from the teacher
    alone. Sample weights are for the labels only.

    The model returned has the layers of the student, which is trained with it, and is
    compiled and fitted in its place: `distil(student, teacher)`, `compile`, `fit`, then
    save, fold or export the `student`.

    Args:
        student: The model to train.
        teacher: A model with outputs of the same names, such as the previous version,
            or what `keras.saving.load_model` or `fold` gives. It is not changed. It may
            read columns that the student does not.
        weight: d, for all tasks that both have, or by task. Defaults to 1.

    Returns:
        The model to train. Its teacher is not saved: save the student.

    Raises:
        ValueError: If a task is not an output of both, of the same shape, or a weight
            is not positive.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> teacher = tfmtl.models.mmoe([x], tasks)
        >>> student = tfmtl.models.shared_bottom([x], tasks, bottom=[8])
        >>> training = tfmtl.finetuning.distil(student, teacher, {"click": 0.5})
        >>> training.compile("adam")
        >>> training.count_params() == student.count_params()
        True

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, at
    temperature 1.
    """
    weights = _weights(student, teacher, weight)
    shapes = {name: (tuple(teacher.output[name].shape[1:])) for name in weights}
    own = {name: tuple(student.output[name].shape[1:]) for name in weights}
    if shapes != own:
        raise ValueError(
            "`teacher` should have outputs of the student's shapes. "
            f"Received: student={own}, teacher={shapes}"
        )
    inputs = dict(student.input)
    for name, column in teacher.input.items():
        if name not in inputs:
            inputs[name] = keras.Input(column.shape[1:], name=name, dtype=column.dtype)
    read = {name: inputs[name] for name in teacher.input}
    scores = Teacher(teacher, [*weights], name="teacher")(read)
    outputs = dict(student.output)
    of_name = {task.name: task for task in student.tasks}
    for name, own_weight in weights.items():
        loss = DistillationLoss(
            own_weight,
            _divergence(of_name[name]),
            name=f"{name}_distilled",
            dtype=outputs[name].dtype,
        )
        outputs[name] = loss([outputs[name], scores[name]])
    return MultiTaskModel(inputs, outputs, name=student.name, tasks=student.tasks)


class Teacher(keras.layers.Layer):
    """The outputs of a model that is no part of the model it is called in.

    Its weights are not those of the layer: they are not trained, counted or saved.

    Args:
        model: The model.
        names: Which of its outputs to give.
        **kwargs: `name`.
    """

    def __init__(self, model: keras.Model, names: list[str], **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self._shapes = {name: tuple(model.output[name].shape[1:]) for name in names}
        # a function, since Keras would track a model
        self._score: Callable[[Any], Any] = partial(_scores, (lambda: model), names)

    def call(self, inputs: Any) -> dict[str, Tensor]:
        """Returns the model's outputs in inference, by name."""
        return self._score(inputs)

    def compute_output_spec(self, inputs: Any) -> Any:
        """`(batch, …)` by name."""
        batch = keras.tree.flatten(inputs)[0].shape[0]
        return {
            name: keras.KerasTensor((batch, *shape), self.compute_dtype)
            for name, shape in self._shapes.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Raises `NotImplementedError`: a teacher is not saved."""
        raise NotImplementedError(
            "A model that distils is not saved, since its teacher is no part of it: "
            "save the student."
        )


@keras.saving.register_keras_serializable(package="tfmtl")
class DistillationLoss(keras.layers.Layer):
    """Passes a task's output on, and adds its distance from a teacher's to the loss.

    ```
    input [p, q], output p;   in training: loss + weight mean D(q, p)
    ```

    Args:
        weight: Weight of the distance.
        divergence: `"probability"`, `"classes"`, `"positive"` or `"number"`: which D,
            see `distil`.
        **kwargs: `name`, `dtype`.
    """

    def __init__(self, weight: float, divergence: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = weight
        self.divergence = divergence

    def call(self, inputs: Any, training: bool | None = None) -> Tensor:
        """Returns the output."""
        p, q = inputs
        if training:
            q = ops.stop_gradient(ops.cast(q, p.dtype))
            self.add_loss(self.weight * ops.mean(_DIVERGENCES[self.divergence](q, p)))
        return p

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Of the output."""
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        own = {"weight": self.weight, "divergence": self.divergence}
        return {**super().get_config(), **own}


def _of_probabilities(q: Tensor, p: Tensor) -> Tensor:
    p = ops.clip(p, _LEAST, 1 - _LEAST)
    return -q * ops.log(p) - (1 - q) * ops.log(1 - p)


def _of_classes(q: Tensor, p: Tensor) -> Tensor:
    return -ops.sum(q * ops.log(ops.maximum(p, _LEAST)), axis=-1)


def _of_positive(q: Tensor, p: Tensor) -> Tensor:
    return ops.square(ops.log(ops.maximum(q, _LEAST)) - ops.log(ops.maximum(p, _LEAST)))


_DIVERGENCES = {
    "probability": _of_probabilities,
    "classes": _of_classes,
    "positive": _of_positive,
    "number": lambda q, p: ops.square(q - p),
}


def _divergence(task: Task) -> str:
    if task.head_activation == "softmax":
        return "classes"
    if task.head_activation is None:
        return "number"
    # heads of probabilities have labels or levels, those of positive numbers no bound
    is_probability = task.label_range[1] < float("inf")
    return "probability" if is_probability else "positive"


def _scores(model: Callable[[], Any], names: list[str], inputs: Any) -> Any:
    outputs = model()(inputs, training=False)
    return {name: outputs[name] for name in names}


def _weights(student: Any, teacher: Any, given: Any) -> dict[str, float]:
    both = [task.name for task in student.tasks if task.name in teacher.output]
    if isinstance(given, Mapping):
        check_by_task("weight", given, both)
    weights = dict(given) if isinstance(given, Mapping) else dict.fromkeys(both, given)
    if not weights or not all(value > 0 for value in weights.values()):
        raise ValueError(
            "`weight` should be greater than 0, for tasks that student and teacher "
            f"have, {both}. Received: weight={given!r}"
        )
    return weights
