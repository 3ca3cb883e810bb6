"""The compensated sum: exact where a float32 sum stands still."""

import numpy as np
import pytest
import tensorflow as tf

from tfmtl.metrics.sums import CompensatedSum


def eager(function):
    return function


def graph(function):
    return tf.function(function)


def compiled(function):
    return tf.function(function, jit_compile=True)


@pytest.mark.parametrize("mode", [eager, graph, compiled])
def test_keeps_what_float32_loses(mode):
    total = CompensatedSum((2,))
    update = mode(total.update_state)
    update(tf.constant([2.0**24, 1e8]))
    for _ in range(1000):
        update(tf.constant([1.0, 0.1]))
    result = total.result().numpy()
    np.testing.assert_array_equal(result, np.float32([2**24 + 1000, 1e8 + 100]))
    assert total.total[0] == 2**24  # a plain sum


def test_many_values_of_both_signs():
    values = np.random.default_rng(0).normal(size=300).astype("f4") * 1e4
    total = CompensatedSum(())
    for value in values:
        total.update_state(value)
    np.testing.assert_allclose(total.result(), values.sum(dtype="f8"), rtol=1e-6)


def test_reset():
    total = CompensatedSum((2,))
    total.update_state([2.0**24, 1.0])
    total.update_state([1.0, 1.0])
    total.reset_state()
    np.testing.assert_array_equal(total.result(), [0, 0])
