"""Groups of weights: which, frozen, and at a learning rate of their own."""

import keras
import numpy as np
import pytest
from trained_models import FEATURES, network, outputs, rows_of

from tfmtl.finetuning import freeze, groups, learning_rates, unfreeze
from tfmtl.models import mmoe, snr
from tfmtl.tasks import Binary


def paths(weights):
    return sorted({weight.path for weight in weights})


def layers_of(weights):
    return sorted({weight.path.split("/")[0] for weight in weights})


def test_every_weight_is_in_one_kind():
    model = network("ple_deep", "a", "b")
    found = groups(model)
    kinds = [found[name] for name in ("features", "experts", "gates", "towers")]
    together = [id(weight) for weights in kinds for weight in weights]
    assert len(together) == len(set(together))
    assert set(together) == {id(weight) for weight in model.weights}
    assert layers_of(found["embeddings"]) == ["embedding_4"]
    assert layers_of(found["gates"]) == [f"level_{k}_gate" for k in (1, 2, 3)]
    assert layers_of(found["a"]) == ["a_tower"]


def test_a_routing_has_experts_and_gates():
    found = groups(network("snr", "a", "b"))
    assert all("/gate/" in path for path in paths(found["gates"]))
    assert layers_of(found["gates"]) == ["level_2", "task_routing"]
    assert "level_2/kernel" in paths(found["experts"])


@pytest.mark.parametrize("names", [("gates",), ("embeddings", "towers"), ("a",)])
def test_what_is_frozen_stays(names):
    model = freeze(snr(FEATURES, [Binary("a"), Binary("b")], [(3, 4), (3, 4)]), *names)
    found = groups(model)
    frozen = {id(weight) for name in names for weight in found[name]}
    before = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    rows = rows_of(model)
    labels = np.arange(len(rows["x"]), dtype="f4") % 2
    model.compile(keras.optimizers.Adam(0.1))
    model.fit(rows, {"a": labels, "b": 1 - labels}, verbose=0, epochs=2)
    for weight in model.weights:
        if "seed" in weight.path or weight.path.endswith("/l0"):
            continue
        same = np.array_equal(before[weight.path], keras.ops.convert_to_numpy(weight))
        assert same == (id(weight) in frozen), weight.path


def test_but_and_unfreeze_are_opposites():
    model = network("mmoe", "a", "b")
    all_of_it = paths(model.trainable_weights)
    freeze(model, but=["gates", "a"])
    assert layers_of(model.trainable_weights) == ["a_tower", "task_gate"]
    freeze(model, but=["embeddings"])
    assert layers_of(model.trainable_weights) == ["embedding_4"]
    freeze(model, but=["gates", "a"])
    unfreeze(model, "level_1")
    assert "level_1" in layers_of(model.trainable_weights)
    unfreeze(model)
    assert paths(model.trainable_weights) == all_of_it


def test_the_weight_of_a_penalty_never_trains():
    model = network("snr", "a", "b")
    all_of_it = paths(model.trainable_weights)
    freeze(model, but=["gates"])
    kept = paths(model.trainable_weights)
    assert kept == ["level_2/gate/theta", "task_routing/gate/theta"]
    assert paths(unfreeze(model).trainable_weights) == all_of_it


@pytest.mark.parametrize("hard_concrete", [{}, {"trainable": False}])
def test_gates_frozen_alone_stay_so_in_a_file(tmp_path, hard_concrete):
    routing = {"hard_concrete": hard_concrete}
    model = snr(FEATURES, [Binary("a"), Binary("b")], [(3, 4), (3, 4)], routing=routing)
    kept = freeze(unfreeze(model), "gates").trainable_weights
    assert {"level_2", "task_routing"} <= set(layers_of(kept))
    assert not any("/gate/" in path for path in paths(kept))
    for train in (lambda model: model, unfreeze):
        expected = paths(train(model).trainable_weights)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert paths(loaded.trainable_weights) == expected


def test_frozen_layers_stay_so_in_a_file(tmp_path):
    model = freeze(network("mmoe", "a", "b"), but=["b"])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert layers_of(loaded.trainable_weights) == ["b_tower"]


def test_frozen_normalisation_is_that_of_inference():
    model = mmoe(FEATURES, [Binary("a")], expert={"normalization": "batch"})
    freeze(model, "experts")
    rows = rows_of(model)
    one = model(rows, training=True)["a"]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(one), outputs(model, rows)["a"], rtol=1e-5
    )


def test_learning_rates_by_group():
    model = network("snr", "a", "b")
    slow = keras.optimizers.SGD(1e-3)
    rates = {"towers": 0.5, "a": slow}
    model.compile(learning_rates(model, rates, keras.optimizers.SGD(0.0)))
    before = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    rows = rows_of(model)
    labels = np.arange(len(rows["x"]), dtype="f4") % 2
    model.fit(rows, {"a": labels, "b": labels}, verbose=0)
    moved = {
        weight.path: np.abs(
            before[weight.path] - keras.ops.convert_to_numpy(weight)
        ).max()
        for weight in model.trainable_weights
    }
    assert moved["level_1/kernel_1"] == 0
    assert moved["a_tower/head/bias"] < 1e-2
    assert moved["b_tower/head/bias"] > 0.1


def test_learning_rates_are_saved(tmp_path):
    model = network("mmoe", "a", "b")
    model.compile(learning_rates(model, {"embeddings": 1e-4, "towers": 1e-2}))
    rows = rows_of(model)
    labels = np.arange(len(rows["x"]), dtype="f4") % 2
    model.fit(rows, {"a": labels}, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    pairs = zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )


def test_gates_have_no_weight_decay():
    model = network("snr", "a", "b")
    decaying = keras.optimizers.AdamW(1e-3, weight_decay=0.5)
    model.compile(learning_rates(model, {"gates": decaying}))
    before = keras.ops.convert_to_numpy(model.get_layer("level_2").gate.theta)
    freeze(model, "experts", "towers", "features")
    rows = rows_of(model)
    model.fit(rows, {"a": np.full(len(rows["x"]), np.nan, "f4")}, verbose=0)
    after = keras.ops.convert_to_numpy(model.get_layer("level_2").gate.theta)
    np.testing.assert_allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("call", [freeze, unfreeze])
def test_unknown_names(call):
    model = network("mmoe", "a")
    with pytest.raises(ValueError, match=r"among \['features', .*'a'\], or names of"):
        call(model, "expert")


def test_names_or_but():
    model = network("mmoe", "a")
    with pytest.raises(ValueError, match=r"or `but` should be given. Received: \[\]"):
        freeze(model)
