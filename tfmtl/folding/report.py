"""What a fold saved, counted on both models."""

from typing import Any, NamedTuple

import keras
import numpy as np

from tfmtl.folding.graph import Call, record
from tfmtl.folding.protocol import GateLayer, MixtureLayer, SlotLayer
from tfmtl.sparsity import gates


class Structure(NamedTuple):
    """The size of a model.

    Attributes:
        connections: Connections between sub-networks that are computed, pairs of a
            gate and an expert among them.
        sub_networks: Slots that layers with slots compute, mixtures among them.
        parameters: Values of all weights that inference may read; the gates'
            penalty weights are not among them.
        bytes: Size of these values.
        flops: Floating-point operations per example, of the products in dense
            layers, experts, routings and towers.
    """

    connections: int
    sub_networks: int
    parameters: int
    bytes: int
    flops: int


class FoldReport(NamedTuple):
    """A model before and after the fold; printing it gives a table."""

    before: Structure
    after: Structure

    def __str__(self) -> str:
        rows = [f"{'':<14}{'before':>12}{'after':>12}{'after/before':>14}"]
        for name, before, after in zip(
            Structure._fields, self.before, self.after, strict=True
        ):
            ratio = f"{after / before:.3f}" if before else "-"
            label = name.replace("_", "-")
            rows.append(f"{label:<14}{before:>12,}{after:>12,}{ratio:>14}")
        return "\n".join(rows)


def compare(model: keras.Model, folded: keras.Model) -> FoldReport:
    """Counts a model before and after the fold.

    Args:
        model: The model as it was trained.
        folded: What `fold` made of it.

    Example:
        >>> import keras, tfmtl
        >>> inputs = keras.Input((8,))
        >>> x = tfmtl.layers.Experts(4, 8)(inputs)
        >>> routing = tfmtl.layers.SubNetworkRouting(1, 2)
        >>> model = keras.Model(inputs, routing(x)[:, 0])
        >>> routing.gate.set_log_alpha([[4.0, -4.0, -4.0, 4.0]])
        >>> report = tfmtl.folding.compare(model, tfmtl.folding.fold(model))
        >>> report.before.connections, report.after.connections
        (4, 2)
    """
    return FoldReport(structure(model), structure(folded))


def structure(model: keras.Model) -> Structure:
    """Counts one model.

    Args:
        model: A built Functional or Sequential model.
    """
    calls = record(model).calls
    operations = {id(call.operation): call.operation for call in calls}
    penalties = {id(gate.l0) for gate in gates(model)}
    weights = [weight for weight in model.weights if id(weight) not in penalties]
    return Structure(
        connections=sum(
            operation.connections()
            for operation in operations.values()
            if hasattr(operation, "connections")
        ),
        sub_networks=sum(map(_sub_networks, calls)),
        parameters=sum(int(np.prod(weight.shape)) for weight in weights),
        bytes=sum(
            int(np.prod(weight.shape)) * np.dtype(weight.dtype).itemsize
            for weight in weights
        ),
        flops=sum(_flops(call) for call in calls),
    )


def _sub_networks(call: Call) -> int:
    operation: Any = call.operation
    if isinstance(operation, MixtureLayer):
        return call.results[0].shape[1] or 0
    if isinstance(operation, SlotLayer) and hasattr(operation, "flops"):
        return 0 if isinstance(operation, GateLayer) else len(operation.slot_reads())
    return 0


def _flops(call: Call) -> int:
    operation: Any = call.operation
    if hasattr(operation, "flops"):
        return operation.flops()
    if isinstance(operation, keras.layers.Dense):
        [ref] = call.results
        positions = int(np.prod([size or 1 for size in ref.shape[1:-1]]))
        return 2 * positions * int(np.prod(operation.kernel.shape))
    return 0
