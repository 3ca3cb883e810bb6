"""Which upper sub-networks to compute together, when most connections are gone."""

import numpy as np

Group = tuple[list[int], list[int]]

# Measured on two x86 cores: what one more gather, product and concatenation
# costs, and how fast products of this size and copies run.
_SECONDS_PER_GROUP = 12e-6
_FLOPS_PER_SECOND = 120e9
_VALUES_COPIED_PER_SECOND = 6e9


def group_outputs(
    open_connections: np.ndarray, width: int, units: int, batch: int = 256
) -> list[Group]:
    """Partitions the outputs of a routing into dense products.

    A group `(inputs, outputs)` is one product: the inputs' slots side by side
    times a `(|inputs| width, |outputs| units)` kernel, with zeros where an
    output of the group does not read one of its inputs. One group of everything
    is the dense layer; one group per set of inputs has no zeros but costs more
    operations. Starting from the latter, the pair whose union saves most time
    by the cost model is joined until none saves any.

    Args:
        open_connections: Boolean `(outputs, inputs)`; each row has an entry.
        width: Width of an input slot.
        units: Width of an output slot.
        batch: Number of examples the time is estimated for.

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
    slots = open_connections.shape[1]

    def cost(inputs: frozenset[int], outputs: list[int]) -> float:
        values = len(inputs) * width * batch
        copied = 0 if len(inputs) == slots else values
        products = 2 * values * len(outputs) * units
        return (
            _SECONDS_PER_GROUP
            + products / _FLOPS_PER_SECOND
            + copied / _VALUES_COPIED_PER_SECOND
        )

    groups: dict[frozenset[int], list[int]] = {}
    for output, row in enumerate(open_connections):
        groups.setdefault(frozenset(np.flatnonzero(row).tolist()), []).append(output)
    while len(groups) > 1:
        keys = list(groups)
        saved, a, b = max(
            (
                (
                    cost(a, groups[a])
                    + cost(b, groups[b])
                    - cost(a | b, groups[a] + groups[b]),
                    a,
                    b,
                )
                for k, a in enumerate(keys)
                for b in keys[k + 1 :]
            ),
            key=lambda candidate: candidate[0],
        )
        if saved <= 0:
            break
        joined = sorted(groups.pop(a) + groups.pop(b))
        groups[a | b] = sorted(joined + groups.get(a | b, []))
    return sorted(
        ((sorted(inputs), outputs) for inputs, outputs in groups.items()),
        key=lambda group: group[1],
    )
