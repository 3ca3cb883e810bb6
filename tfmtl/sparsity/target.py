"""A share of the model to keep, in place of a weight of the penalty."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import number
from tfmtl.layers.gates import gates
from tfmtl.sparsity.closing import masks_for
from tfmtl.sparsity.measures import KINDS, Measure
from tfmtl.sparsity.open_share import open_expected_of
from tfmtl.sparsity.pressure import GatePressure, warn
from tfmtl.sparsity.reach import all_open, as_served

_EVERY = 5  # batches between two looks at the gates
_PULL, _PUSH = 20.0, 3.0  # growth of λ, per training and unit of share; λ2 over λ
_HOLD = 3.0  # pressure on settled gates, over the mean one
_CLOSED = -4.605
_NEAR = 0.05


@keras.saving.register_keras_serializable(package="tfmtl")
class Target(GatePressure):
    """Closes gates until a share of the model is left.

    ```
    minimise the loss  so that  s = t            t falls from 1 to keep
    loss + λ1 (s − t) + λ2 (s − t)²,   s = rest + Σ price p
    ```

    s is the share to expect, of connections, FLOPs or bytes; `price` what a gate saves
    when it closes; p its P(z != 0), scaled to 0 … 1 between the ends of `log_alpha`.
    λ1 rises while s is above t and falls while it is below, at a rate relative to
    itself and to the loss, so that no weight has to be chosen. The gates go through
    four phases, as shares of `fit`'s epochs:

    * dense: no penalty;
    * ramp: t falls, fast at first, to `keep`;
    * hold: t stays;
    * settle: the gates of least `log_alpha` are closed so that the share of the
      *folded* model is as near to `keep` as it can be, never the last on the way to a
      task; the rest is held open while the network adapts.

    It is `sparsity=` in the `compile` of a `MultiTaskModel`, or a callback of any Keras
    model. How open the gates are is logged, and what is odd about them at the end is
    warned of; see `tfmtl.sparsity.GatePressure`. Of FLOPs the history also gets

    ```
    flops_share      share of the model that serving has, as `keep` counts it
    flops_expected   s
    ```

    with the names of `layers` after it, where there are any, and of bytes the same. The
    progress bar shows `open_expected` and s.

    A target that is missed is warned of, also where training ended before the last
    phase or weights were restored from there. Frozen gates stay as they are and count.

    A further `fit` of a model whose gates are settled leaves them so, while its weights
    go on training; with a `keep` that other gates would meet better, it goes through
    all phases. A `fit` from an `initial_epoch` on, or with `BackupAndRestore`, goes on
    with the pressure of the restored weights.

    Args:
        keep: Share that stays, above 0 and below 1.
        of: `"connections"` (all gates count alike), `"flops"` per example or `"bytes"`
            of weights; the last two of the whole model, with all gates open as 1 and
            those of other layers as they were before `fit`.
        layers: Names of layers whose gates are meant, for example `["level_2"]`.
            Defaults to `None`, all.
        dense: Share of training before the ramp.
        ramp: Length of the ramp.
        settle: Length of the last phase, above 0.

    Raises:
        ValueError: If an argument is outside its range; in `fit`, if the model has no
            gates, frozen ones leave more than `keep`, another callback presses on the
            same ones, or there are fewer epochs than phases where the number of steps
            is not known.

    Example:
        >>> import tfmtl
        >>> target = tfmtl.sparsity.Target(keep=0.4, dense=0.1, ramp=0.5)
        >>> [round(target.goal(t), 3) for t in (0.1, 0.35, 0.6, 1.0)]
        [1.0, 0.475, 0.4, 0.4]

    Source: the augmented Lagrangian of Wang et al., "Structured Pruning of Large
    Language Models", EMNLP 2020, eq. 6, and its ramp of the target; the ramp's shape
    after Zhu and Gupta, "To Prune, or Not to Prune", 2017, eq. 1.
    """

    def __init__(
        self,
        keep: float,
        of: str = "connections",
        layers: Sequence[str] | None = None,
        dense: float = 0.1,
        ramp: float = 0.4,
        settle: float = 0.3,
    ) -> None:
        super().__init__(layers)
        if not 0 < number(keep) < 1:
            raise ValueError(
                f"`keep` should be above 0 and below 1. Received: keep={keep!r}"
            )
        if of not in KINDS:
            raise ValueError(f"`of` should be one of {KINDS}. Received: of={of!r}")
        phases = [number(share) for share in (dense, ramp, settle)]
        fits = phases[0] >= 0 and phases[1] > 0 and phases[2] > 0 and sum(phases) <= 1
        if not fits:
            raise ValueError(
                "`dense`, `ramp` and `settle` should be shares of training, at most 1 "
                "together, and the last two above 0. Received: "
                f"dense={dense!r}, ramp={ramp!r}, settle={settle!r}"
            )
        self.keep = float(keep)
        self.of = of
        self.dense = dense
        self.ramp = ramp
        self.settle = settle

    def goal(self, done: float) -> float:
        """t, the share to expect when a share of training is done."""
        ramped = min(max((done - self.dense) / self.ramp, 0.0), 1.0)
        return self.keep + (1.0 - self.keep) * (1.0 - ramped) ** 3

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the gates and what each is worth."""
        super().on_train_begin(logs)
        epochs, steps = self._params("epochs"), self._params("steps")
        if not steps and epochs < 4:
            raise ValueError(
                "Target should be used with data of a known number of steps, or with "
                f"at least 4 epochs. Received: steps={steps}, epochs={epochs}"
            )
        found = self.gates()
        frozen = [gate for gate in self._meant() if not gate.trainable]
        if not found:
            raise ValueError(
                "Target should be used with gates that are trained. Received: all of "
                f"{[gate.theta.path for gate in frozen]} are frozen"
            )
        self._measure = Measure(self.model, found, self.of, frozen)
        self._prices = self._measure.prices()
        self._start = self._measure(all_open(found))
        self._closable = sum(float(price.sum()) for price in self._prices)
        self._rest = self._start - self._closable
        if frozen and self._rest >= self.keep:
            raise ValueError(
                f"`keep` should be above {self._rest:.3f}, the share of {self.of} that "
                "is left with all gates closed but the frozen ones; `layers` names "
                f"those that are to count. Received: keep={self.keep}"
            )
        self._kept: list[np.ndarray] | None = None
        self._held: list[np.ndarray] = []
        self._loss, self._pressure = 0.0, 0.0
        self._looked_at: float | None = None
        self._shown: dict[str, float] = {}
        self._batches = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the gates."""
        self._epoch = epoch
        self._look(epoch / self._params("epochs"))

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Looks at the gates, where it is time."""
        self._batches += 1
        steps = self._params("steps")
        if steps and self._batches % _EVERY == 0:
            self._look((self._epoch + batch / steps) / self._params("epochs"))

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Notes the size of the loss, holds settled gates, shows how open they are."""
        if logs:
            if not self._pressure:
                self._loss = abs(float(logs["loss"]))
            elif not self._loss:  # resumed
                self._loss = abs(float(logs["loss"]) - self._penalty())
            logs.update(self._shown)
        if self._kept is not None and not self._held:
            self._hold(self._kept)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs how open the gates are, and what they leave."""
        super().on_epoch_end(epoch, logs)
        if logs is not None and self.of != "connections":
            logs[self._log_name("share")] = self._measure(as_served(self.gates()))
            logs[self._log_name("expected")] = self._expected()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warns of what is odd."""
        settled = self._kept is not None and self._is_held()
        if self._kept is not None and settled:
            self._settle_at(self._kept)  # where one has left its place
        left = self._measure(as_served(self.gates()))
        if abs(left - self.keep) > _NEAR:
            why = self._why_missed(settled)
            warn(f"{left:.0%} of {self.of} are left, not {self.keep:.0%}: {why}")
        super().on_train_end(logs)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            "keep": self.keep,
            "of": self.of,
            "layers": self.layers,
            "dense": self.dense,
            "ramp": self.ramp,
            "settle": self.settle,
        }

    def _params(self, name: str) -> Any:
        return (self.params or {}).get(name)

    def _log_name(self, what: str) -> str:
        return "_".join([self.of, what, *(self.layers or ())])

    def _why_missed(self, settled: bool) -> str:
        if settled:
            return "the nearest found while tasks keep an input. Ask for about as much."
        begin = math.ceil(round((1.0 - self.settle) * self._params("epochs"), 6))
        ended = (
            "training ended before the last phase"
            if self._kept is None
            else "weights from before the last phase were restored"
        )
        return (
            f"{ended}. Give EarlyStopping start_from_epoch={begin} and a task's metric "
            "to watch: the penalty is in val_loss."
        )

    def _look(self, done: float) -> None:
        if self._looked_at is None:
            self._looked_at = done
            self._kept = self._settled()
            if self._kept is not None:
                self._held = self._l0()
            elif done:  # resumed: the gates know
                self._pressure = self._pressed()
        passed, self._looked_at = done - self._looked_at, done
        if self._kept is None and done >= 1.0 - self.settle:
            self._kept = self._nearest()
            self._settle_at(self._kept)
            if self._loss:
                self._hold(self._kept)
        expected = self._expected()
        self._shown = {"open_expected": open_expected_of(gates(self.model))}
        if self.of != "connections":
            self._shown[self._log_name("expected")] = expected
        if self._kept is not None:
            return
        if done < self.dense:
            self._press(0.0)
            return
        excess = expected - min(self.goal(done), self._start)
        size = self._loss + abs(self._pressure)
        self._pressure += _PULL * passed * excess * size
        self._press(self._pressure + _PUSH * excess * size)

    def _expected(self) -> float:
        """s: the share to expect in training, P(z != 0) counted from its least on."""
        share = self._rest
        for gate, price in zip(self.gates(), self._prices, strict=True):
            ends = gate.open_probability(ops.convert_to_tensor([_CLOSED, -_CLOSED]))
            least, most = ops.convert_to_numpy(ends).tolist()
            probability = ops.convert_to_numpy(gate.penalised())
            open_part = (probability - least) / (most - least)
            share += float(np.sum(np.where(probability > 0, open_part, 1) * price))
        return share

    def _nearest(self) -> list[np.ndarray]:
        """Masks of the gates that leave a share near to `keep`."""
        return masks_for(self.model, self.gates(), self.keep, self._measure)

    def _settled(self) -> list[np.ndarray] | None:
        """Masks of gates that are held already, unless others would be nearer."""
        l0 = self._l0()
        every = np.concatenate([values.ravel() for values in l0])
        if not (every.all() and (every < 0).any() and (every > 0).any()):
            return None
        held = [values < 0 for values in l0]
        gain = self._miss(held) - self._miss(self._nearest())
        return held if gain <= _NEAR else None

    def _miss(self, masks: list[np.ndarray]) -> float:
        """How far masks are from the share to keep."""
        return abs(self._measure(masks) - self.keep)

    def _penalty(self) -> float:
        """What the gates add to the loss."""
        losses = [loss for gate in self.gates() for loss in gate.losses]
        return sum(float(ops.convert_to_numpy(loss)) for loss in losses)

    def _pressed(self) -> float:
        """The pressure that the gates are under."""
        l0 = sum(float(ops.convert_to_numpy(gate.l0).sum()) for gate in self.gates())
        return l0 / max(self._closable, 1e-9)

    def _press(self, pressure: float) -> None:
        for gate, price in zip(self.gates(), self._prices, strict=True):
            gate.set_l0(pressure * price)

    def _settle_at(self, kept: list[np.ndarray]) -> None:
        for gate, mask in zip(self.gates(), kept, strict=True):
            log_alpha = ops.convert_to_numpy(gate.log_alpha)
            gate.set_log_alpha(np.where(mask, np.maximum(log_alpha, 0.0), _CLOSED))

    def _hold(self, kept: list[np.ndarray]) -> None:
        count = sum(mask.size for mask in kept)
        size = _HOLD * (self._loss + abs(self._pressure)) / count
        for gate, mask in zip(self.gates(), kept, strict=True):
            gate.set_l0(np.where(mask, -size, size))
        self._held = self._l0()

    def _is_held(self) -> bool:
        """Whether the weights are of the last phase, since gates are held in it."""
        return all(map(np.array_equal, self._l0(), self._held))

    def _l0(self) -> list[np.ndarray]:
        return [np.array(ops.convert_to_numpy(gate.l0)) for gate in self.gates()]
