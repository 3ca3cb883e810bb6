"""What all callbacks that press on gates have in common."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfmtl.layers.gates import gates
from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.sparsity.guards import SparsityWarning, findings
from tfmtl.sparsity.open_share import open_share
from tfmtl.sparsity.reach import Reach


class GatePressure(keras.callbacks.Callback):
    """Base of callbacks that set the penalty of gates while a model trains.

    At the end of an epoch the history gets, of all gates of the model,

    ```
    open_share      share that is not 0 in serving
    open_expected   share to expect open in training
    open_between    share that is neither 0 nor 1 in serving
    inputs_<task>   slots that the task reads through the last gates before it
    ```

    At the end of training, each of `tfmtl.sparsity.findings` is a `SparsityWarning`.

    Args:
        layers: Names of layers whose gates are meant, as in a gate's path. Defaults to
            `None`, all gates.
    """

    def __init__(self, layers: Sequence[str] | None = None) -> None:
        super().__init__()
        self.layers = None if layers is None else list(layers)

    def gates(self) -> list[HardConcreteGate]:
        """The gates that are meant, of the model in training."""
        # by the property each time: JAX's state is written back
        found = gates(self.model)
        if self.layers is None:
            return found
        meant = set(self.layers)
        return [gate for gate in found if meant & set(gate.theta.path.split("/"))]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the model's gates."""
        self._reach = Reach.of(self.model)
        every = gates(self.model)
        if not every:
            raise ValueError(
                f"{type(self).__name__} should be used with a model that has "
                f"hard-concrete gates. Received: model={self.model.name!r} without any"
            )
        paths = [gate.theta.path for gate in every]
        known = {name for path in paths for name in path.split("/")}
        if self.layers is not None and not set(self.layers) <= known:
            raise ValueError(
                "`layers` should be names of layers with hard-concrete gates, whose "
                f"paths are {paths}. Received: layers={self.layers}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs how open the gates are."""
        if logs is None or "open_share" in logs:
            return
        share = open_share(self.model)
        kept_anyway = share.total - sum(
            int(np.sum(keras.ops.convert_to_numpy(gate.penalised()) > 0))
            for gate in gates(self.model)
        )
        logs["open_share"] = share.served / share.total
        logs["open_expected"] = (share.expected + kept_anyway) / share.total
        logs["open_between"] = share.between / share.total
        if self._reach is not None:
            found = self._reach.inputs_of_outputs()
            logs |= {f"inputs_{name}": count for name, count in found.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """What `get_config` describes."""
        return cls(**config)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warns of what is odd."""
        for finding in findings(self.model):
            warn(finding)


def warn(finding: str) -> None:
    """Warns of what is odd about gates."""
    warnings.warn(f"Sparsity: {finding}", SparsityWarning, stacklevel=3)
