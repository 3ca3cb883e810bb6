"""The DSelect-k operations and gate against their twins in NumPy."""

import math

import keras
import numpy as np
import pytest
import twins_dselect_k as twins

from tfmtl.layers.dselect_k_gate import DSelectKGate
from tfmtl.ops.dselect_k import dselect_k, single_expert_selector, smooth_step

SIZES = [  # batch, outputs, experts, k, gamma
    (1, 1, 1, 1, 1.0),
    (1, 1, 4, 1, 1.0),
    (2, 1, 3, 2, 0.5),
    (1, 3, 2, 2, 2.0),
    (3, 2, 5, 3, 1.0),
    (5, 3, 8, 4, 3.0),
    (4, 2, 11, 2, 1.5),
]
each_size = pytest.mark.parametrize("batch, outputs, experts, k, gamma", SIZES)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(scale=0.4, size=shape).astype("f4")


def assert_close(got, expected):
    got = keras.ops.convert_to_numpy(got)
    assert got.shape == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def some_reads(outputs, experts):
    """Unequal counts: a single expert for the first output, more for the next."""
    reads = np.random.default_rng(0).random((outputs, experts)) < 0.6
    reads[:, -1] = True
    reads[0, :-1] = False
    return reads


def digits_of(count):
    return math.ceil(math.log2(count))


def parameters(gate, reads):
    """G, a, W and b of each output, whatever the layer keeps of them."""
    weights = {w.name: keras.ops.convert_to_numpy(w) for w in gate.weights}
    width, row, first, found = gate._width, 0, 0, []
    for count in reads.sum(axis=1):
        m = digits_of(count)
        g, a = np.zeros((gate.k, width)), np.zeros(gate.k)
        w, b = np.zeros((gate.k, m, width)), np.zeros((gate.k, m))
        if count > 1:
            b = weights["z"][:, first : first + m]
            if "alpha" in weights:
                a = weights["alpha"][:, row]
            if gate.per_example:
                w = weights["z_kernel"][..., first : first + m].transpose(1, 2, 0)
                if "alpha" in weights:
                    g = weights["alpha_kernel"][..., row].T
            row, first = row + 1, first + m
        found.append((g, a, w, b))
    return found


@pytest.mark.parametrize("gamma", [0.3, 1.0, 4.0])
def test_smooth_step(gamma):
    t = np.linspace(-3, 3, 121).astype("f4")
    assert_close(smooth_step(t, gamma), [twins.smooth_step(v, gamma) for v in t])


@pytest.mark.parametrize("gamma", [0.01, 0.3, 1.0, 7.0])
def test_ends_of_the_smooth_step_are_exact(gamma):
    half = np.float32(gamma / 2)
    t = np.array([-1e30, -2 * half, -half, half, 2 * half, 1e30], "f4")
    ends = keras.ops.convert_to_numpy(smooth_step(t, gamma))
    assert ends.tolist() == [0, 0, 0, 1, 1, 1]
    between = smooth_step(np.linspace(-half, half, 10_001, dtype="f4"), gamma)
    between = keras.ops.convert_to_numpy(between)
    assert between.min() >= 0 and between.max() <= 1
    assert (np.diff(between) >= -1e-7).all()


def test_too_few_digits():
    with pytest.raises(ValueError) as error:
        single_expert_selector(np.ones((1, 2), "f4"), 5)
    assert str(error.value) == (
        "`num_experts` should be at most 4 with 2 digits. Received: num_experts=5"
    )


@each_size
def test_selector(batch, outputs, experts, k, gamma):
    s = np.random.default_rng(1).random((batch, digits_of(experts))).astype("f4")
    expected = [twins.selector(digits, experts) for digits in s]
    assert_close(single_expert_selector(s, experts), expected)


@each_size
def test_operation(batch, outputs, experts, k, gamma):
    alpha, z = numbers(1, batch, k), numbers(2, batch, k, digits_of(experts))
    q, r = dselect_k(alpha, z, experts, gamma)
    pairs = list(zip(alpha, z, strict=True))
    assert_close(q, [twins.dselect_k(a, own, experts, gamma) for a, own in pairs])
    assert_close(r, [twins.selectors(own, experts, gamma) for _, own in pairs])


@each_size
@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_gate(batch, outputs, experts, k, gamma, chosen, per_example, stacked):
    reads = np.ones((outputs, experts), bool)
    if chosen:
        reads = some_reads(outputs, experts)
    x = numbers(3, batch, outputs, 6) if stacked else numbers(3, batch, 6)
    gate = DSelectKGate(outputs, experts, k, per_example, gamma, 0.25, reads)
    gate.build(x.shape)
    gate.set_weights([numbers(4 + i, *w.shape) for i, w in enumerate(gate.weights)])
    each = x if stacked else np.repeat(x[:, None], outputs, axis=1)
    weights, penalty = twins.gate(each, parameters(gate, reads), reads, gamma, 0.25)
    assert_close(gate(x, training=True), weights)
    np.testing.assert_allclose(float(sum(gate.losses)), penalty, rtol=1e-5, atol=1e-5)
