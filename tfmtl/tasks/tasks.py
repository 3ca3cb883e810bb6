"""Tasks as frozen descriptions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras


@dataclass(frozen=True)
class Position:
    """The column that says at which position an item was shown.

    Attributes:
        column: Name of the column: integers from 0 on, any other is missing.
        num_positions: Number of positions.
        dropout: Share of examples whose position is taken as missing in training.

    Example:
        >>> import tfmtl
        >>> shown_at = tfmtl.tasks.Position("shown_at", num_positions=20)
        >>> tfmtl.tasks.Binary("click", position=shown_at).position.dropout
        0.1
    """

    column: str
    num_positions: int
    dropout: float = 0.1


@dataclass(frozen=True)
class Binary:
    """A yes/no task: sigmoid head, cross-entropy, AUC.

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.
        position: Where the item was shown; its effect is learned apart and taken
            out when serving. `None` where it does not matter.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.Binary("click").head_activation
        'sigmoid'
    """

    name: str
    weight: float = 1.0
    position: Position | None = None

    output_units: ClassVar[int] = 1
    head_activation: ClassVar[str | None] = "sigmoid"

    def loss(self) -> keras.losses.Loss:
        """Mean cross-entropy of the predicted probability."""
        return keras.losses.BinaryCrossentropy(name=f"{self.name}_loss")

    def metrics(self) -> list[keras.metrics.Metric]:
        """AUC, from 1,000 thresholds."""
        return [keras.metrics.AUC(num_thresholds=1000, name="auc")]


@dataclass(frozen=True)
class Regression:
    """A real-valued task: linear head, squared error, RMSE.

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.

    Example:
        >>> import tfmtl
        >>> tfmtl.tasks.Regression("watch_time").output_units
        1
    """

    name: str
    weight: float = 1.0

    position: ClassVar[None] = None
    output_units: ClassVar[int] = 1
    head_activation: ClassVar[str | None] = None

    def loss(self) -> keras.losses.Loss:
        """Mean squared error."""
        return keras.losses.MeanSquaredError(name=f"{self.name}_loss")

    def metrics(self) -> list[keras.metrics.Metric]:
        """Root mean squared error."""
        return [keras.metrics.RootMeanSquaredError(name="rmse")]


Task = Binary | Regression


def compile_arguments(tasks: Sequence[Task]) -> dict[str, Any]:
    """Losses, their weights and metrics of tasks, for `model.compile`.

    Args:
        tasks: Tasks of different names.

    Returns:
        `{"loss": …, "loss_weights": …, "metrics": …}`, each by task name.

    Raises:
        ValueError: If there is no task or a name occurs twice.

    Example:
        >>> import tfmtl
        >>> click = tfmtl.tasks.Binary("click")
        >>> tasks = [click, tfmtl.tasks.Binary("like", weight=2.0)]
        >>> tfmtl.tasks.compile_arguments(tasks)["loss_weights"]
        {'click': 1.0, 'like': 2.0}
    """
    check_tasks(tasks)
    return {
        "loss": {task.name: task.loss() for task in tasks},
        "loss_weights": {task.name: task.weight for task in tasks},
        "metrics": {task.name: task.metrics() for task in tasks},
    }


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raises `ValueError` unless there are tasks, each with a name of its own.

    Names become those of layers and outputs: letters, digits, `_`, `.` and `-`.
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "`tasks` should be one or more tasks of different names. "
            f"Received: names={names}"
        )
    unfit = [name for name in names if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)]
    if unfit:
        raise ValueError(
            "Names of `tasks` should start with a letter or digit and hold letters, "
            f"digits, '_', '.' and '-' only. Received: {unfit}"
        )
