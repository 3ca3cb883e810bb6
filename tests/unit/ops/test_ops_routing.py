"""Routing: what the equations say about special gates."""

import keras
import numpy as np

from tfmtl import ops


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def test_zero_and_one_gates_select():
    u = numbers(4, 3, 2)
    permutation = np.eye(3, dtype="f4")[[2, 0, 1]]
    v = keras.ops.convert_to_numpy(ops.route_average(u, permutation))
    np.testing.assert_array_equal(v, u[:, [2, 0, 1]])


def test_average_is_not_normalised():
    u = numbers(4, 3, 2)
    v = keras.ops.convert_to_numpy(ops.route_average(u, np.ones((1, 3), "f4")))
    np.testing.assert_allclose(v[:, 0], u.sum(axis=1), atol=1e-6)


def test_closed_row_is_zero():
    z = np.array([[0, 0], [1, 0.5]], "f4")
    v = ops.route_transformation(numbers(3, 2, 4), numbers(2, 4, 2, 5), z)
    v = keras.ops.convert_to_numpy(v)
    assert (v[:, 0] == 0).all() and (v[:, 1] != 0).all()
