"""Layers of fields: edges, refusals, and each field by itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import layers


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def refused(layer, inputs):
    with pytest.raises(ValueError) as error:
        layer(inputs)
    return str(error.value)


@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
def test_gradients_of_empty_sequences_are_finite(kind):
    values = keras.Variable(np.ones((2, 3, 4), "f4"))
    ids = np.array([[0, 0, 0], [0, 5, 5]])
    layer = layers.SequencePooling(kind)
    with tf.GradientTape() as tape:
        total = keras.ops.sum(layer([values.value, ids]))
    gradient = tape.gradient(total, values.value).numpy()
    assert np.isfinite(gradient).all()
    assert not gradient[0].any() and not gradient[1, 0].any()
    assert gradient[1, 1:].any()


@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_sequences_of_no_length(kind, policy):
    y = layers.SequencePooling(kind, dtype=policy)(
        [np.ones((2, 0, 4), "f4"), np.ones((2, 0), "int64")]
    )
    assert numpy(y).tolist() == np.zeros((2, 1, 4)).tolist()


def test_attention_of_sequences_of_no_length():
    layer = layers.TargetAttention()
    x = [np.ones((2, 0, 4), "f4"), np.ones((2, 0), "int64"), np.ones((2, 1, 4), "f4")]
    assert numpy(layer(x)).tolist() == np.zeros((2, 1, 4)).tolist()


def test_refused_sequences():
    values, ids, target = np.ones((2, 3, 4)), np.ones((2, 3)), np.ones((2, 1, 4))
    assert refused(layers.SequencePooling(), [values, values]) == (
        "SequencePooling should be called on [values, ids], of shapes (batch, length, "
        "units) and (batch, length). Received: shapes=[(2, 3, 4), (2, 3, 4)]"
    )
    assert "should be called on [values, ids, target], of shapes" in refused(
        layers.TargetAttention(), [values, ids]
    )
    assert "with a target of shape (batch, 1, 4). Received: shapes=" in refused(
        layers.TargetAttention(), [values, ids, target[:, :, :3]]
    )
    with pytest.raises(ValueError, match="`kind` should be one of .* kind='min'"):
        layers.SequencePooling("min")


def test_field_gate_refuses_another_number_of_fields():
    assert refused(layers.FieldGate(["a", "b"]), np.ones((2, 3, 4))) == (
        "FieldGate should be called on 2 fields. Received: shape=(2, 3, 4)"
    )
    assert "should be called on a tensor of shape (batch, slots, width)" in refused(
        layers.FieldGate(["a"]), np.ones((2, 3))
    )


def test_field_gate_draws_in_training_alone():
    gate = layers.FieldGate(["a", "b", "c"], hard_concrete={"seed": 1})
    x = np.ones((5, 3, 2), "f4")
    gate.build(x.shape)
    gate.gate.set_log_alpha(0.0)
    drawn = [numpy(gate(x, training=True)) for _ in range(2)]
    assert not np.array_equal(*drawn)
    np.testing.assert_array_equal(drawn[0], np.broadcast_to(drawn[0][0], x.shape))
    np.testing.assert_allclose(gate(x, training=False), 0.5 * x)


def test_standardize_by_fields():
    mean, std = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 1.0, 2.0]
    clip = [[None, None], [0.0, None], [None, 5.0], [-1.0, 1.0]]
    x = np.random.default_rng(0).normal(scale=9, size=(6, 4)).astype("f4")
    x[0] = [np.nan, np.inf, -np.inf, 1.0]
    layer = layers.Standardize(mean, std, [False] * 4, clip)
    whole = numpy(layers.Standardize(mean, std, [False] * 4, clip)(x))
    fields = numpy(layer([x[:, :2], x[:, 2:]]))
    np.testing.assert_array_equal(fields, whole.reshape(6, 2, 2))
    lower = [-np.inf if pair[0] is None else pair[0] for pair in clip]
    upper = [np.inf if pair[1] is None else pair[1] for pair in clip]
    with np.errstate(invalid="ignore"):
        expected = (np.clip(x, lower, upper) - mean) / std
    expected[~np.isfinite(x)] = 0
    np.testing.assert_allclose(whole, expected, rtol=1e-6)


@pytest.mark.parametrize("shapes", [[(2, 1), (2, 3)], [(2, 2)], (2, 3)])
def test_standardize_refuses_other_columns(shapes):
    several = isinstance(shapes, list)
    inputs = [np.ones(shape) for shape in shapes] if several else np.ones(shapes)
    message = refused(layers.Standardize([0.0] * 4, [1.0] * 4, [False] * 4), inputs)
    assert message == (
        "Standardize should be called on 4 columns, in fields of equal width. "
        f"Received: shape={shapes}"
    )


def test_bucketize_one_by_one():
    x = np.array([[0.0, 5.0], [2.0, np.nan]], "f4")
    boundaries = [[1.0], [3.0, 4.0]]
    first, second = layers.Bucketize(boundaries)([x[:, :1], x[:, 1:]])
    assert numpy(first).tolist() == [[1], [2]]
    assert numpy(second).tolist() == [[3], [0]]
    assert refused(layers.Bucketize(boundaries), x[:, :1]) == (
        "Bucketize should be called on 2 columns. Received: shape=(2, 1)"
    )


def test_field_embedding_of_a_list_is_that_of_its_tensor():
    whole, apart = (layers.FieldEmbedding([3, 4], 2) for _ in range(2))
    ids = np.array([[0, 3], [2, 9], [-1, 1]])
    whole.build(ids.shape)
    apart.build([(3, 1), (3, 1)])
    apart.set_weights(whole.get_weights())
    np.testing.assert_array_equal(apart([ids[:, :1], ids[:, 1:]]), whole(ids))
    with pytest.raises(ValueError, match=r"on ids of shape \(batch, 2\)"):
        layers.FieldEmbedding([3, 4], 2).build([(3, 1), (3, 2)])


def test_bins_of_crosses_are_spread():
    ids = np.stack(np.meshgrid(np.arange(100), np.arange(100)), -1).reshape(-1, 2)
    bins = numpy(layers.HashedCross(1000)(ids))[:, 0]
    counts = np.bincount(bins, minlength=1000)
    assert len(counts) == 1000
    # of 10 to expect in each bin, with a deviation of 3.2
    assert counts.max() < 35 and abs(counts.std() - np.sqrt(10)) < 1
    swapped = numpy(layers.HashedCross(1000)(ids[:, ::-1]))[:, 0]
    assert (bins == swapped).mean() < 0.02


def test_bins_of_any_integers():
    ids = np.array([[-(2**62), 2**62], [-1, 0]])
    bins = numpy(layers.HashedCross(7)(ids))
    assert ((bins >= 0) & (bins < 7)).all()
