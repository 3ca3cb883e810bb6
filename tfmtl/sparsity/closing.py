"""Which gates to close for a target."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tfmtl.layers.hard_concrete_gate import HardConcreteGate
from tfmtl.sparsity.measures import Measure
from tfmtl.sparsity.reach import Reach, all_open, as_if

Place = tuple[int, int]  # number of the gate, index in its flattened z

_NEAR = 0.03
_TRIALS = 16  # gates tried on each side of where the order is cut


def masks_for(
    model: keras.Model,
    gates: Sequence[HardConcreteGate],
    keep: float,
    measure: Measure,
) -> list[np.ndarray]:
    """Masks of the gates that leave a share near to `keep`.

    The gates of least log_alpha close first; before them, those that pass nothing on
    since others are closed. A gate stays open where an output would lose all of its
    inputs, or a row of a mixture its last expert. Where the share jumps over `keep`,
    gates that come later in the order close, or earlier ones open again, as far as
    each brings it nearer. Where more than `keep` is left at the end of the order, since
    outputs have last inputs of their own, whole inputs close instead: those that fewest
    may read, then the least open, so that the outputs end with inputs in common.

    Args:
        model: The model.
        gates: Its gates that may close.
        keep: Share that stays.
        measure: What it is a share of.

    Returns:
        Booleans of each gate's shape, true where it stays open.
    """
    by_gate = [ops.convert_to_numpy(gate.log_alpha) for gate in gates]
    order = _order(model, gates, by_gate)
    masks = _cut(gates, order, keep, measure)
    if measure(_closed(gates, order)) <= keep + _NEAR:
        return masks
    by_input = _cut(gates, _order(model, gates, _by_input(gates)), keep, measure)
    return min(masks, by_input, key=lambda found: abs(measure(found) - keep))


def _cut(
    gates: Sequence[HardConcreteGate],
    order: Sequence[Place],
    keep: float,
    measure: Measure,
) -> list[np.ndarray]:
    """Masks that close an order up to where the share is nearest to `keep`."""
    low, high = 0, len(order)  # the share falls as more of the order is closed
    while high - low > 1:
        middle = (low + high) // 2
        if measure(_closed(gates, order[:middle])) > keep:
            low = middle
        else:
            high = middle
    further, back = order[low:], order[:high][::-1]
    candidates = [
        _nearer(_closed(gates, order[:count]), places[:_TRIALS], keep, measure)
        for count, places in ((low, further), (high, back))
    ]
    return min(candidates, key=lambda masks: abs(measure(masks) - keep))


def _order(
    model: keras.Model,
    gates: Sequence[HardConcreteGate],
    ranks: Sequence[np.ndarray],
) -> list[Place]:
    """Gates in the order in which they may close, those of least rank first."""
    penalised = [gate.penalised(rank) for gate, rank in zip(gates, ranks, strict=True)]
    stays = [ops.convert_to_numpy(values == 0).ravel() for values in penalised]
    waiting = sorted(
        (
            (k, n)
            for k, gate in enumerate(stays)
            for n in np.flatnonzero(~gate).tolist()
        ),
        key=lambda place: ranks[place[0]].flat[place[1]],
    )
    reach = Reach.of(model)
    if reach is None:
        return waiting
    masks, order = all_open(gates), list[Place]()
    with as_if(gates, masks):
        lost = reach.constant_outputs()
    while waiting:
        place = waiting.pop(0)
        masks[place[0]].flat[place[1]] = False
        with as_if(gates, masks):
            if reach.constant_outputs() != lost:
                masks[place[0]].flat[place[1]] = True
                continue
            passing = reach.passing(gates)
        order.append(place)
        for idle in [(k, n) for k, n in waiting if not passing[k].flat[n]]:
            masks[idle[0]].flat[idle[1]] = False
            waiting.remove(idle)
            order.append(idle)
    return order


def _by_input(gates: Sequence[HardConcreteGate]) -> list[np.ndarray]:
    """Ranks of the gates by the input that they are of."""
    keys: dict[Place, tuple[float, float, float]] = {}
    for k, gate in enumerate(gates):
        opened = ops.convert_to_numpy(gate.open_probability()).ravel()
        inputs = gate.of_inputs()
        most = max(map(len, inputs))
        for own in inputs:
            keys |= {
                (k, n): (len(own) / most, float(opened[own].sum()), float(opened[n]))
                for n in own.tolist()
            }
    ranks = [np.zeros(gate.shape, "float32") for gate in gates]
    for rank, (k, n) in enumerate(sorted(keys, key=keys.__getitem__)):
        ranks[k].flat[n] = rank
    return ranks


def _nearer(
    masks: list[np.ndarray], places: Sequence[Place], keep: float, measure: Measure
) -> list[np.ndarray]:
    """Flips one gate after another where that brings the share nearer to `keep`."""
    excess = measure(masks) - keep
    for number, index in places:
        closes = bool(masks[number].flat[index])
        if abs(excess) <= _NEAR or closes != (excess > 0):
            break
        flipped = [mask.copy() for mask in masks]
        flipped[number].flat[index] = not closes
        left = measure(flipped) - keep
        if abs(left) < abs(excess):
            masks, excess = flipped, left
    return masks


def _closed(
    gates: Sequence[HardConcreteGate], places: Sequence[Place]
) -> list[np.ndarray]:
    masks = all_open(gates)
    for number, index in places:
        masks[number].flat[index] = False
    return masks
