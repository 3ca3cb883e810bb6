"""A schedule for the weight of the L0 penalty."""

from typing import Any

import keras

from tfmtl.sparsity.gates import gates, open_share


class L0Ramp(keras.callbacks.Callback):
    """Raises the weight of the L0 penalty after a dense phase.

    ```
    l0(t) = 0                                    t < dense_epochs
          = l0 ((t - dense_epochs) / ramp_epochs)^power   up to the ramp's end
          = l0                                   afterwards
    ```

    t counts epochs, with fractions within an epoch where the number of steps is
    known. It is derived from the epoch number alone, so that `fit` with
    `initial_epoch` resumes where it was. The share of gates open in serving is
    logged as `open_share`.

    Args:
        l0: Final weight of the penalty per gate, > 0, in units of the loss.
        dense_epochs: Length of the phase without penalty.
        ramp_epochs: Length of the ramp, > 0.
        power: 1 for a linear ramp, 3 for a cubic one.

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
    ) -> None:
        super().__init__()
        for argument, value, fits in (
            ("l0", l0, l0 > 0),
            ("dense_epochs", dense_epochs, dense_epochs >= 0),
            ("ramp_epochs", ramp_epochs, ramp_epochs > 0),
            ("power", power, power > 0),
        ):
            if not fits:
                expected = "at least 0" if argument == "dense_epochs" else "above 0"
                raise ValueError(
                    f"`{argument}` should be {expected}. Received: {argument}={value}"
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
        self._assigned: float | None = None
        if not gates(self.model):
            raise ValueError(
                "L0Ramp should be used with a model that has hard-concrete gates. "
                f"Received: model={self.model.name!r} without any"
            )

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

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the share of gates that are open in serving."""
        if logs is not None:
            share = open_share(self.model)
            logs["open_share"] = share.served / share.total

    def _assign(self, value: float) -> None:
        if value == self._assigned:
            return
        for gate in gates(self.model):  # by the property: JAX's state is written back
            gate.l0.assign(value)
        self._assigned = value
