"""What a target is a share of: connections, FLOPs or bytes."""

from collections.abc import Sequence

import keras
import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import record
from tfmtl.folding.rebuild import rebuild
from tfmtl.folding.report import structure
from tfmtl.layers.gates import gates as every_gate
from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.sparsity.reach import all_open, as_if, as_served

KINDS = ("connections", "flops", "bytes")
Masks = Sequence[np.ndarray]


class Measure:
    """The share of a model that some of its gates, opened as told, leave.

    ```
    connections   open gates / gates
    flops         FLOPs per example that are left / those with all gates open
    bytes         the same of the weights' bytes
    ```

    Gates that are not meant are as they were when it was made.

    Args:
        model: A built model; a Functional one for FLOPs and bytes.
        gates: Its gates that are meant and may close.
        of: What is measured.
        frozen: Further gates that are meant and stay as they are. Defaults to none.
    """

    def __init__(
        self,
        model: keras.Model,
        gates: Sequence[HardConcreteGate],
        of: str,
        frozen: Sequence[HardConcreteGate] = (),
    ) -> None:
        self._model = model
        self._gates = gates
        self._of = of
        self._meant = [*gates, *frozen]
        self._frozen = as_served(frozen)
        places = {id(gate) for gate in self._meant}
        self._others = [gate for gate in every_gate(model) if id(gate) not in places]
        self._given = as_served(self._others)
        self._whole = self._cost(all_open(self._meant))

    def __call__(self, masks: Masks) -> float:
        """The share that masks of the gates' shapes leave."""
        return self._cost([*masks, *self._frozen]) / self._whole

    def prices(self) -> list[np.ndarray]:
        """What each gate saves when it closes, of its shape, all together 1 − rest.

        Gates of one input share what closing them together saves. The rest is what
        no gate can close. Where frozen gates are closed, 1 is what they leave.
        """
        whole = all_open(self._gates)
        if self._of == "connections":
            count = sum(mask.size for mask in [*whole, *self._frozen])
            return [np.full(mask.shape, 1 / count) for mask in whole]
        found = []
        start = self(whole)
        for number, gate in enumerate(self._gates):
            price = np.zeros(whole[number].size)
            for together in gate.of_inputs():
                mask = whole[number].copy()
                mask.flat[together] = False
                masks = [*whole[:number], mask, *whole[number + 1 :]]
                price[together] = (start - self(masks)) / max(len(together), 1)
            found.append(price.reshape(whole[number].shape))
        total = sum(float(price.sum()) for price in found)
        rest = self([np.zeros_like(mask) for mask in whole])
        return [price * (start - rest) / total for price in found]

    def _cost(self, masks: Masks) -> float:
        """What masks of all gates that are meant leave."""
        if self._of == "connections":
            return float(np.concatenate([mask.ravel() for mask in masks]).mean())
        with as_if([*self._meant, *self._others], [*masks, *self._given]):
            folded = rebuild(self._model, Facts(record(self._model)))
        return float(getattr(structure(folded), self._of))
