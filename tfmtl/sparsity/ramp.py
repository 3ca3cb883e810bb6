"""A schedule for a weight of the L0 penalty that is known."""

from collections.abc import Sequence
from typing import Any

import keras

from tfmtl.layers.checks import number
from tfmtl.sparsity.pressure import GatePressure


@keras.saving.register_keras_serializable(package="tfmtl")
class L0Ramp(GatePressure):
    """Raises the weight of the L0 penalty after a dense phase.

    ```
    l0(t) = 0                                    t < dense_epochs
          = l0 ((t - dense_epochs) / ramp_epochs)^power   up to the ramp's end
          = l0                                   afterwards
    ```

    t counts epochs, with fractions within an epoch where the number of steps is
    known. It is derived from the epoch number alone, so that `fit` with
    `initial_epoch` resumes where it was. How open the gates are is logged, and what
    is odd about them at the end is warned of; see `tfmtl.sparsity.GatePressure`.

    It is a callback of any Keras model, or `sparsity=` in the `compile` of a
    `MultiTaskModel`. Where no weight of the penalty is known, `Target` finds one.

    Args:
        l0: Final weight of the penalty per gate, > 0, in units of the loss.
        dense_epochs: Length of the phase without penalty.
        ramp_epochs: Length of the ramp, > 0.
        power: 1 for a linear ramp, 3 for a cubic one.
        layers: Names of layers whose gates are meant. Defaults to `None`, all.

    Raises:
        ValueError: If an argument is outside its range, or the model has no gate.

    Example:
        >>> import tfmtl
        >>> ramp = tfmtl.sparsity.L0Ramp(1e-3, dense_epochs=2, ramp_epochs=2)
        >>> [ramp.value(t) for t in (1.0, 3.0, 9.0)]
        [0.0, 0.0005, 0.001]

    Source: Gale et al., "The State of Sparsity in Deep Neural Networks", 2019.
    """

    def __init__(
        self,
        l0: float,
        dense_epochs: float = 1.0,
        ramp_epochs: float = 1.0,
        power: float = 1.0,
        layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__(layers)
        for argument, value, fits in (
            ("l0", l0, number(l0) > 0),
            ("dense_epochs", dense_epochs, number(dense_epochs) >= 0),
            ("ramp_epochs", ramp_epochs, number(ramp_epochs) > 0),
            ("power", power, number(power) > 0),
        ):
            if not fits:
                expected = "at least 0" if argument == "dense_epochs" else "above 0"
                raise ValueError(
                    f"`{argument}` should be {expected}. Received: {argument}={value!r}"
                )
        self.l0 = l0
        self.dense_epochs = dense_epochs
        self.ramp_epochs = ramp_epochs
        self.power = power
        self._epoch = 0

    def value(self, epochs: float) -> float:
        """The weight of the penalty after a number of epochs."""
        done = (epochs - self.dense_epochs) / self.ramp_epochs
        return float(self.l0 * min(max(done, 0.0), 1.0) ** self.power)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the model's gates."""
        super().on_train_begin(logs)
        self._assigned: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the weight for the epoch's start."""
        self._epoch = epoch
        self._assign(self.value(epoch))

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Sets the weight for the batch."""
        steps = (self.params or {}).get("steps")
        if steps:
            self._assign(self.value(self._epoch + batch / steps))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            "l0": self.l0,
            "dense_epochs": self.dense_epochs,
            "ramp_epochs": self.ramp_epochs,
            "power": self.power,
            "layers": self.layers,
        }

    def _assign(self, value: float) -> None:
        if value == self._assigned:
            return
        for gate in self.gates():
            gate.set_l0(value)
        self._assigned = value
