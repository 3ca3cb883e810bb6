"""Do tasks fight? Cosines and norms of their gradients, while a model trains."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.balancing.partition import partition
from tfmtl.balancing.task_gradients import TaskGradients, gram_of

Tensor = Any


class ConflictMonitor(keras.callbacks.Callback):
    """Measures gradients of a model's tasks on a batch, every few steps.

    ```
    cosine of a and b    g_a · g_b / (‖g_a‖ ‖g_b‖),  on the parameters that both share
    ```

    Below 0 two tasks pull what they share apart. Where no cosine stays below 0, no
    gradient surgery is needed. In inference mode, on one batch that stays the same, so
    that a change is the model's; it does not change how the model trains.

    Per epoch the history has, as means over the measurements, `cosine_<a>_<b>` for
    every two tasks and `gradient_norm_<task>`.

    Args:
        batch: `(columns, labels)`, as a dataset gives them: the first batch of one will
            do. Tasks without a label in it have norm 0 and cosine 0.
        every: Number of steps between two measurements. Defaults to 100. One costs
            about as much as the step of a gradient surgery.
        log_dir: Folder for TensorBoard. Defaults to `None`, nothing written.

    Attributes:
        steps: Steps after which there was a measurement.
        cosines: Cosines, `(measurements, T, T)`.
        norms: Norms, `(measurements, T)`.

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
        self._step = 0

    @property
    def cosines(self) -> np.ndarray:
        """Cosines, `(measurements, T, T)`."""
        return np.array(self._cosines)

    @property
    def norms(self) -> np.ndarray:
        """Norms, `(measurements, T)`."""
        return np.array(self._norms)

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
        def measure(x: Any, y: Any) -> Tensor:
            with tf.GradientTape(persistent=True) as tape:
                outputs, frontier = gradients.forward(x, training=False)
                losses = losses_on(x, y, outputs)
            cotangents, _ = gradients.of_towers(tape, losses, frontier)
            return gram_of(gradients.by_task(tape, frontier, cotangents).values())

        self._measure = measure
        self._writer = None
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's means."""
        self._first_of_epoch = len(self.steps)

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Measures, where it is time."""
        self._step += 1
        if self._step % self.every == 0:
            self._add()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch's means into the history."""
        if len(self.steps) == self._first_of_epoch:
            self._add()
        cosines = self.cosines[self._first_of_epoch :].mean(axis=0)
        norms = self.norms[self._first_of_epoch :].mean(axis=0)
        found = {
            f"cosine_{a}_{b}": float(cosines[i, j])
            for i, a in enumerate(self.tasks)
            for j, b in enumerate(self.tasks)
            if i < j
        }
        found |= {
            f"gradient_norm_{task}": float(norm)
            for task, norm in zip(self.tasks, norms, strict=True)
        }
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
        gram = self._measure(*self.batch[:2]).numpy().astype("f8")
        norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
        scale = np.where(norms > 0, norms, np.inf)
        self.steps.append(self._step)
        self._norms.append(norms)
        self._cosines.append(np.clip(gram / np.outer(scale, scale), -1, 1))
