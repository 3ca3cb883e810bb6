"""Which upper sub-networks to compute together, when most connections are gone."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np

Group = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Device:
    """What the operations of a routing cost where it is served.

    Attributes:
        seconds_per_group: Time of the operations that one more group needs.
        flops_per_second: Rate of products of a routing's size.
        values_copied_per_second: Rate at which slots are put side by side.
        weights_read_per_second: Rate at which a product of a few rows reads its kernel.
    """

    seconds_per_group: float
    flops_per_second: float
    values_copied_per_second: float
    weights_read_per_second: float

    def seconds(self, batch: int, values: int, outputs: int, copies: bool) -> float:
        """The time to expect of one product.

        Args:
            batch: Number of examples.
            values: Width of what it reads.
            outputs: Width of what it gives.
            copies: Whether what it reads is put side by side first.
        """
        weights = values * outputs
        return (
            self.seconds_per_group
            + 2 * batch * weights / self.flops_per_second
            + weights / self.weights_read_per_second
            + copies * batch * values / self.values_copied_per_second
        )


DEVICES = {
    # TensorFlow's C++ session on one x86 core, weights from cache
    "cpu": Device(8e-6, 120e9, 6e9, 2.5e9),
    # PyTorch on an H100, operations launched one by one, products in TF32; copies
    # with what a layout of several products pays to take its outputs apart
    "gpu": Device(50e-6, 200e12, 60e9, 265e9),
}


def device_named(name: str) -> Device:
    """The costs of a device.

    Args:
        name: `"cpu"` or `"gpu"`.

    Raises:
        ValueError: If there is no such device.
    """
    if name not in DEVICES:
        raise ValueError(
            f"`device` should be one of {[*DEVICES]}. Received: device={name!r}"
        )
    return DEVICES[name]


def group_outputs(
    open_connections: np.ndarray,
    width: int,
    units: int,
    batch: int | None = None,
    device: str = "cpu",
) -> list[Group]:
    """Partitions the outputs of a routing into dense products.

    A group `(inputs, outputs)` is one product: the inputs' slots side by side
    times a `(|inputs| width, |outputs| units)` kernel, with zeros where an
    output of the group does not read one of its inputs. One group of everything
    is the dense layer; one group per set of inputs has no zeros but costs more
    operations. Starting from the latter, the pair whose union saves most time at
    `batch` by the costs of a `device` is joined, while it saves any; if one group is
    faster still, it is that. No layout is best for every batch: without a `batch` that
    of 256 is taken, and joined further while it is slower than the dense layer for a
    single example, where operations cost more than arithmetic.

    On a GPU, where a product of zeros costs less than launching another one, a single
    group is the fastest up to thousands of examples of wide slots.

    Args:
        open_connections: Boolean `(outputs, inputs)`; each row has an entry.
        width: Width of an input slot.
        units: Width of an output slot.
        batch: Number of examples to be fast for. Defaults to `None`, some hundreds
            without being slow for one.
        device: Where it is served, `"cpu"` or `"gpu"`. Defaults to `"cpu"`.

    Returns:
        Groups, ordered by their first output; each output is in exactly one.

    Raises:
        ValueError: If an output reads nothing: it is a constant, not a product; or
            there is no such device.

    Example:
        >>> import numpy as np
        >>> from tfmtl.ops.grouping import group_outputs
        >>> group_outputs(np.eye(2, dtype=bool), 1024, 1024)
        [([0], [0]), ([1], [1])]
        >>> group_outputs(np.eye(2, dtype=bool), 4, 4)
        [([0, 1], [0, 1])]
        >>> group_outputs(np.eye(2, dtype=bool), 1024, 1024, device="gpu")
        [([0, 1], [0, 1])]
    """
    costs = device_named(device)
    if not open_connections.any(axis=1).all():
        raise ValueError(
            "`open_connections` should have an open connection in every row. "
            f"Received: rows without one={np.flatnonzero(~open_connections.any(1))}"
        )
    outputs, inputs = open_connections.shape
    examples = batch or 256

    def seconds(reads: Collection[int], computes: list[int], batch: int) -> float:
        values, copies = len(reads) * width, len(reads) < inputs
        return costs.seconds(batch, values, len(computes) * units, copies)

    def saved(pair: tuple[frozenset[int], frozenset[int]]) -> float:
        a, b = pair
        apart = seconds(a, groups[a], examples) + seconds(b, groups[b], examples)
        return apart - seconds(a | b, groups[a] + groups[b], examples)

    def total(groups: dict[frozenset[int], list[int]], batch: int) -> float:
        return sum(seconds(*group, batch) for group in groups.items())

    groups: dict[frozenset[int], list[int]] = {}
    for output, row in enumerate(open_connections):
        groups.setdefault(frozenset(np.flatnonzero(row).tolist()), []).append(output)
    one = {frozenset().union(*groups): list(range(outputs))}
    dense = seconds(range(inputs), list(range(outputs)), 1)
    while len(groups) > 1:
        a, b = max(combinations(groups, 2), key=saved)
        if saved((a, b)) <= 0 and (batch is not None or total(groups, 1) <= dense):
            break
        joined = groups.pop(a) + groups.pop(b)
        groups[a | b] = sorted(joined + groups.get(a | b, []))
    fastest = min(groups, one, key=lambda layout: total(layout, examples))
    return sorted(
        ((sorted(reads), computes) for reads, computes in fastest.items()),
        key=lambda group: group[1],
    )
