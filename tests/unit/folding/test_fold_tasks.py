"""Folds of some tasks, and without the inputs that nothing reads."""

import keras
import numpy as np
import pytest

import tfmtl
from tfmtl.balancing import PCGrad, UncertaintyWeighting
from tfmtl.features import Categorical, Numeric
from tfmtl.folding import fold, structure
from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.models import mmoe, ple, shared_bottom, snr
from tfmtl.tasks import Binary, Position, Regression

FEATURES = [
    Numeric("x", width=4, mean=(0.0,) * 4, std=(1.0,) * 4),
    Categorical("c", vocabulary=("a", "b")),
]
FUNNEL = [
    Binary("click", position=Position("shown", 5)),
    Binary("cart", after="click"),
    Binary("buy", after="cart"),
    Regression("seconds", where="click"),
]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def rows(count=64):
    generator = np.random.default_rng(0)
    columns = {
        "x": generator.normal(size=(count, 4)).astype("f4"),
        "c": generator.choice(["a", "b", "z"], (count, 1)).tolist(),
        "shown": np.zeros((count, 1), "int32"),
    }
    return {name: keras.ops.convert_to_tensor(v) for name, v in columns.items()}


def assert_same(model, folded):
    x = rows()
    expected = model({name: x[name] for name in model.input}, training=False)
    got = folded({name: x[name] for name in folded.input}, training=False)
    for name, value in got.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)
    again = fold(folded)
    assert structure(again) == structure(folded)
    assert set(again.output) == set(folded.output)


def names(model):
    return {layer.name for layer in model.layers}


@pytest.mark.parametrize("recipe", [snr, mmoe, ple, shared_bottom])
def test_some_tasks_are_a_smaller_model(recipe):
    tasks = [Binary("a"), Binary("ab"), Regression("b")]
    model = recipe(FEATURES, tasks)
    folded = fold(model, tasks=["ab"])
    assert_same(model, folded)
    assert list(folded.output) == ["ab"]
    assert {"a_tower", "b_tower"} <= names(model) - names(folded)
    assert folded.tasks == (tasks[1],)
    assert structure(folded).flops < structure(model).flops
    assert list(fold(model, tasks=["b", "a"]).output) == ["a", "b"]


@pytest.mark.parametrize(
    "kept, after, inputs",
    [
        (["buy"], {"buy": None}, ["x", "c"]),
        (["click", "buy"], {"click": None, "buy": "click"}, ["x", "c"]),
        (["buy", "cart"], {"cart": None, "buy": "cart"}, ["x", "c"]),
        (["buy_given_cart"], {}, ["x", "c"]),
        (["seconds"], {"seconds": None}, ["x", "c"]),
    ],
)
def test_steps_of_a_funnel_stay_over_all_exposures(kept, after, inputs):
    model = snr(FEATURES, FUNNEL)
    folded = fold(model, tasks=kept)
    assert_same(model, folded)
    assert {task.name: task.after for task in folded.tasks} == after
    assert list(folded.input) == inputs
    assert set(folded.output) == set(kept)


def test_a_step_without_the_step_before_trains_on(tmp_path):
    folded = fold(snr(FEATURES, FUNNEL), tasks=["buy", "seconds"])
    folded.save(tmp_path / "folded.keras")
    folded = keras.saving.load_model(tmp_path / "folded.keras")
    folded.compile(keras.optimizers.Adam(0.01))
    x = {name: rows()[name] for name in folded.input}
    ones = np.ones((64, 1), "f4")
    labels = {"buy": ones, "seconds": ones, "click": ones}
    history = folded.fit(x, labels, epochs=3, verbose=0).history
    assert history["buy_loss"][-1] < history["buy_loss"][0]
    assert history["seconds_loss"][-1] < history["seconds_loss"][0]


def test_a_score_alone_is_a_model_without_tasks():
    model = tfmtl.models.with_score(
        mmoe(FEATURES, [Binary("a"), Binary("b")]), {"a": 1}
    )
    folded = fold(model, tasks=["score"])
    assert_same(model, folded)
    assert folded.tasks == ()
    assert not {"b_tower"} & names(folded)


@pytest.mark.parametrize("tasks", [["none"], "click", [], ["click", "none"]])
def test_names_of_no_output_are_refused(tasks):
    model = snr(FEATURES, [Binary("click")])
    with pytest.raises(ValueError, match=r"outputs, of \['click'\]. Received: tasks="):
        fold(model, tasks=tasks)


def test_tasks_of_a_model_without_names_are_refused():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    with pytest.raises(ValueError, match="a dict, which they are not.*'click'"):
        fold(model, tasks=["click"])


def test_inputs_that_nothing_reads_are_dropped_on_request():
    model = snr(FEATURES, [Binary("a"), Binary("b")])
    model.get_layer("embedding_8").embeddings.assign(np.zeros((4, 8)))
    assert list(fold(model).input) == ["x", "c"]

    inputs = {name: keras.Input((2,), name=name) for name in ("x", "unread", "dead")}
    x = keras.ops.stack([inputs["x"], inputs["dead"]], axis=1)
    routing = SubNetworkRouting(2, 3, name="routing")
    x = routing(Experts(2, 3)(x))
    outputs = {"a": Tower(name="a")(x[:, 0]), "b": Tower(name="b")(x[:, 1])}
    model = keras.Model(inputs, outputs)
    routing.gate.set_log_alpha([[4.0, -4.0], [4.0, -4.0]])
    given = {name: np.ones((3, 2), "f4") for name in inputs}
    assert list(fold(model, given).input) == ["x", "unread", "dead"]
    folded = fold(model, given, drop_inputs=True)
    assert list(folded.input) == ["x"]
    assert list(fold(folded, drop_inputs=True).input) == ["x"]
    np.testing.assert_allclose(
        folded({"x": given["x"]})["a"], model(given)["a"], rtol=1e-6
    )


def test_a_model_of_constants_keeps_an_input():
    inputs = {name: keras.Input((2,), name=name) for name in ("x", "y")}
    routing = SubNetworkRouting(1, 3, use_bias=True)
    x = routing(keras.ops.stack([inputs["x"], inputs["y"]], axis=1))
    model = keras.Model(inputs, {"a": x[:, 0]})
    routing.gate.set_log_alpha(-4.0)
    routing.bias.assign([[1.0, 2.0, 3.0]])
    folded = fold(model, drop_inputs=True)
    assert list(folded.input) == ["x"]
    np.testing.assert_array_equal(
        folded({"x": np.ones((2, 2))})["a"], [[1.0, 2.0, 3.0]] * 2
    )


def test_unread_inputs_of_a_list_are_dropped_on_request():
    inputs = [keras.Input((2,), name=name) for name in ("x", "unread", "y")]
    joined = keras.layers.Concatenate()([inputs[0], inputs[2]])
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))
    folded = fold(model, drop_inputs=True)
    assert [tensor.name for tensor in folded.input] == ["x", "y"]
    assert len(fold(model).input) == 3


@pytest.mark.parametrize("balancing", [PCGrad(), UncertaintyWeighting()])
def test_a_folded_model_trains_on_balanced(balancing, tmp_path):
    tasks = [Binary("a", weight=2.0), Regression("b")]
    expert, tower = {"normalization": "batch"}, {"dropout": 0.1}
    model = snr(FEATURES, tasks, dropout=0.1, expert=expert, tower=tower)
    routing = model.get_layer("level_2")
    routing.gate.set_log_alpha(np.where(np.eye(6) > 0, 4.0, -4.0))
    folded = fold(model)
    assert_same(model, folded)
    assert folded.tasks == tuple(tasks)
    folded.compile(keras.optimizers.Adam(0.01), balancing=balancing)
    x = {name: rows()[name] for name in folded.input}
    y = {name: np.ones((64, 1), "f4") for name in "ab"}
    history = folded.fit(x, y, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert folded.get_config()["tasks"] == model.get_config()["tasks"]
    written = tfmtl.serving.export(folded, tmp_path / "served")
    assert written.difference <= 1e-5
