"""Routing: the networks it becomes at special gates; refusals."""

import keras
import numpy as np
import pytest

from tfmtl import layers


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def routing(u, outputs, log_alpha, **kwargs):
    layer = layers.SubNetworkRouting(outputs, **kwargs)
    layer.build(u.shape)
    layer.gate.set_log_alpha(log_alpha)
    return layer


def test_all_gates_open_is_a_dense_layer():
    u = numbers(5, 4, 3)
    layer = routing(u, 2, 4.0, units=6, use_bias=True, activation="relu")
    layer.bias.assign(numbers(2, 6, seed=1))
    dense = keras.layers.Dense(12, activation="relu")
    dense.build((None, 12))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    bias = keras.ops.convert_to_numpy(layer.bias)
    dense.set_weights([kernel.reshape(12, 12), bias.reshape(12)])
    got = keras.ops.convert_to_numpy(layer(u)).reshape(5, 12)
    expected = keras.ops.convert_to_numpy(dense(u.reshape(5, 12)))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_diagonal_gates_are_separate_networks():
    u = numbers(5, 3, 4)
    layer = routing(u, 3, 8 * np.eye(3) - 4, units=6)
    v = keras.ops.convert_to_numpy(layer(u))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    for k in range(3):
        np.testing.assert_allclose(v[:, k], u[:, k] @ kernel[k, :, k], atol=1e-6)


def test_closed_connection_carries_nothing():
    u = numbers(2, 2, 3)
    layer = routing(u, 2, 8 * np.eye(2) - 4, units=3)
    before = keras.ops.convert_to_numpy(layer(u))
    u[:, 1] = 1e30
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer(u))[:, 0], before[:, 0]
    )


def test_average_of_open_gates_is_the_sum():
    u = numbers(5, 3, 4)
    v = keras.ops.convert_to_numpy(routing(u, 2, 4.0, kind="average")(u))
    np.testing.assert_allclose(v, np.stack([u.sum(axis=1)] * 2, axis=1), atol=1e-6)


@pytest.mark.parametrize("kind, units", [("transformation", 6), ("average", None)])
def test_noise_in_training_only(kind, units):
    u = numbers(5, 3, 4)
    layer = routing(u, 2, 0.0, kind=kind, units=units)
    draws = [keras.ops.convert_to_numpy(layer(u, training=True)) for _ in range(2)]
    assert not np.array_equal(*draws)
    served = [keras.ops.convert_to_numpy(layer(u, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*served)


def test_gate_is_the_same_for_all_examples():
    u = np.repeat(numbers(1, 3, 4), 6, axis=0)
    v = keras.ops.convert_to_numpy(routing(u, 2, 0.0, units=5)(u, training=True))
    np.testing.assert_allclose(v, np.repeat(v[:1], 6, axis=0), atol=1e-6)


def test_one_log_alpha_per_connection():
    layer = routing(numbers(1, 3, 4), 2, 0.0, units=5)
    assert layer.gate.theta.shape == (2, 3)


def test_arguments_reach_the_gate():
    gate = {"l0": 0.5, "beta": 0.6, "rate_multiplier": 2.0}
    layer = routing(numbers(1, 3, 4), 2, 0.0, units=5, hard_concrete=gate)
    assert (layer.gate.beta, layer.gate.rate_multiplier) == (0.6, 2.0)
    assert (np.asarray(layer.gate.l0) == 0.5).all()


def test_strengths_and_flops():
    u = numbers(1, 2, 3)
    layer = routing(u, 2, [[4, -4], [4, 4]], units=5)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    strengths = layer.strengths()
    assert strengths[0, 1] == 0
    np.testing.assert_allclose(strengths[1, 0], np.linalg.norm(kernel[0, :, 1]), 1e-5)
    assert layer.flops() == 2 * 2 * 2 * 3 * 5
    average = routing(u, 2, [[4, -4], [0, 4]], kind="average")
    np.testing.assert_allclose(average.strengths(), [[1, 0], [0.5, 1]])


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"num_outputs": 2, "units": 3, "kind": "mean"},
            "`kind` should be one of ('transformation', 'average'). "
            "Received: kind='mean'",
        ),
        (
            {"num_outputs": 2},
            "`units` should be a positive integer. Received: units=None",
        ),
        (
            {"num_outputs": 2, "units": 3, "kind": "average"},
            "`units` should be left out where kind='average', which keeps its "
            "input's width. Received: units=3",
        ),
        (
            {"num_outputs": 0, "units": 3},
            "`num_outputs` should be a positive integer. Received: num_outputs=0",
        ),
    ],
)
def test_refused_arguments(arguments, text):
    with pytest.raises(ValueError) as error:
        layers.SubNetworkRouting(**arguments)
    assert str(error.value) == text


@pytest.mark.parametrize(
    "layer",
    [
        layers.SubNetworkRouting(2, 3),
        layers.StaticMixture(2),
        layers.PrunedTransformation([([0], [0])], 3),
    ],
)
def test_refused_shape(layer):
    with pytest.raises(ValueError) as error:
        layer.build((None, 4))
    assert str(error.value) == (
        f"{type(layer).__name__} should be called on a tensor of shape (batch, slots, "
        "width) with known slots and width. Received: shape=(None, 4)"
    )


@pytest.mark.parametrize("groups", [[], [([0], [0]), ([1], [0])], [([0], [1])]])
def test_refused_groups(groups):
    with pytest.raises(ValueError, match=r"`groups` should .*Received: groups=\["):
        layers.PrunedTransformation(groups, 4)


def test_pruned_layers_refuse_sizes():
    with pytest.raises(ValueError, match="`units` should be a positive integer"):
        layers.PrunedTransformation([([0], [0])], 0)
    with pytest.raises(ValueError, match="`num_outputs` should be a positive integer"):
        layers.StaticMixture(0)


def test_gather_slots_refuses_indices():
    with pytest.raises(ValueError) as error:
        layers.GatherSlots([0, -2])
    assert str(error.value) == (
        "`indices` should be slots from 0 on, or -1 for a constant. "
        "Received: indices=[0, -2]"
    )


def test_gather_slots_fills_constants_in():
    layer = layers.GatherSlots([-1, 1, -1])
    layer.build((None, 2, 2))
    layer.constants.assign([[1, 2], [3, 4]])
    x = np.array([[[5, 6], [7, 8]]], "f4")
    got = keras.ops.convert_to_numpy(layer(x))
    assert got.tolist() == [[[1, 2], [7, 8], [3, 4]]]
