"""Which upper sub-networks to compute together, when most connections are gone."""

from itertools import combinations

import numpy as np

Group = tuple[list[int], list[int]]

# Measured in TensorFlow's C++ session on one x86 core: the operations that one
# more group costs, products of this size, copies of slots, weights from cache.
_SECONDS_PER_GROUP = 8e-6
_FLOPS_PER_SECOND = 120e9
_VALUES_COPIED_PER_SECOND = 6e9
_WEIGHTS_READ_PER_SECOND = 2.5e9


def group_outputs(
    open_connections: np.ndarray, width: int, units: int, batch: int | None = None
) -> list[Group]:
    """Partitions the outputs of a routing into dense products.

    A group `(inputs, outputs)` is one product: the inputs' slots side by side
    times a `(|inputs| width, |outputs| units)` kernel, with zeros where an
    output of the group does not read one of its inputs. One group of everything
    is the dense layer; one group per set of inputs has no zeros but costs more
    operations. Starting from the latter, the pair whose union saves most time at
    `batch` by a cost model is joined, while it saves any. No layout is best for
    every batch: without a `batch` that of 256 is taken, and joined further while it
    is slower than the dense layer for a single example, where operations cost more
    than arithmetic.

    Args:
        open_connections: Boolean `(outputs, inputs)`; each row has an entry.
        width: Width of an input slot.
        units: Width of an output slot.
        batch: Number of examples to be fast for. Defaults to `None`, some hundreds
            without being slow for one.

    Returns:
        Groups, ordered by their first output; each output is in exactly one.

    Raises:
        ValueError: If an output reads nothing: it is a constant, not a product.

    Example:
        >>> import numpy as np
        >>> from tfmtl.ops.grouping import group_outputs
        >>> group_outputs(np.eye(2, dtype=bool), 1024, 1024)
        [([0], [0]), ([1], [1])]
        >>> group_outputs(np.eye(2, dtype=bool), 4, 4)
        [([0, 1], [0, 1])]
    """
    if not open_connections.any(axis=1).all():
        raise ValueError(
            "`open_connections` should have an open connection in every row. "
            f"Received: rows without one={np.flatnonzero(~open_connections.any(1))}"
        )
    outputs, inputs = open_connections.shape
    examples = batch or 256

    def seconds(reads: frozenset[int], computes: list[int], batch: int) -> float:
        values = len(reads) * width
        weights = values * len(computes) * units
        copied = 0 if len(reads) == inputs else batch * values
        return (
            _SECONDS_PER_GROUP
            + 2 * batch * weights / _FLOPS_PER_SECOND
            + weights / _WEIGHTS_READ_PER_SECOND
            + copied / _VALUES_COPIED_PER_SECOND
        )

    def saved(pair: tuple[frozenset[int], frozenset[int]]) -> float:
        a, b = pair
        apart = seconds(a, groups[a], examples) + seconds(b, groups[b], examples)
        return apart - seconds(a | b, groups[a] + groups[b], examples)

    groups: dict[frozenset[int], list[int]] = {}
    for output, row in enumerate(open_connections):
        groups.setdefault(frozenset(np.flatnonzero(row).tolist()), []).append(output)
    everything = seconds(frozenset(range(inputs)), list(range(outputs)), 1)
    while len(groups) > 1:
        a, b = max(combinations(groups, 2), key=saved)
        single = sum(seconds(*group, 1) for group in groups.items())
        if saved((a, b)) <= 0 and (batch is not None or single <= everything):
            break
        joined = groups.pop(a) + groups.pop(b)
        groups[a | b] = sorted(joined + groups.get(a | b, []))
    return sorted(
        ((sorted(reads), computes) for reads, computes in groups.items()),
        key=lambda group: group[1],
    )
