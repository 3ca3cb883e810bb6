"""with_score: a formula over outputs; saved, folded, exported, refused."""

import keras
import numpy as np
import pytest

from tfmtl import models
from tfmtl.features import Numeric
from tfmtl.folding import fold
from tfmtl.layers import ScoreFusion
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.tasks import Binary, LogNormal, MultiLabel, Position

FEATURES = [Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)]
TASKS = [
    Binary("click", position=Position("shown_at", 4)),
    Binary("buy", after="click"),
    LogNormal("seconds", where="click"),
]
FORMULAS = {
    "sum": ({"seconds": 0.1, "click": 2.0, "buy": -30.0}, 0.0),
    "product": ({"seconds": 0.25, "buy_given_click": 1.5}, 0.5),
}
each_kind = pytest.mark.parametrize("kind", FORMULAS)


def network():
    keras.utils.set_random_seed(0)
    return models.shared_bottom(FEATURES, TASKS, bottom=(4,), tower={"units": (3,)})


def ranker(kind, model=None):
    weights, offset = FORMULAS[kind]
    return models.with_score(model or network(), weights, kind, offset)


def rows(count=20):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype("f4")
    return {"x": x, "shown_at": np.zeros((count, 1), "i4")}


def labels(count=20):
    generator = np.random.default_rng(1)
    click = generator.integers(0, 2, count).astype("f4")
    return {
        "click": click,
        "buy": click * generator.integers(0, 2, count),
        "seconds": generator.exponential(9.0, count).astype("f4"),
    }


def score(kind, outputs):
    """By the formula, in float64."""
    weights, offset = FORMULAS[kind]
    p = {name: outputs[name].astype("f8") for name in weights}
    if kind == "sum":
        return sum(w * p[name] for name, w in weights.items())
    return np.prod([(p[name] + offset) ** w for name, w in weights.items()], axis=0)


@each_kind
def test_score_by_the_formula(kind):
    model = network()
    expected = model.predict(rows(), verbose=0)
    outputs = ranker(kind, model).predict(rows(), verbose=0)
    assert list(outputs) == [*expected, "score"]
    assert outputs["score"].shape == (20, 1)
    np.testing.assert_allclose(outputs["score"], score(kind, expected), rtol=1e-5)
    assert np.ptp(outputs["score"]) > 0


def test_layers_are_shared_and_tasks_kept():
    model = network()
    scored = models.with_score(model, {"click": 1.0}, name="rank")
    assert type(scored) is models.MultiTaskModel
    assert (scored.name, scored.tasks) == (model.name, tuple(TASKS))
    assert set(model.layers) <= set(scored.layers)
    scored.compile(keras.optimizers.SGD(0.1))
    before = model.predict(rows(), verbose=0)
    history = scored.fit(rows(), labels(), verbose=0).history
    assert not any(name.startswith("rank") for name in history)
    after = model.predict(rows(), verbose=0)
    found = scored.predict(rows(), verbose=0)
    assert all((before[name] != after[name]).any() for name in before)
    for name in after:
        np.testing.assert_array_equal(found[name], after[name])
    np.testing.assert_array_equal(found["rank"], after["click"])


def test_two_scores():
    model = models.with_score(ranker("sum"), {"score": 2.0}, name="twice")
    outputs = model.predict(rows(), verbose=0)
    np.testing.assert_array_equal(outputs["twice"], 2 * outputs["score"])


@each_kind
def test_saved_and_loaded(kind, tmp_path):
    model = ranker(kind)
    model.compile("adam", metrics={})
    model.fit(rows(), labels(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.tasks == tuple(TASKS)
    expected = model.predict(rows(), verbose=0)
    for name, y in loaded.predict(rows(), verbose=0).items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-6)
    assert np.isfinite(loaded.fit(rows(), labels(), verbose=0).history["loss"]).all()


@each_kind
def test_folded_and_exported(kind, tmp_path):
    model = ranker(kind)
    expected = model.predict(rows(), verbose=0)
    folded = fold(model)
    assert sorted(folded.input) == ["x"]
    assert folded.tasks == tuple(TASKS)
    x = {"x": rows()["x"]}
    path = export(folded, tmp_path / "ranker").path
    served = run_in_cpp_session(path, x)
    assert sorted(served) == sorted(expected)
    for found in (folded.predict(x, verbose=0), served):
        for name, y in expected.items():
            np.testing.assert_allclose(found[name], y, rtol=1e-5, atol=1e-6)


def test_score_is_float32_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = ranker("sum")
    finally:
        keras.config.set_dtype_policy(before)
    outputs = model.predict(rows(), verbose=0)
    assert outputs["score"].dtype == "float32"
    np.testing.assert_allclose(outputs["score"], score("sum", outputs), rtol=1e-5)


def test_product_of_what_is_not_above_0():
    fusion = ScoreFusion({"a": 0.5, "b": -1.0}, "product")
    p = {"a": np.array([[-1.0], [4.0], [4.0]]), "b": np.array([[1.0], [-1.0], [0.5]])}
    y = keras.ops.convert_to_numpy(fusion(p))
    np.testing.assert_allclose(y, [[1e-6], [2e12], [4.0]], rtol=1e-5)


def message(function, *arguments, **named):
    with pytest.raises(ValueError) as error:
        function(*arguments, **named)
    return str(error.value)


def test_name_of_another_output():
    assert message(models.with_score, network(), {"click": 1.0}, name="buy") == (
        "`name` should be that of no output. Received: name='buy' of "
        "outputs=['buy', 'buy_given_click', 'click', 'seconds']"
    )


@pytest.mark.parametrize("weights", [{"like": 1.0}, {"like": 1.0, "click": 2.0}])
def test_weight_of_no_output(weights):
    assert message(models.with_score, network(), weights) == (
        "`weights` should be by name of an output, one of ['buy', 'buy_given_click', "
        f"'click', 'seconds']. Received: weights={weights!r}"
    )


@pytest.mark.parametrize(
    "weights", [{}, [1.0], None, {"a": float("nan")}, {"a": 1.0, "b": -float("inf")}]
)
def test_no_weights(weights):
    assert message(ScoreFusion, weights) == (
        f"`weights` should be a dict of finite numbers by task name. "
        f"Received: {weights=}"
    )


def test_another_kind():
    assert message(ScoreFusion, {"a": 1.0}, "mean") == (
        "`kind` should be one of ('sum', 'product'). Received: kind='mean'"
    )


@pytest.mark.parametrize("offset", [-0.5, float("nan"), float("inf")])
def test_offset_below_0(offset):
    assert message(ScoreFusion, {"a": 1.0}, "product", offset) == (
        f"`offset` should be at least 0. Received: offset={offset}"
    )


@pytest.mark.parametrize(
    "inputs, read",
    [({"b": np.ones((2, 1))}, "['b']"), (np.ones((2, 1)), "(2, 1)")],
    ids=["dict", "tensor"],
)
def test_prediction_that_is_not_given(inputs, read):
    assert message(ScoreFusion({"a": 1.0}), inputs) == (
        "ScoreFusion should be called on a dict of predictions, with those of ['a']. "
        f"Received: {read}"
    )


@pytest.mark.parametrize("weights", [{"a": 1.0, "t": 2.0}, {"t": 2.0, "a": 1.0}])
def test_prediction_of_several_columns(weights):
    tasks = [Binary("a"), MultiLabel("t", num_labels=3)]
    model = models.shared_bottom(FEATURES, tasks)
    assert message(models.with_score, model, weights) == (
        "ScoreFusion should be called on predictions of shape (batch, 1). "
        "Received: shapes={'t': (None, 3)}"
    )
