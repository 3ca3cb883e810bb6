"""The layers of fields and sequences against their twins in NumPy."""

import keras
import numpy as np
import pytest
import twins
import twins_fields

from tfmtl import layers

SIZES = [(1, 1, 1), (1, 4, 3), (3, 1, 2), (5, 6, 4), (4, 9, 1)]  # batch, length, units
each_size = pytest.mark.parametrize("batch, length, units", SIZES)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def some_ids(batch, length):
    """Rows, some of them missing anywhere; all of the last example's."""
    ids = np.random.default_rng(7).integers(0, 3, (batch, length))
    ids[-1] = 0
    return ids if batch > 1 else np.ones_like(ids)


def assert_close(got, expected):
    got = keras.ops.convert_to_numpy(got)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@each_size
@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
def test_sequence_pooling(batch, length, units, kind):
    values, ids = numbers(0, batch, length, units), some_ids(batch, length)
    got = layers.SequencePooling(kind)([values, ids])
    assert_close(got, twins_fields.sequence_pooling(values, ids, kind))


@each_size
@pytest.mark.parametrize(
    "hidden, activation, plain",
    [
        ((3,), "silu", twins_fields.silu),
        ((4, 2), "relu", twins.relu),
        ((), None, twins.identity),
    ],
)
def test_target_attention(batch, length, units, hidden, activation, plain):
    values, ids = numbers(0, batch, length, units), some_ids(batch, length)
    target = numbers(1, batch, 1, units)
    layer = layers.TargetAttention(hidden, activation)
    layer([values, ids, target])
    layer.set_weights([numbers(k, *w.shape) for k, w in enumerate(layer.weights)])
    weights = layer.get_weights()
    got = layer([values, ids, target])
    expected = twins_fields.target_attention(
        values, ids, target, weights[::2], weights[1::2], plain
    )
    assert_close(got, expected)


@pytest.mark.parametrize("batch, fields, width", SIZES)
@pytest.mark.parametrize("gamma, zeta", [(-0.1, 1.1), (-1.0, 2.0)])
def test_field_gate(batch, fields, width, gamma, zeta):
    x = numbers(0, batch, fields, width)
    arguments = {"gamma": gamma, "zeta": zeta}
    layer = layers.FieldGate(map(str, range(fields)), hard_concrete=arguments)
    layer.build(x.shape)
    layer.gate.set_log_alpha(2 * numbers(1, fields))
    log_alpha = keras.ops.convert_to_numpy(layer.gate.log_alpha)
    assert_close(layer(x), twins_fields.field_gate(x, log_alpha, gamma, zeta))


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("bins", [1, 10, 997, 2**31 - 1])
def test_hashed_cross(columns, bins):
    ids = np.random.default_rng(0).integers(0, 2**31, (50, columns))
    ids[:25] %= 5
    got = keras.ops.convert_to_numpy(layers.HashedCross(bins)(ids))
    np.testing.assert_array_equal(got, twins_fields.hashed_cross(ids, bins))
