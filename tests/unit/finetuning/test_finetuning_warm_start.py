"""Warm starts: what axes stand for decides what is taken."""

import keras
import numpy as np
import pytest
from trained_models import FEATURES, RECIPES, network, outputs, rows_of, same

from tfmtl.features import Bucketized, Categorical, Numeric
from tfmtl.finetuning import warm_start
from tfmtl.models import mmoe, shared_bottom
from tfmtl.tasks import Binary

# Streams of these are read by all tasks: they go by number, in the tasks' order.
IN_ORDER = ("adatt", "cross_stitch", "ple", "ple_deep")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_architecture_gives_the_same_outputs(recipe):
    old, model = network(recipe, "a", "b"), network(recipe, "a", "b", seed=1)
    found = warm_start(model, old)
    assert found.resized == {} and found.new == [] and found.left == []
    rows = rows_of(model)
    assert same(outputs(old, rows), outputs(model, rows))


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in IN_ORDER])
def test_tasks_in_another_order_with_a_new_one(recipe):
    old, model = network(recipe, "a", "b"), network(recipe, "b", "new", "a", seed=1)
    found = warm_start(model, old)
    assert any(name.startswith("new_tower/") for name in found.new)
    rows = rows_of(model)
    before, after = outputs(old, rows), outputs(model, rows)
    for name in "ab":
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-6)


def test_columns_and_values_in_another_order():
    x = Numeric("x", width=2, mean=(0.0,) * 2, std=(1.0,) * 2)
    word = Categorical("word", vocabulary=("a", "b"), units=3)
    more = Categorical("word", vocabulary=("c", "b", "a"), units=3)
    y = Numeric("y", width=1, mean=(0.0,), std=(1.0,))
    buckets = Bucketized("x1", boundaries=(0.0, 1.0), units=3)
    old = mmoe([x, word], [Binary("a")], 2, [4])
    model = mmoe([y, buckets, more, x], [Binary("a")], 2, [4])
    found = warm_start(model, old)
    assert set(found.resized) == {
        "embedding_3/embeddings",
        "level_1/kernel_1",
        "task_gate/kernel",
    }
    kernel = keras.ops.convert_to_numpy(model.get_layer("level_1").kernels[0])
    kernel = kernel.copy()
    names = [name for name in model.input]
    assert set(names) == {"y", "x1", "word", "x"}
    rows = {
        "x": np.random.default_rng(0).normal(size=(9, 2)).astype("f4"),
        "word": np.array([["a"], ["b"], [""]] * 3),
        "y": np.zeros((9, 1), "f4"),
        "x1": np.full((9, 1), np.nan, "f4"),
    }
    # what is new adds nothing: its rows of the tables are set to 0, and y is 0
    layer = model.get_layer("embedding_3")
    table = keras.ops.convert_to_numpy(layer.embeddings).copy()
    table[: layer.sizes[0] if layer.sizes[0] == 4 else 0] = 0
    layer.embeddings.assign(table)
    given = {name: keras.ops.convert_to_tensor(v) for name, v in rows.items()}
    before, after = outputs(old, given), outputs(model, given)
    np.testing.assert_allclose(after["a"], before["a"], rtol=1e-5, atol=1e-6)


def test_wider_and_deeper():
    old = network("shared_bottom", "a")
    model = shared_bottom(FEATURES, [Binary("a")], [9, 4], tower={"units": (16,)})
    found = warm_start(model, old)
    assert found.resized["level_1/kernel_1"] == pytest.approx(6 / 9)
    assert "level_1/kernel_2" in found.new
    one, other = (m.get_layer("level_1").kernels[0] for m in (model, old))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(one)[:, :, :6], keras.ops.convert_to_numpy(other)
    )


def test_layers_of_other_names():
    old, model = network("mmoe", "click"), network("mmoe", "tap", seed=1)
    found = warm_start(model, old, {"tap": "click"})
    assert found.new == [] and found.left == []
    rows = rows_of(model)
    np.testing.assert_array_equal(
        outputs(model, rows)["tap"], outputs(old, rows)["click"]
    )
    left = warm_start(network("mmoe", "tap"), old)
    assert left.left == ["task_gate", "click_tower"]
    found = warm_start(network("mmoe", "tap"), old, {"tap_tower": "click_tower"})
    assert found.new == ["task_gate/kernel"]
    assert "new         5   task_gate/kernel, tap_tower/hidden_1/kernel" in str(left)


def test_from_weights_that_keras_saved(tmp_path):
    trained = network("mmoe", "a", "b")
    trained.save_weights(tmp_path / "w.weights.h5")
    old = network("mmoe", "a", "b", seed=1)
    old.load_weights(tmp_path / "w.weights.h5")
    model = network("mmoe", "a", "b", seed=2)
    warm_start(model, old)
    rows = rows_of(model)
    assert same(outputs(trained, rows), outputs(model, rows))


def test_errors():
    model, old = network("mmoe", "a"), network("mmoe", "a")
    with pytest.raises(
        ValueError, match=r"or layers with weights, .*Received: \['z'\]"
    ):
        warm_start(model, old, {"z": "level_1"})
    inputs = keras.Input((2,), name="q")
    other = keras.Model({"q": inputs}, {"z": keras.layers.Dense(1, name="z")(inputs)})
    with pytest.raises(ValueError, match="layers of the model's names"):
        warm_start(model, other)
