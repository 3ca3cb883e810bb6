"""Do tasks fight? Cosines and norms of their gradients, while a model trains."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.balancing.partition import partition
from tfmtl.balancing.task_gradients import TaskGradients, gram_of

Tensor = Any

_OFTEN = 0.05  # share of the measurements


class ConflictMonitor(keras.callbacks.Callback):
    """Measures gradients of a model's tasks on a batch, every few steps.

    ```
    cosine of a and b    g_a · g_b / (‖g_a‖ ‖g_b‖),  on the parameters that both share
    ratio of a           ‖g_a‖ / mean of the ‖g_k‖
    a is worked against  g_a · Σ_k g_k < 0,  the plain step makes its loss larger
    ```

    A cosine below 0 says that two tasks pull what they share apart, which does little
    to gradients of equal length and much to a small one beside a large one. Where no
    task is worked against, no gradient surgery is needed: `print(monitor)` says so.
    In inference mode, on one batch that stays the same, so that a change is the
    model's; it does not change how the model trains.

    Per epoch the history has, as means over the measurements, `cosine_<a>/<b>` for
    every two tasks, `gradient_norm_<task>` and `gradient_ratio_<task>`.
    `tfmtl.report.heat_map(monitor.cosines, monitor.tasks, "cosines.png")` draws them.

    Args:
        batch: `(columns, labels)` or `(columns, labels, sample_weight)`, as a dataset
            gives them: the first batch of one will do. Tasks without a label in it have
            norm 0 and cosine 0.
        every: Number of steps between two measurements, which wait for the end of an
            execution of `steps_per_execution`. Defaults to 100. One costs about as much
            as the step of a gradient surgery.
        log_dir: Folder for TensorBoard. Defaults to `None`, nothing written.

    Attributes:
        tasks: Names of the tasks.
        steps: Steps after which there was a measurement.
        cosines: Cosines, `(measurements, T, T)`.
        norms: Norms, `(measurements, T)`.
        worked_against: By task, the share of the measurements in which it was.

    Raises:
        ValueError: If `every` is no positive integer, the model is no MultiTaskModel
            that trains on its tasks' losses, or these share nothing.

    Example:
        `model.fit(data, callbacks=[ConflictMonitor(next(iter(data)), every=50)])`
    """

    def __init__(
        self, batch: Sequence[Any], every: int = 100, log_dir: str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"`every` should be a positive integer. Received: every={every!r}"
            )
        self.batch = tuple(batch)
        self.every = every
        self.log_dir = log_dir
        self.tasks: list[str] = []
        self.steps: list[int] = []
        self._cosines: list[np.ndarray] = []
        self._norms: list[np.ndarray] = []
        self._first_of_epoch = 0
        self._step = self._steps_before = 0

    @property
    def cosines(self) -> np.ndarray:
        """Cosines, `(measurements, T, T)`."""
        return np.array(self._cosines)

    @property
    def norms(self) -> np.ndarray:
        """Norms, `(measurements, T)`."""
        return np.array(self._norms)

    @property
    def worked_against(self) -> dict[str, float]:
        """By task, the share of measurements in which the plain step is uphill."""
        slopes = np.einsum("mij,mj->mi", self.cosines, self.norms)
        shares = (slopes < 0).mean(axis=0)
        return dict(zip(self.tasks, shares.tolist(), strict=True))

    def __str__(self) -> str:
        if not self.steps:
            return "not measured yet"
        cosines, ratios = self.cosines, _ratios(self.norms).mean(axis=0)
        lines = [
            f"{a}, {b}: mean cosine {cosines[:, i, j].mean():.2f}, "
            f"below 0 in {(cosines[:, i, j] < 0).mean():.0%} of the measurements"
            for i, j, a, b in _pairs(self.tasks)
        ]
        against = self.worked_against
        lines += [
            f"{task}: {ratio:.2g} × the mean norm, worked against in {share:.0%}"
            for (task, share), ratio in zip(against.items(), ratios, strict=True)
        ]
        some = [task for task, share in against.items() if share > _OFTEN]
        verdict = (
            f"The plain step works against {', '.join(some)}: surgery may help."
            if some
            else "The plain step works against no task: surgery is not needed."
        )
        return "\n".join([*lines, verdict])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds out what the tasks share."""
        if not getattr(self.model, "task_weights", None):
            raise ValueError(
                "ConflictMonitor should be used with a MultiTaskModel that trains on "
                f"the losses of its tasks. Received: model={self.model.name!r}"
            )
        self.tasks = [task.name for task in self.model.tasks]
        parts = partition(self.model, self.tasks)
        if not parts.shared:
            raise ValueError(
                "ConflictMonitor should be used where tasks share trainable "
                f"parameters. Received: none shared by the tasks {self.tasks}"
            )
        gradients, losses_on = TaskGradients(self.model, parts), self.model.losses_on

        @tf.function
        def measure(x: Any, y: Any, sample_weight: Any = None) -> Tensor:
            with tf.GradientTape(persistent=True) as tape:
                outputs, frontier = gradients.forward(x, training=False)
                losses = losses_on(x, y, outputs, sample_weight)
            cotangents, _ = gradients.of_towers(tape, losses, frontier)
            return gram_of(gradients.by_task(tape, frontier, cotangents).values())

        self._measure = measure
        self._writer = None
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's means."""
        self._first_of_epoch = len(self.steps)
        self._steps_before = self._step

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Measures, where it is time."""
        before, self._step = self._step, self._steps_before + batch + 1
        if self._step // self.every > before // self.every:
            self._add()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch's means into the history."""
        if len(self.steps) == self._first_of_epoch:
            self._add()
        cosines = self.cosines[self._first_of_epoch :].mean(axis=0)
        norms = self.norms[self._first_of_epoch :].mean(axis=0)
        ratios = _ratios(self.norms[self._first_of_epoch :]).mean(axis=0)
        found = {
            f"cosine_{a}/{b}": float(cosines[i, j]) for i, j, a, b in _pairs(self.tasks)
        }
        for task, norm, ratio in zip(self.tasks, norms, ratios, strict=True):
            found[f"gradient_norm_{task}"] = float(norm)
            found[f"gradient_ratio_{task}"] = float(ratio)
        if logs is not None:
            logs.update(found)
        if self._writer is not None:
            summary = tf.compat.v1.Summary()  # `tf.summary.scalar` needs TensorBoard
            for name, value in found.items():
                summary.value.add(tag=name, simple_value=value)
            with self._writer.as_default():
                tf.summary.experimental.write_raw_pb(summary.SerializeToString(), epoch)
            self._writer.flush()

    def _add(self) -> None:
        gram = self._measure(*self.batch).numpy()
        norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
        scale = np.where(norms > 0, norms, np.inf)
        self.steps.append(self._step)
        self._norms.append(norms)
        self._cosines.append(np.clip(gram / np.outer(scale, scale), -1, 1))


def _pairs(tasks: Sequence[str]) -> list[tuple[int, int, str, str]]:
    """Positions and names of every two tasks."""
    named = list(enumerate(tasks))
    return [(i, j, a, b) for (i, a), (j, b) in combinations(named, 2)]


def _ratios(norms: np.ndarray) -> np.ndarray:
    """Norms `(measurements, T)` ÷ their mean over the tasks."""
    means = norms.mean(axis=1, keepdims=True)
    return norms / np.where(means > 0, means, 1.0)
