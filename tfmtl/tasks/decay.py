"""Weights of tasks that fall from epoch to epoch."""

import math
from collections.abc import Mapping
from typing import Any

import keras


class DecayingWeights(keras.callbacks.Callback):
    """Multiplies the weights of tasks by a factor in every epoch.

    ```
    w_k(t) = w_k(0) gamma_k^t,  t the epoch
    ```

    It follows from the epoch's number and the weights of `compile` alone, so that
    `fit` with `initial_epoch` resumes where it was, also after an interrupt. For models
    of the recipes; on JAX, whose steps take no note of it, it refuses to run.

    Args:
        gamma: Factor by task name, > 0; tasks without keep their weight.

    Raises:
        ValueError: If a factor is not above 0, or the model has no such task.

    Example:
        >>> import tfmtl
        >>> decay = tfmtl.tasks.DecayingWeights({"click": 0.5})
        >>> decay.value("click", weight=2.0, epoch=3)
        0.25

    Source: Tang et al., RecSys 2020 (PLE), section 4.4.
    """

    def __init__(self, gamma: Mapping[str, float]) -> None:
        super().__init__()
        self.gamma = dict(gamma)
        if not all(0 < value < math.inf for value in self.gamma.values()):
            raise ValueError(
                f"`gamma` should be factors above 0. Received: gamma={self.gamma}"
            )

    def value(self, task: str, weight: float, epoch: int) -> float:
        """The weight of a task in an epoch."""
        return float(weight * self.gamma.get(task, 1.0) ** epoch)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks for the tasks in the model."""
        weights = getattr(self.model, "task_weights", {})
        if set(self.gamma) - set(weights):
            raise ValueError(
                f"`gamma` should be for tasks of the model, {sorted(weights)}. "
                f"Received: {sorted(self.gamma)}"
            )
        if keras.backend.backend() == "jax":
            raise ValueError("DecayingWeights should run on TensorFlow or PyTorch.")
        compiled = self.model.get_compile_config()["loss_weights"] or {}
        own = {task.name: task.weight for task in self.model.tasks}
        self._start = {name: compiled.get(name, own[name]) for name in self.gamma}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the weights of the epoch."""
        for name, weight in self._start.items():
            self.model.task_weights[name].assign(self.value(name, weight, epoch))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the tasks their first weights back."""
        for name, weight in self._start.items():
            self.model.task_weights[name].assign(weight)
