"""A model as it trains, taken apart and put together again."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import Call, Graph, Ref, record
from tfmtl.folding.rebuild import Builder


class Trimmer(Builder):
    """Makes the model of what is kept with layers as they train, gates and all."""

    def smaller(
        self, call: Call, outputs: np.ndarray, inputs: np.ndarray, *columns: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        """A layer with slots for some of them, and its outputs in order."""
        return self.part(call, call.operation, outputs, inputs, *columns)

    def part(
        self,
        call: Call,
        layer: Any,
        outputs: np.ndarray,
        inputs: np.ndarray,
        *columns: np.ndarray,
    ) -> tuple[Any, np.ndarray]:
        """Of a layer that stands for the call's."""
        if hasattr(layer, "part"):
            return layer.part(outputs, inputs, *columns), outputs
        return layer.fold(outputs, inputs, self.constants(call.inputs), *columns)

    def read_apart_only(self, ref: Ref) -> bool:
        """A layer gives what the old one gave, a tensor or a list."""
        return False


def copied(model: keras.Model) -> Trimmer:
    """What makes a copy of a model as it trains, not only as it serves.

    Raises:
        ValueError: If the model is not Functional or Sequential.
    """
    return Trimmer(Facts(record(model), prune=False, serving=False), model)


def with_operations(
    model: keras.Model, graph: Graph, others: Mapping[int, keras.Operation]
) -> keras.Model:
    """A copy of a model, as it trains, with other operations in some places.

    Args:
        model: The model.
        graph: What was recorded of it.
        others: New operations by `id` of those whose place they take.
    """
    facts = Facts(graph.with_operations(others), prune=False, serving=False)
    return Builder(facts, model).build()
