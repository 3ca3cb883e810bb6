"""Standardize, Bucketize, FieldEmbedding, Tower: edges and refusals."""

import keras
import numpy as np
import pytest

from tfmtl import layers


def test_tower_head_is_float32_under_mixed_precision():
    tower = layers.Tower((4,), dtype="mixed_float16")
    y = tower(np.ones((2, 3), "f4"))
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    assert tower.hidden[0].compute_dtype == "float16"


def test_tower_without_hidden_layer_is_its_head():
    tower = layers.Tower((), 2)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("f4")
    y = keras.ops.convert_to_numpy(tower(x))
    kernel, bias = tower.get_weights()
    np.testing.assert_allclose(y, x @ kernel + bias, atol=1e-6)
    assert tower.flops() == 2 * 3 * 2


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"units": (4, 0)},
            "`units` should be a positive integer. Received: units=0",
        ),
        (
            {"output_units": 1.5},
            "`output_units` should be a positive integer. Received: output_units=1.5",
        ),
    ],
)
def test_tower_refuses(arguments, text):
    with pytest.raises(ValueError) as error:
        layers.Tower(**arguments)
    assert str(error.value) == text


def test_unknown_ids_read_row_0_of_their_own_field():
    layer = layers.FieldEmbedding([2, 3], 1)
    layer.build((None, 2))
    layer.set_weights([np.arange(5, dtype="f4")[:, None]])
    ids = np.array([[1, 2], [2, 3], [-1, -5], [10**12, 10**12]])
    got = keras.ops.convert_to_numpy(layer(ids))[:, :, 0]
    assert got.tolist() == [[1, 4], [0, 2], [0, 2], [0, 2]]


@pytest.mark.parametrize(
    "sizes, units, text",
    [
        ([3, 0], 4, "`sizes` should be a positive integer. Received: sizes=0"),
        ([3], 0, "`units` should be a positive integer. Received: units=0"),
    ],
)
def test_field_embedding_refuses(sizes, units, text):
    with pytest.raises(ValueError) as error:
        layers.FieldEmbedding(sizes, units)
    assert str(error.value) == text


@pytest.mark.parametrize("shape", [(None, 3), (None,), (None, 2, 1)])
def test_field_embedding_refuses_another_number_of_fields(shape):
    with pytest.raises(ValueError) as error:
        layers.FieldEmbedding([3, 4], 2).build(shape)
    assert str(error.value) == (
        "FieldEmbedding should be called on ids of shape (batch, 2). "
        f"Received: shape={shape}"
    )


def test_standardize_refuses():
    with pytest.raises(ValueError) as error:
        layers.Standardize([0.0, 1.0], [1.0], [False])
    assert str(error.value) == (
        "`mean`, `std`, `log` should have one entry per column. Received: "
        "lengths={'mean': 2, 'std': 1, 'log': 1}"
    )
    with pytest.raises(ValueError) as error:
        layers.Standardize([0.0], [0.0], [False])
    assert str(error.value) == "`std` should be greater than 0. Received: std=[0.0]"


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_standardize_keeps_within_a_thousand_deviations(policy):
    x = np.array([[3e38, -1e5], [-3e38, 1e5], [np.nan, np.inf], [0.0, -2.0]], "f4")
    layer = layers.Standardize([-3e38, 0.0], [0.1, 1e-3], [False] * 2, dtype=policy)
    y = keras.ops.convert_to_numpy(layer(x)).astype("f4")
    assert y.tolist() == [[1e3, -1e3], [0.0, 1e3], [0.0, 0.0], [1e3, -1e3]]


def test_standardize_reads_a_number_of_each_column_as_missing():
    layer = layers.Standardize(
        [1.0, 1.0], [2.0, 2.0], [True] * 2, [(0, 9)] * 2, missing=[-1.0, None]
    )
    layer = layers.Standardize.from_config(layer.get_config())
    x = np.array([[-1.0, -1.0], [np.e - 1, np.e**3 - 1]], "f4")
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(y, [[0.0, -0.5], [0.0, (np.log(10) - 1) / 2]], atol=1e-6)


@pytest.mark.parametrize("column", [[1.0, 1.0], [2.0, 1.0]])
def test_bucketize_refuses(column):
    with pytest.raises(ValueError) as error:
        layers.Bucketize([[0.0, 1.0], column])
    assert str(error.value) == (
        f"`boundaries` should ascend in each column. Received: {column}"
    )


def test_bucketize_of_a_number_that_is_missing():
    layer = layers.Bucketize([[0.0, 1.0], [0.0]], missing=[-1, None])
    x = np.array([[-1.0, -1.0], [-2.0, np.nan], [1.0, 5.0]], "f4")
    expected = [[0, 1], [1, 0], [3, 2]]
    assert keras.ops.convert_to_numpy(layer(x)).tolist() == expected
    again = layers.Bucketize.from_config(layer.get_config())
    assert keras.ops.convert_to_numpy(again(x)).tolist() == expected
    with pytest.raises(ValueError) as error:
        layers.Bucketize([[0.0], [1.0]], missing=[-1.0])
    assert str(error.value) == (
        "`missing` should have one entry per column, 2. Received: missing=[-1.0]"
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_large_values_under_mixed_precision(policy):
    x = np.array([[1e6], [1e6 + 1]], "f4")
    buckets = layers.Bucketize([[1e6 + 1]], dtype=policy)(x)
    assert keras.ops.convert_to_numpy(buckets).tolist() == [[1], [2]]
    y = layers.Standardize([1e6], [1.0], [False], dtype=policy)(x)
    assert keras.ops.convert_to_numpy(y).astype("f4").tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_position_bias_reads_columns_of_any_type(dtype, policy):
    layer = layers.PositionBias(300, dropout=0.0, dtype=policy)
    layer.build((None, 1))
    bias = np.arange(301, dtype="f4")[:, None]
    layer.bias.assign(bias)
    positions = np.array([[0], [3], [200], [254]])
    column = keras.ops.cast(positions, dtype)
    np.testing.assert_array_equal(
        layer(column, training=True), bias[positions[:, 0] + 1]
    )


def test_position_bias_takes_what_is_no_position_as_missing():
    layer = layers.PositionBias(2, dropout=0.0)
    layer.build((None, 1))
    layer.bias.assign([[5.0], [6.0], [7.0]])
    floats = np.array([[np.nan], [np.inf], [-1], [2], [1]], "f4")
    got = layer(floats, training=True)
    np.testing.assert_array_equal(got, [[5.0], [5.0], [5.0], [5.0], [7.0]])
    huge = np.array([[2**32], [-(2**40)], [0]])
    np.testing.assert_array_equal(layer(huge, training=True), [[5.0], [5.0], [6.0]])


def test_ragged_reads_are_refused():
    with pytest.raises(ValueError, match=r"`reads` .* of shape \(2, 3\)"):
        layers.SoftmaxGate(2, 3, [[1, 0, 1], [1]])


def test_mixture_refuses_experts_alone():
    with pytest.raises(ValueError, match=r"should be called on \[experts, weights\]"):
        layers.Mixture()(np.ones((5, 2, 3)))
