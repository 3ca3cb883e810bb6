"""What all callbacks that press on gates have in common."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras

from tfmtl.layers.checks import entries
from tfmtl.layers.gates import decayed, gates, without_decay_of_gates
from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.sparsity.guards import SparsityWarning, findings
from tfmtl.sparsity.open_share import open_expected_of, open_share
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

    At the end of training, each of `tfmtl.sparsity.findings` is a `SparsityWarning`;
    so is, at its begin, a built optimizer that decays the gates. In the `compile` of a
    `MultiTaskModel` the end is after that of the callbacks given to `fit`. In a list
    of callbacks, this one should be after those that restore weights at the end.

    Gates that are frozen stay as they are.

    Args:
        layers: Names of layers whose gates are meant, as in a gate's path. Defaults to
            `None`, all gates.

    Raises:
        ValueError: If `layers` are no names; in `fit`, if the model has no gates or
            none of a layer, or another callback presses on the same ones.
    """

    def __init__(self, layers: Sequence[str] | None = None) -> None:
        super().__init__()
        names = None if layers is None else entries(layers)
        is_names = names and all(isinstance(name, str) for name in names)
        if layers is not None and not is_names:
            raise ValueError(
                "`layers` should be a list of names of layers, or None. "
                f"Received: layers={layers!r}"
            )
        self.layers = names

    def gates(self) -> list[HardConcreteGate]:
        """The gates that are meant and trained, of the model in training."""
        return [gate for gate in self._meant() if gate.trainable]

    def _meant(self) -> list[HardConcreteGate]:
        """The gates that are meant, frozen ones among them."""
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
        self._check_apart()
        optimizer = getattr(self.model, "optimizer", None)  # a driver's has its own
        optimizer = without_decay_of_gates(self.model, optimizer)
        paths = decayed(optimizer, self.gates())
        if paths:
            warn(
                f"The optimizer decays the weights of the gates {paths}, which draws "
                "them to half open: before it is built, call optimizer."
                "exclude_from_weight_decay(var_list=[gate.theta for gate in "
                "tfmtl.sparsity.gates(model)])."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs how open the gates are."""
        if logs is None or "open_share" in logs:
            return
        share = open_share(self.model)
        logs["open_share"] = share.served / share.total
        logs["open_expected"] = open_expected_of(gates(self.model))
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

    def _check_apart(self) -> None:
        """Raises where another callback of the same training has the same gates."""
        # all callbacks of a training have one dict of `params`
        pressed = (self.params or {}).setdefault("pressed_gates", {})
        for path in [gate.theta.path for gate in self.gates()]:
            other = pressed.setdefault(path, self)
            if other is not self:
                raise ValueError(
                    "Callbacks that press on gates should be for `layers` of their "
                    f"own. Received: {type(other).__name__} of layers={other.layers} "
                    f"and {type(self).__name__} of layers={self.layers}, both for "
                    f"{path}"
                )


def warn(finding: str) -> None:
    """Warns of what is odd about gates."""
    warnings.warn(f"Sparsity: {finding}", SparsityWarning, stacklevel=3)
