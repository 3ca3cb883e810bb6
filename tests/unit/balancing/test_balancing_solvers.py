"""The small solvers against what defines their answers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import nnls

from tfmtl.balancing import solvers

each_size = pytest.mark.parametrize("n", [1, 2, 5, 16])


def cosines_of(n, seed=0, width=None):
    rng = np.random.default_rng([n, seed])
    units = rng.normal(size=(n, width or n + 2))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return tf.constant(units @ units.T)


@each_size
def test_nonnegative_minimum(n):
    rng = np.random.default_rng(n)
    root = rng.normal(size=(n, n)) + np.eye(n)
    linear = rng.normal(size=(7, n))
    found = solvers.nonnegative_minimum(tf.constant(root.T @ root), tf.constant(linear))
    expected = [nnls(root, -np.linalg.solve(root.T, q))[0] for q in linear]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_nonnegative_minimum_of_many_random_problems():
    """Its conditions: x ≥ 0, slopes ≥ 0, and one of the two 0."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 17))
        cosines = solvers.ridged(cosines_of(n, seed, int(rng.integers(1, n + 4))))
        linear = tf.constant(rng.normal(size=(n, n)))
        x = solvers.nonnegative_minimum(cosines, linear).numpy()
        slopes = x @ cosines.numpy() + linear.numpy()
        size = 1 + np.abs(x).max()
        assert x.min() >= 0 and slopes.min() >= -1e-11 * size
        assert np.abs(slopes[x > 0]).max(initial=0) <= 1e-11 * size


@each_size
def test_shortest_is_on_the_plane(n):
    cosines, prices = cosines_of(n), tf.constant(10.0 ** -np.arange(n))
    y = solvers.shortest(cosines, prices).numpy()
    assert y.min() >= 0 and y @ prices.numpy() == pytest.approx(1)


@each_size
def test_dual_cone_projects(n):
    cosines = cosines_of(n)
    y = solvers.dual_cone(cosines).numpy()
    products = y @ cosines.numpy()
    added = y - np.eye(n)
    assert products.min() > -1e-9 and added.min() >= 0
    np.testing.assert_allclose(added * products, 0, atol=1e-9)


@each_size
def test_bargain(n):
    cosines = cosines_of(n)
    y = solvers.bargain(cosines, 20).numpy()
    np.testing.assert_allclose(cosines.numpy() @ y * y, 1, rtol=1e-7)


def test_worst_case_of_two_orthogonal():
    cosines, one = tf.eye(2, dtype=tf.float64), tf.ones(2, tf.float64)
    for start in ([0.0, 0.0], [1.0, 0.8]):
        slopes = tf.constant(start, tf.float64)
        y = solvers.worst_case(
            cosines, slopes, one, tf.constant(1.0, tf.float64)
        ).numpy()
        found = np.asarray(start) + y
        assert np.linalg.norm(y) == pytest.approx(1)
        assert found[0] == pytest.approx(found[1])


def test_quotient_by_nothing_is_zero():
    values = solvers.quotient(tf.ones(3), tf.constant([2.0, 0.0, -1.0]))
    assert values.numpy().tolist() == [0.5, 0.0, 0.0]
