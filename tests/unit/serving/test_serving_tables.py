"""Tables in fewer bits: size, error, what they leave alone."""

import keras
import numpy as np
import pytest
from scipy.stats import spearmanr

from tfmtl import features, models, tasks
from tfmtl.layers import FieldEmbedding
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.serving.saved_model import read_variables
from tfmtl.serving.tables import (
    CompactEmbedding,
    table_errors,
    with_compact_tables,
    with_tables_apart,
)

BINS = 300_000


@pytest.fixture(scope="module")
def ranker():
    keras.utils.set_random_seed(0)
    columns = [
        features.Categorical("user", dtype="int64", hash_bins=BINS),
        features.Categorical("item", dtype="int64", hash_bins=BINS, table="item"),
        features.Sequence(
            "seen", dtype="int64", hash_bins=BINS, length=4, table="item"
        ),
        features.Numeric("age", mean=(0.0,), std=(1.0,)),
    ]
    return models.mmoe(columns, [tasks.Binary("click"), tasks.Binary("like")])


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    return {
        "user": generator.integers(0, 2**40, (500, 1)),
        "item": generator.integers(0, 2**40, (500, 1)),
        "seen": generator.integers(-1, 2**40, (500, 4)),
        "age": generator.normal(size=(500, 1)).astype("float32"),
    }


@pytest.mark.parametrize(
    ("kind", "share", "error"), [("float16", 0.5, 1e-5), ("int8", 0.375, 1e-4)]
)
def test_tables_shrink_and_the_error_is_told(
    ranker, rows, tmp_path, kind, share, error
):
    whole = export(ranker, tmp_path / "whole", golden=rows)
    small = export(ranker, tmp_path / "small", golden=rows, tables=kind)
    # int8 rows of 8 numbers have a scale of 4 bytes each
    assert small.scan.variable_bytes == share * whole.scan.variable_bytes
    types = {array.dtype.name for array in read_variables(small.path).values()}
    assert kind in types
    served = [run_in_cpp_session(e.path, rows) for e in (whole, small)]
    assert set(small.table_errors) == {"click", "like"}
    for name, told in small.table_errors.items():
        first, second = (answers[name].ravel() for answers in served)
        difference = np.abs(first - second).max()
        assert 0 < difference < error
        np.testing.assert_allclose(told.difference, difference, rtol=0.1, atol=1e-7)
        rank = spearmanr(first, second).statistic
        np.testing.assert_allclose(told.rank_correlation, rank, atol=1e-4)
    assert whole.table_errors == {}


@pytest.mark.parametrize("kind", ["float16", "int8"])
@pytest.mark.parametrize("sizes", [None, [3, 2]])
def test_rows_are_the_tables(kind, sizes):
    table = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    table[2] = 0
    layer = CompactEmbedding(table, kind, sizes)
    ids = np.array([[0, 1], [2, 0], [9, -3]])
    rows = np.array([[0, 4], [2, 3], [0, 3]])
    if sizes is None:
        ids, rows = rows, rows
    found = np.asarray(layer(ids))
    step = np.abs(table).max(axis=1)[rows][..., None] / (254 if kind == "int8" else 2e3)
    assert (np.abs(found - table[rows]) <= step + 1e-9).all()
    again = CompactEmbedding.from_config(layer.get_config())
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(np.asarray(again(ids)), found)
    symbolic = layer(keras.KerasTensor((None, 2), "int64"))
    assert (symbolic.shape, symbolic.dtype) == ((None, 2, 6), "float32")


def test_small_masked_and_too_large_tables_stay():
    ids = keras.Input((1,), dtype="int32", name="ids")
    layers = [
        keras.layers.Embedding(10, 8, name="small"),
        keras.layers.Embedding(5000, 8, mask_zero=True, name="masked"),
        keras.layers.Embedding(5000, 8, name="huge"),
        keras.layers.Embedding(5000, 8, name="compact"),
    ]
    pool = keras.layers.GlobalAveragePooling1D
    parts = [pool(name=f"pool_{k}")(layer(ids)) for k, layer in enumerate(layers)]
    model = keras.Model({"ids": ids}, {"y": keras.layers.Concatenate()(parts)})
    layers[2].set_weights([np.full((5000, 8), 7e4, "float32")])
    compact = with_compact_tables(model, "float16")
    kinds = {
        name: type(compact.get_layer(name)).__name__
        for name in ("small", "masked", "huge", "compact")
    }
    assert kinds == {
        "small": "Embedding",
        "masked": "Embedding",
        "huge": "Embedding",
        "compact": "CompactEmbedding",
    }


def test_an_unknown_kind_is_refused(ranker, tmp_path):
    message = (
        r"`tables` should be one of \('float16', 'int8'\). Received: tables='int4'"
    )
    with pytest.raises(ValueError, match=message):
        export(ranker, tmp_path, tables="int4")
    assert not list(tmp_path.iterdir())


def test_errors_of_equal_and_constant_outputs():
    same = {"y": np.array([[1.0], [2.0], [2.0]])}
    assert table_errors(same, same)["y"].rank_correlation == pytest.approx(1)
    flat = {"y": np.ones((3, 1))}
    assert table_errors(flat, flat)["y"].rank_correlation == 1
    assert table_errors(flat, same)["y"].rank_correlation == 0
    assert table_errors(flat, same)["y"].difference == 1


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([4, 4, 4, 4], [8, 8]),
        ([1, 12, 1, 2], [13, 3]),
        ([1] * 15, [7, 8]),
        ([10, 10, 10, 1, 1], [10, 10, 12]),
        ([40, 1, 1], [40, 2]),
        ([5, 2], [7]),
        ([40], [40]),
    ],
)
def test_large_tables_are_read_side_by_side(monkeypatch, apart, sizes, parts):
    monkeypatch.setattr("tfmtl.serving.tables.LARGE", 14)  # 7 rows of 2 numbers
    layer = FieldEmbedding(sizes, 2, embeddings_initializer="normal", name="table")
    names = [f"id_{k}" for k in range(len(sizes))]
    inputs = {name: keras.Input((1,), dtype="int64", name=name) for name in names}
    ids = [*inputs.values()]
    joined = ids if apart else keras.ops.concatenate(ids, axis=1)
    model = keras.Model(inputs, {"y": keras.layers.Flatten()(layer(joined))})
    cut = with_tables_apart(model)
    assert (cut is model) == (len(parts) == 1)
    assert [w.shape[0] for w in cut.weights] == parts
    generator = np.random.default_rng(0)
    rows = {name: generator.integers(-2, 50, (64, 1)) for name in inputs}
    np.testing.assert_array_equal(cut(rows)["y"], model(rows)["y"])


def test_a_version_holds_the_parts(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("tfmtl.serving.tables.LARGE", BINS * 8)
    columns = [
        features.Categorical(f"id_{k}", dtype="int64", hash_bins=BINS, units=8)
        for k in range(3)
    ]
    model = models.mmoe(columns, [tasks.Binary("click")])
    ids = {f"id_{k}": rows["user"] + k for k in range(3)}
    written = export(model, tmp_path, golden=ids)
    stored = [array.shape for array in read_variables(written.path).values()]
    assert len(stored) == 3
    assert sum(shape[0] for shape in stored) == 3 * (BINS + 1)
    expected = keras.ops.convert_to_numpy(model(ids)["click"])
    served = run_in_cpp_session(written.path, ids)["click"]
    np.testing.assert_allclose(served, expected, atol=1e-6)
