"""What a task is: a frozen description of a label and how it is learned."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras

from tfmtl.layers.checks import number
from tfmtl.serializable import Serializable
from tfmtl.tasks.losses import LabelledLoss


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class Position(Serializable):
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
class Task(Serializable):
    """What all kinds of tasks have.

    A label is missing where it is NaN, where it equals `missing`, and where the
    column `where` is not positive; an example without label adds nothing to the
    task's loss and metrics, which are means over the others.

    Attributes:
        name: Name of the label and of the model's output.
        weight: Weight of the task's loss in the sum.
        missing: A number that stands for a missing label, beside NaN.
        where: Name of a label or input column that must be positive for the label to
            exist, as in "watch time only where clicked".
    """

    name: str
    weight: float = 1.0
    missing: float | None = None
    where: str | None = None

    after: ClassVar[str | None] = None
    within: ClassVar[str | None] = None
    position: ClassVar[Position | None] = None
    head_activation: ClassVar[Any] = None

    def __post_init__(self) -> None:
        if not math.isfinite(number(self.weight)):
            raise ValueError(
                f"`weight` of task {self.name!r} should be a finite number. "
                f"Received: weight={self.weight!r}"
            )

    @property
    def label_range(self) -> tuple[float, float]:
        """The least and the greatest value that a label may have."""
        return -math.inf, math.inf

    @property
    def further_columns(self) -> tuple[str, ...]:
        """Names of the columns that are read beside the label."""
        return tuple(filter(None, (self.where, self.within)))

    @property
    def conditional_name(self) -> str:
        """Name of the output of a funnel's step, given the step before."""
        return f"{self.name}_given_{self.after}"

    @property
    def output_units(self) -> int:
        """Width of the model's output."""
        return 1

    @property
    def label_units(self) -> int:
        """Width of the label, `(batch, label_units)`."""
        return 1

    def loss(self) -> LabelledLoss:
        """The loss, a mean over labelled examples."""
        raise NotImplementedError

    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics, each new and without state."""
        raise NotImplementedError

    def weighted(self, weight: float) -> Any:
        """This task with another weight."""
        return replace(self, weight=weight)


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raises `ValueError` unless there are tasks, each with a name of its own.

    Names become those of layers and outputs: letters, digits, `_`, `.` and `-`. A task
    that comes after another, in a funnel, stands after it in the list.
    """
    several = tasks if isinstance(tasks, list | tuple) else [None]
    if not all(isinstance(task, Task) for task in several):
        raise ValueError(
            f"`tasks` should be a list of tasks. Received: tasks={tasks!r}"
        )
    names = [task.name for task in tasks]
    names += [task.conditional_name for task in tasks if task.after is not None]
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
    for k, task in enumerate(tasks):
        binary = [t for t in tasks[:k] if t.head_activation == "sigmoid"]
        before = [t.name for t in binary if t.output_units == 1]
        if task.after is not None and task.after not in before:
            raise ValueError(
                f"Task {task.name!r} should come after a binary task that stands "
                f"before it, one of {before}. Received: after={task.after!r}"
            )


def check_by_task(argument: str, given: Any, names: Sequence[str]) -> None:
    """Raises `ValueError` unless an argument is a dict by name of tasks."""
    if isinstance(given, Mapping) and not set(given) - set(names):
        return
    received = sorted(given) if isinstance(given, Mapping) else repr(given)
    raise ValueError(
        f"`{argument}` should be a dict by task name, of {list(names)}. "
        f"Received: {argument}={received}"
    )
