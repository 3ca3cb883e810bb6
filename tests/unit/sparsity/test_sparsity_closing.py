"""Which gates close for a target."""

from itertools import product

import keras
import numpy as np
import pytest
from routed import network

from tfmtl import layers
from tfmtl.sparsity import gates
from tfmtl.sparsity.closing import masks_for
from tfmtl.sparsity.measures import Measure


def drawn(seed):
    """A network whose gates are anywhere, and its gates."""
    model = network()
    for gate in gates(model):
        gate.set_log_alpha(np.random.default_rng(seed).normal(size=gate.shape))
    return model, gates(model)


def left(seed, keep, of):
    model, found = drawn(seed)
    measure = Measure(model, found, of)
    return measure(masks_for(model, found, keep, measure))


# in the order of log_alpha alone .788, .363 and .469 are nearest
@pytest.mark.parametrize("seed, keep", [(0, 0.7), (1, 0.5), (2, 0.6)])
def test_share_does_not_jump_over_what_is_asked_for(seed, keep):
    assert abs(left(seed, keep, "flops") - keep) < 0.06


SHARED = [[1, 1, 1], [1, 1, 1]]
PARTLY_SHARED = [[1, 1, 0], [0, 1, 1]]


def mixture(reads):
    """Experts that outputs mix, of which each keeps one."""
    x = keras.Input((4,))
    gate = layers.SoftmaxGate(*np.shape(reads), reads=reads, hard_concrete={})
    mixed = layers.Mixture()([layers.Experts(3, 8)(x), gate(x)])
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.Flatten()(mixed)))


@pytest.mark.parametrize("reads", [SHARED, PARTLY_SHARED])
def test_share_is_about_as_near_as_that_of_any_masks(reads):
    model = mixture(reads)
    [gate] = gates(model)
    measure = Measure(model, [gate], "flops")
    masks = [np.array(mask) for mask in product([False, True], repeat=gate.shape[0])]
    shares = {mask.tobytes(): measure([mask]) for mask in masks}
    for seed, keep in product(range(3), (0.2, 0.4, 0.8)):
        gate.set_log_alpha(np.random.default_rng(seed).normal(size=gate.shape))
        [mask] = masks_for(model, [gate], keep, lambda one: shares[one[0].tobytes()])
        nearest = min(abs(share - keep) for share in shares.values())
        assert abs(shares[mask.tobytes()] - keep) < nearest + 0.06


def test_outputs_end_with_an_input_in_common():
    model = mixture(SHARED)
    [gate] = gates(model)
    gate.set_log_alpha([2.0, -1.0, 0.0, 0.0, -1.0, 1.0])  # 0 is first of a, 2 of b
    [mask] = masks_for(model, [gate], 0.01, Measure(model, [gate], "flops"))
    assert mask.tolist() == [True, False, False] * 2


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_connections_are_those_of_largest_log_alpha(keep):
    model, found = drawn(0)
    masks = masks_for(model, found, keep, Measure(model, found, "connections"))
    is_open = np.concatenate([mask.ravel() for mask in masks])
    assert is_open.sum() == keep * is_open.size


def test_frozen_gates_are_given():
    model, [second, routing] = drawn(0)
    second.set_log_alpha(4.0)
    measure = Measure(model, [routing], "connections", [second])
    assert measure(masks_for(model, [routing], 0.75, measure)) == (16 + 2) / 24
    np.testing.assert_allclose(measure.prices(), np.full((1, 2, 4), 1 / 24))


def test_whole_model_is_1_where_frozen_gates_are_closed():
    model, [second, routing] = drawn(0)
    second.set_log_alpha(np.where(np.eye(4), 4.0, -4.0))
    for of in ("connections", "flops", "bytes"):
        measure = Measure(model, [routing], of, [second])
        start = measure([np.ones((2, 4), bool)])
        rest = measure([np.zeros((2, 4), bool)])
        assert start == Measure(model, [second, routing], of)(
            [np.eye(4, dtype=bool), np.ones((2, 4), bool)]
        )
        np.testing.assert_allclose(np.sum(measure.prices()), start - rest)


def test_gates_that_are_not_meant_stay_as_they_were():
    model, [second, routing] = drawn(0)
    second.set_log_alpha(4.0)
    measure = Measure(model, [routing], "flops")
    masks = [np.array([[True, False, False, False]] * 2)]
    before = measure(masks)
    second.set_log_alpha(np.where(np.eye(4), 4.0, -4.0))
    assert measure(masks) == before
