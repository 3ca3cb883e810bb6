"""What a target is a share of: connections, FLOPs or bytes."""

from collections.abc import Sequence

import keras
import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import record
from tfmtl.folding.rebuild import rebuild
from tfmtl.folding.report import structure
from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.sparsity.reach import all_open, as_if

KINDS = ("connections", "flops", "bytes")
Masks = Sequence[np.ndarray]


class Measure:
    """The share of a model that some of its gates, opened as told, leave.

    ```
    connections   open gates / gates
    flops         FLOPs per example that are left / those with all gates open
    bytes         the same of the weights' bytes
    ```

    Args:
        model: A built model; a Functional one for FLOPs and bytes.
        gates: Its gates that are meant.
        of: What is measured.
    """

    def __init__(
        self, model: keras.Model, gates: Sequence[HardConcreteGate], of: str
    ) -> None:
        self._model = model
        self._gates = gates
        self._of = of
        self._whole = 1.0
        self._whole = self(all_open(gates))

    def __call__(self, masks: Masks) -> float:
        """The share that masks of the gates' shapes leave."""
        if self._of == "connections":
            is_open = np.concatenate([mask.ravel() for mask in masks])
            return float(is_open.mean()) / self._whole
        with as_if(self._gates, masks):
            folded = rebuild(self._model, Facts(record(self._model)))
        return getattr(structure(folded), self._of) / self._whole

    def prices(self) -> list[np.ndarray]:
        """What each gate saves when it closes, of its shape, all together 1 − rest.

        Gates of one input share what closing them together saves. The rest is what
        no gate can close.
        """
        whole = all_open(self._gates)
        if self._of == "connections":
            count = sum(mask.size for mask in whole)
            return [np.full(mask.shape, 1 / count) for mask in whole]
        found = []
        for number, gate in enumerate(self._gates):
            price = np.zeros(whole[number].size)
            for together in gate.of_inputs():
                mask = whole[number].copy()
                mask.flat[together] = False
                masks = [*whole[:number], mask, *whole[number + 1 :]]
                price[together] = (1.0 - self(masks)) / max(len(together), 1)
            found.append(price.reshape(whole[number].shape))
        total = sum(float(price.sum()) for price in found)
        rest = self([np.zeros_like(mask) for mask in whole])
        return [price * (1.0 - rest) / total for price in found]
