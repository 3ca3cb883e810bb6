"""What a fold saved, counted on both models."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np

from tfmtl.folding.graph import Call, record
from tfmtl.folding.protocol import GateLayer, MixtureLayer, SlotLayer
from tfmtl.layers.gates import gates
from tfmtl.ops import grouping


class Structure(NamedTuple):
    """The size of a model.

    Attributes:
        connections: Connections between sub-networks that are computed, pairs of a
            gate and an expert among them.
        sub_networks: Slots that layers with slots compute, mixtures among them.
        fields: Features that are computed, whether their gate is open or not: fields
            that are standardised or embedded, and look-ups in tables of their own. A
            feature that two tables have counts twice.
        parameters: Values of all weights that inference may read; the gates'
            penalty weights are not among them.
        bytes: Size of these values.
        flops: Floating-point operations per example, of the products in dense
            layers, experts, routings and towers.
    """

    connections: int
    sub_networks: int
    fields: int
    parameters: int
    bytes: int
    flops: int

    def milliseconds(self, batch: int = 1) -> float:
        """The time of products to expect of one core, for a batch.

        ```
        1000 (batch flops / F + values / V),   values = min(bytes / 4, flops / 2)
        F = 120e9 FLOPs, V = 2.5e9 values per second
        ```

        The constants are those by which `tfmtl.ops.grouping` lays routings out. A
        weight of a product is read once for a batch; tables are not read whole. The
        time of operations and of look-ups comes on top.

        Args:
            batch: Number of examples.

        Example:
            >>> import keras, tfmtl
            >>> inputs = keras.Input((1000,))
            >>> model = keras.Model(inputs, keras.layers.Dense(600)(inputs))
            >>> round(tfmtl.folding.structure(model).milliseconds(100), 3)
            1.24
        """
        values = min(self.bytes / 4, self.flops / 2)
        core = grouping.DEVICES["cpu"]
        products = batch * self.flops / core.flops_per_second
        return 1000 * (products + values / core.weights_read_per_second)

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return self._asdict()


class Change(NamedTuple):
    """A number before and after the fold; of a latency, the median in milliseconds.

    Attributes:
        before: That of the model.
        after: That of the folded model.
        ratio: After / before, `None` where that is 0 / 0; of a latency the median of
            the pairs that were timed in turns.
    """

    before: float
    after: float
    ratio: float | None

    @classmethod
    def of(cls, before: float, after: float) -> "Change":
        """The change from one number to the other."""
        return cls(before, after, after / before if before else None)


class FoldReport(NamedTuple):
    """A model before and after the fold; printing it gives a table.

    Attributes:
        before: Size of the model.
        after: Size of the folded model.
        latency: Measured latency by batch size, where it was given.
    """

    before: Structure
    after: Structure
    latency: Mapping[int, Change] = MappingProxyType({})

    def with_latency(self, comparisons: Mapping[int, Any]) -> "FoldReport":
        """The report with measured latency.

        Args:
            comparisons: By batch size, as `tfmtl.serving.compare_latency` gives them
                for the model and the folded model: `first.p50` and `second.p50` in
                milliseconds, and their `ratio`.

        Raises:
            ValueError: If they are not by batch size.
        """
        if not isinstance(comparisons, Mapping):
            raise ValueError(
                "`latency` should be a dict of comparisons by batch size. "
                f"Received: latency={comparisons!r}"
            )
        latency = {
            int(batch): Change(found.first.p50, found.second.p50, found.ratio)
            for batch, found in sorted(comparisons.items())
        }
        return self._replace(latency=latency)

    def estimates(self, batches: Sequence[int] = (1, 512)) -> dict[int, Change]:
        """Milliseconds to expect by batch size, see `Structure.milliseconds`.

        Args:
            batches: Numbers of examples.
        """
        return {
            batch: Change.of(*(one.milliseconds(batch) for one in self[:2]))
            for batch in batches
        }

    def as_dict(self) -> dict[str, Any]:
        """All numbers as `{name: {"before": …, "after": …, "ratio": …}}`, for JSON.

        Those of `estimated_ms` and `latency_ms` are by batch size, a string.
        """
        counts = self.before._asdict(), self.after._asdict()
        found: dict[str, Any] = {
            name: Change.of(before, counts[1][name])._asdict()
            for name, before in counts[0].items()
        }
        for name, changes in (
            ("estimated_ms", self.estimates()),
            ("latency_ms", self.latency),
        ):
            found[name] = {str(b): change._asdict() for b, change in changes.items()}
        return found

    def __str__(self) -> str:
        rows = [f"{'':<20}{'before':>12}{'after':>12}{'after/before':>14}"]
        counts = zip(Structure._fields, self.before, self.after, strict=True)
        for name, before, after in counts:
            rows.append(_row(name.replace("_", "-"), Change.of(before, after), ",d"))
        for batch, change in self.estimates().items():
            rows.append(_row(f"expected ms, B={batch}", change, ".4f"))
        for batch, change in self.latency.items():
            rows.append(_row(f"p50 ms, B={batch}", change, ".4f"))
        return "\n".join(rows)


def _row(label: str, change: Change, form: str) -> str:
    ratio = "-" if change.ratio is None else f"{change.ratio:.3f}"
    return f"{label:<20}{change.before:>12{form}}{change.after:>12{form}}{ratio:>14}"


def compare(
    model: keras.Model,
    folded: keras.Model,
    latency: Mapping[int, Any] | None = None,
) -> FoldReport:
    """Counts a model before and after the fold.

    Args:
        model: The model as it was trained.
        folded: What `fold` made of it.
        latency: Comparisons by batch size, as `tfmtl.serving.compare_latency` gives
            them for the two exported models. Defaults to `None`, not measured.

    Raises:
        ValueError: If `latency` is not by batch size.

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
    report = FoldReport(structure(model), structure(folded))
    return report if latency is None else report.with_latency(latency)


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
        fields=sum(map(_fields, calls)),
        parameters=sum(int(np.prod(weight.shape)) for weight in weights),
        bytes=sum(
            int(np.prod(weight.shape)) * np.dtype(weight.dtype).itemsize
            for weight in weights
        ),
        flops=sum(map(flops, calls)),
    )


def _sub_networks(call: Call) -> int:
    operation: Any = call.operation
    if isinstance(operation, MixtureLayer):
        return call.results[0].shape[1] or 0
    if isinstance(operation, SlotLayer) and hasattr(operation, "flops"):
        return 0 if isinstance(operation, GateLayer) else len(operation.slot_reads())
    return 0


def _fields(call: Call) -> int:
    operation: Any = call.operation
    if isinstance(operation, keras.layers.Embedding):
        return 1
    return operation.num_fields() if hasattr(operation, "num_fields") else 0


def flops(call: Call) -> int:
    """Floating-point operations per example of a call's products.

    Args:
        call: A recorded call.
    """
    operation: Any = call.operation
    if hasattr(operation, "flops"):
        return operation.flops()
    if isinstance(operation, keras.layers.Dense):
        [ref] = call.results
        positions = int(np.prod([size or 1 for size in ref.shape[1:-1]]))
        return 2 * positions * int(np.prod(operation.kernel.shape))
    return 0
