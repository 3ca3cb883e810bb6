"""A new task: what it gets of its own, and that nothing else moves."""

import keras
import numpy as np
import pytest
from trained_models import (
    FEATURES,
    RECIPES,
    names_of,
    network,
    outputs,
    random_model,
    rows_of,
    same,
    tasks,
)

from tfmtl.finetuning import add_task, drop_task, freeze
from tfmtl.folding import fold
from tfmtl.layers import Experts, Tower
from tfmtl.models import MultiTaskModel, extraction, shared_bottom, snr
from tfmtl.serving import export, verify
from tfmtl.tasks import Binary, MultiClass, Position, Regression

# Layers with weights that a third or second task gets, beside its tower.
OWN = {
    "snr": ["new_task_routing"],
    "snr_average": ["new_task_routing"],
    "mmoe": ["new_task_gate"],
    "mmoe_hard": ["new_task_gate"],
    "mmoe_levels": ["new_task_gate"],
    "dselect_k": ["new_task_gate"],
    "omoe": [],
    "cgc": ["new_level_1_experts", "new_level_1_gate"],
    "ple": [f"new_level_{k}_{what}" for k in (1, 2) for what in ("experts", "gate")],
    "ple_deep": [
        f"new_level_{k}_{what}" for k in (1, 2, 3) for what in ("experts", "gate")
    ],
    "ple_own": ["new_level_1_experts", "new_level_2_experts"],
    "adatt": [f"new_level_{k}_{what}" for k in (1, 2) for what in ("gate", "residual")],
    "cross_stitch": ["new_level_2_stitch"],
    "shared_bottom": [],
    "single_task": ["new_task_a_bottom", "new_task_a_embedding_4"],
}


def new_layers(model, grown):
    old = names_of(model)
    return sorted(x.name for x in grown.layers if x.weights and x.name not in old)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("recipe", RECIPES)
def test_parts_are_those_that_the_architecture_has(recipe, count):
    model = network(recipe, *["a", "ab", "shared_x"][:count])
    rows = rows_of(model)
    before = outputs(model, rows)
    grown = add_task(model, Regression("new"))
    assert new_layers(model, grown) == sorted([*OWN[recipe], "new_tower"])
    after = outputs(grown, rows)
    assert same(before, after, before)
    assert after["new"].shape == (len(after["new"]), 1)
    assert same(outputs(model, rows), before)  # the old model is left alone


@pytest.mark.parametrize("recipe", RECIPES)
def test_new_parts_train_alone(recipe):
    model = network(recipe, "a", "ab")
    rows = rows_of(model)
    before = outputs(model, rows)
    grown = freeze(add_task(model, Binary("new")), but=["new"])
    trained = {weight.path.split("/")[0] for weight in grown.trainable_weights}
    assert trained == {*OWN[recipe], "new_tower"}
    start = {w.path: keras.ops.convert_to_numpy(w) for w in grown.trainable_weights}
    grown.compile(keras.optimizers.Adam(0.05))
    labels = np.arange(len(before["a"])) % 2
    grown.fit(rows, {"new": labels.astype("f4")}, epochs=3, verbose=0)
    moved = [
        weight.path
        for weight in grown.trainable_weights
        if not np.array_equal(start[weight.path], keras.ops.convert_to_numpy(weight))
    ]
    assert len(moved) >= len(trained)
    assert same(before, outputs(grown, rows), before)


@pytest.mark.parametrize("recipe", RECIPES)
def test_new_weights_are_no_copies(recipe):
    grown = add_task(network(recipe, "a", "ab"), Binary("new"))
    for name in [*OWN[recipe], "new_tower"]:
        old = "a_tower" if name == "new_tower" else name.removeprefix("new_")
        kernels = [
            [
                keras.ops.convert_to_numpy(w)
                for w in grown.get_layer(n).weights
                if "kernel" in w.path
            ]
            for n in (name, old)
        ]
        for one, other in zip(*kernels, strict=True):
            assert one.size == 0 or not np.isin(one, other).all()


@pytest.mark.parametrize("seed", range(10))
def test_random_models_keep_their_outputs(seed):
    model = random_model(seed)
    rows = rows_of(model)
    generator = np.random.default_rng(seed)
    like = str(generator.choice([task.name for task in model.tasks]))
    before = outputs(model, rows)
    grown = add_task(model, MultiClass("new", num_classes=4), like)
    after = outputs(grown, rows)
    assert same(before, after, before)
    assert after["new"].shape[1:] == (4,)
    back = drop_task(grown, "new")
    assert back.count_params() == model.count_params()
    np.testing.assert_allclose(outputs(back, rows)[like], before[like], 1e-5, 1e-5)
    folded = fold(grown)
    np.testing.assert_allclose(
        outputs(folded, rows)["new"], after["new"], rtol=2e-5, atol=2e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_folded_models_get_tasks(seed):
    folded = fold(random_model(seed))
    rows = rows_of(folded)
    before = outputs(folded, rows)
    grown = add_task(folded, Binary("new"))
    assert same(before, outputs(grown, rows), before)


@pytest.mark.parametrize(
    ("recipe", "own"),
    [
        ("mmoe", ["new_task_gate"]),
        ("snr", ["new_task_routing"]),
        ("ple", ["new_level_2_gate"]),
        ("shared_bottom", []),
    ],
)
def test_of_one_task_the_last_mixture_is_its_own(recipe, own):
    model = network(recipe, "a")
    assert new_layers(model, add_task(model, Binary("new"))) == [*own, "new_tower"]


def test_layers_named_are_shared():
    model = network("cgc", "a", "ab")
    grown = add_task(model, Binary("new"), shared=["level_1_experts"])
    assert new_layers(model, grown) == ["new_level_1_gate", "new_tower"]


def test_a_step_of_a_funnel():
    model = network("mmoe", "click", "like")
    rows = rows_of(model)
    grown = add_task(model, Binary("buy", after="click"), like="like")
    after = outputs(grown, rows)
    product = after["click"] * after["buy_given_click"]
    np.testing.assert_allclose(after["buy"], product, rtol=1e-6)


def test_a_task_with_a_position():
    position = Position("shown_at", 5)
    model = shared_bottom(FEATURES, [Binary("a", position=position)])
    for column in ("shown_at", "listed_at"):
        other = Position(column, 5)
        grown = add_task(model, Binary("new", position=other))
        assert set(grown.input) == {"x", "c", "shown_at", column}


def test_towers_are_like_the_other_or_as_given():
    model = snr(FEATURES, tasks("a", "b"), [(3, 4)], tower={"units": (5, 3)})
    assert add_task(model, Binary("new")).get_layer("new_tower").units == (5, 3)
    grown = add_task(model, Binary("new"), tower={"units": (7,), "dropout": 0.1})
    assert grown.get_layer("new_tower").units == (7,)
    assert grown.get_layer("new_tower").dropout == 0.1


def test_a_frozen_model_gets_parts_that_train():
    model = network("ple", "a", "b")
    model.trainable = False
    for layer in model.layers:
        layer.trainable = False
    grown = add_task(model, Binary("new"))
    names = {weight.path.split("/")[0] for weight in grown.trainable_weights}
    assert names == {*OWN["ple"], "new_tower"}


def test_a_composed_model(tmp_path):
    inputs = keras.Input((6,), name="x")
    x = keras.layers.Dense(8, "relu", name="stem")(inputs)
    x = Experts(3, 4, name="level_1")(x)
    x = keras.layers.LayerNormalization(name="between")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = extraction(x, [1, 1], 1, 4, last=True)
    streams = keras.ops.unstack(x, 2, axis=1)
    made = {
        name: Tower((3,), head_activation="sigmoid", name=name)(stream)
        for name, stream in zip("ab", streams, strict=True)
    }
    model = MultiTaskModel({"x": inputs}, made, tasks=tasks("a", "b"))
    grown = add_task(model, Binary("new"), like="b")
    assert new_layers(model, grown) == [
        "new_extraction_experts",
        "new_extraction_gate",
        "new_tower",
    ]
    rows = rows_of(model)
    assert same(outputs(model, rows), outputs(grown, rows), "ab")
    assert verify(export(grown, tmp_path, fold=True).path)


def test_of_a_tower_that_is_none_the_layer_is_named():
    inputs = keras.Input((6,), name="x")
    x = keras.layers.Dense(8, "relu", name="stem")(inputs)
    head = keras.layers.Dense(1, "sigmoid", name="head")(x)
    model = MultiTaskModel({"x": inputs}, {"a": head}, tasks=tasks("a"))
    with pytest.raises(
        ValueError, match=r"'a' should have a tfmtl.layers.Tower .* `re"
    ):
        add_task(model, Binary("new"))
    grown = add_task(model, Binary("new"), reads="stem")
    assert new_layers(model, grown) == ["new_tower"]


def test_saved_loaded_and_grown_again(tmp_path):
    grown = add_task(network("ple", "a", "b"), Binary("new"))
    rows = rows_of(grown)
    grown.save(tmp_path / "grown.keras")
    loaded = keras.saving.load_model(tmp_path / "grown.keras")
    assert same(outputs(grown, rows), outputs(loaded, rows))
    again = add_task(loaded, Binary("newer"), like="new")
    assert same(outputs(grown, rows), outputs(again, rows), outputs(grown, rows))
    assert "newer_new_level_2_gate" in names_of(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": Binary("a")}, r"different names. Received: names=\['a', 'b', 'a'\]"),
        ({"like": "c"}, r"of \['a', 'b'\]. Received: like='c'"),
        ({"shared": ["level_9"]}, r"`shared` should name a layer .*'level_9', no such"),
        ({"reads": "level_9"}, r"`reads` should name a layer .*'level_9', no such"),
        ({"task": Binary("c", after="z")}, "should come after a binary task"),
        ({"own": ["tables"]}, r"Groups should be among .* Received: 'tables'"),
        ({"own": ["towers"]}, r"`own` should name what several .* 'towers' is not"),
        (
            {"own": ["embeddings"], "shared": ["level_1"]},
            r"`shared` should not name what comes after .* shared=\['level_1'\], own=",
        ),
    ],
)
def test_errors(arguments, message):
    model = network("shared_bottom", "a", "b")
    with pytest.raises(ValueError, match=message):
        add_task(model, **{"task": Binary("c"), **arguments})


def test_a_model_without_tasks():
    inputs = keras.Input((2,), name="x")
    model = keras.Model({"x": inputs}, {"a": keras.layers.Dense(1)(inputs)})
    with pytest.raises(ValueError, match=r"MultiTaskModel\(model.input, model.output"):
        add_task(model, Binary("new"))


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r != "single_task"])
def test_copies_of_what_is_shared_train_for_the_new_task_alone(recipe, tmp_path):
    model = network(recipe, "a", "ab")
    rows = rows_of(model)
    before = outputs(model, rows)
    grown = freeze(add_task(model, Binary("new"), own=["embeddings"]), but=["new"])
    new = new_layers(model, grown)
    assert {*OWN[recipe], "new_embedding_4", "new_tower"} <= {*new}
    assert {w.path.split("/")[0] for w in grown.trainable_weights} == {*new}
    table, copy = model.get_layer("embedding_4"), grown.get_layer("new_embedding_4")
    np.testing.assert_array_equal(*table.get_weights(), *copy.get_weights())
    grown.compile(keras.optimizers.Adam(0.05))
    labels = np.arange(len(before["a"])) % 2
    grown.fit(rows, {"new": labels.astype("f4")}, epochs=3, verbose=0)
    assert not np.array_equal(*table.get_weights(), *copy.get_weights())
    after = outputs(grown, rows)
    assert same(before, after, before)
    folded = outputs(fold(grown), rows)
    np.testing.assert_allclose(folded["new"], after["new"], 1e-5, 1e-6)
    grown.save(tmp_path / "grown.keras")
    loaded = keras.saving.load_model(tmp_path / "grown.keras")
    assert same(after, outputs(loaded, rows))


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6, 7, 8])  # in 3 nothing is shared
def test_random_models_give_copies(seed):
    model = random_model(seed)
    rows = rows_of(model)
    before = outputs(model, rows)
    like = model.tasks[-1].name
    grown = add_task(model, Binary("new"), like, own=["experts"])
    after = outputs(grown, rows)
    assert same(before, after, before)
    folded = outputs(fold(grown), rows)
    np.testing.assert_allclose(folded["new"], after["new"], 2e-5, 2e-5)


@pytest.mark.parametrize("recipe", ["shared_bottom", "omoe", "snr", "cross_stitch"])
@pytest.mark.parametrize("own", ["embeddings", "experts"])
def test_copies_compute_what_the_shared_layers_do(recipe, own):
    model = network(recipe, "a", "ab")
    rows = rows_of(model)
    grown = add_task(model, Binary("new"), own=own)
    for name in [*OWN[recipe], "new_tower"]:
        _start_as_a(grown.get_layer(name), model)
    after = outputs(grown, rows)
    np.testing.assert_allclose(after["new"], after["a"], 1e-5, 1e-6)


def _start_as_a(layer, model):
    """Gives a new part the weights of that of `a`, the first of a layer's slots."""
    if layer.name == "new_tower":
        layer.set_weights(model.get_layer("a_tower").get_weights())
        return
    old = model.get_layer(layer.name.removeprefix("new_"))
    part = old.part(np.array([0]), np.arange(old.input.shape[1]))
    layer.set_weights(part.get_weights())


def test_a_gate_that_stays_shared_weighs_copied_experts():
    model = network("omoe", "a", "ab")
    grown = add_task(model, Binary("new"), own=["experts"])
    assert new_layers(model, grown) == ["new_level_1", "new_tower"]
