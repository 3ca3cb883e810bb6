"""Funnels: products, their names, exported, calibrated, with a position."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing, models
from tfmtl.features import Numeric
from tfmtl.folding import fold
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.tasks import Binary, Position
from tfmtl.tasks.funnels import RunningCounts, step_counts, step_weights
from tfmtl.tasks.labels import complete_labels
from tfmtl.tasks.objectives import Objectives

FEATURES = [Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)]
SHOWN = Position("shown_at", num_positions=5)
STEPS = [
    Binary("click", position=SHOWN),
    Binary("cart", after="click", position=Position("shown_at", num_positions=3)),
    Binary("buy", after="cart"),
]
GIVEN = ["cart_given_click", "buy_given_cart"]


def network(tasks=STEPS, units=(3,), **arguments):
    keras.utils.set_random_seed(0)
    return models.shared_bottom(
        FEATURES, tasks, bottom=(8,), tower={"units": units}, **arguments
    )


def rows(count, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype("f4")
    return {"x": x, "shown_at": np.resize(np.arange(6), (count, 1))}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def assert_products(outputs):
    joint = outputs["click"] * outputs["cart_given_click"]
    np.testing.assert_array_equal(outputs["cart"], joint)
    joint = joint * outputs["buy_given_cart"]
    np.testing.assert_array_equal(outputs["buy"], joint)
    assert all(((y > 0) & (y < 1)).all() for y in outputs.values())


def test_outputs_multiply_exactly():
    outputs = network().predict(rows(50), verbose=0)
    assert sorted(outputs) == sorted(["click", "cart", "buy", *GIVEN])
    assert all(y.dtype == "float32" for y in outputs.values())
    assert_products(outputs)


def test_outputs_of_an_export_multiply_exactly(tmp_path):
    model = network()
    path = export(model, tmp_path / "ranker").path
    found = run_in_cpp_session(path, {"x": rows(50)["x"]})
    assert_products(found)
    expected = model.predict(rows(50), verbose=0)
    for name, y in expected.items():
        np.testing.assert_allclose(found[name], y, atol=1e-6)


def test_folded_funnel():
    model = network()
    folded = fold(model)
    assert sorted(folded.input) == ["x"]
    outputs = folded.predict({"x": rows(50)["x"]}, verbose=0)
    assert_products(outputs)
    for name, y in model.predict(rows(50), verbose=0).items():
        np.testing.assert_allclose(outputs[name], y, atol=1e-6)


def test_each_step_trains_the_towers_before_it():
    model = network()
    model.compile("sgd", metrics={})
    before = {v.path: v.numpy() for v in model.trainable_variables}
    model.fit(rows(20), {"buy": np.ones(20, "f4")}, verbose=0)
    after = {v.path: v.numpy() for v in model.trainable_variables}
    assert all((before[path] != after[path]).any() for path in before)


GAPS = {  # which labels of the later steps are missing
    "at random": lambda known, taken: np.stack([known[:, 0]] * 2, axis=1),
    "where the step before was not taken": lambda known, taken: taken[:, :-1] == 1,
    "both": lambda known, taken: np.cumprod(known & (taken[:, :-1] == 1), axis=1) == 1,
}


def example_funnel(count, seed, gaps="at random"):
    """Rows, labels with gaps, and the true probabilities."""
    generator = np.random.default_rng(seed)
    x = rows(count, seed)
    logits = x["x"] * [1.5, -1.0, 1.0] + [-0.5, 0.0, -1.0]
    given = sigmoid(logits)
    true = np.cumprod(given, axis=1)
    taken = np.cumprod(generator.random((count, 3)) < given, axis=1).astype("f4")
    known = GAPS[gaps](generator.random((count, 2)) < 0.7, taken)
    taken[:, 1:][~known] = np.nan
    names = ["click", "cart", "buy"]
    labels = dict(zip(names, taken.T, strict=True))
    truth = dict(zip([*names, *GIVEN], [*true.T, *given.T[1:]], strict=True))
    return x, labels, truth


def three_steps(where=False):
    columns = ["click", "cart"] if where else [None, None]
    return [
        Binary("click"),
        Binary("cart", after="click", where=columns[0]),
        Binary("buy", after="cart", where=columns[1]),
    ]


def assert_calibrated(tasks, gaps):
    model = network(tasks, units=())
    model.compile(keras.optimizers.Adam(0.01))
    x, labels, _ = example_funnel(20_000, 0, gaps)
    labels = {task.name: labels[task.name] for task in tasks}
    history = model.fit(
        {"x": x["x"]}, labels, batch_size=200, epochs=8, verbose=0
    ).history
    assert all(np.isfinite(values).all() for values in history.values())
    x, _, truth = example_funnel(4000, 1)
    outputs = model.predict({"x": x["x"]}, verbose=0)
    for name, p in outputs.items():
        spread = np.abs(truth[name] - truth[name].mean()).mean()
        share = 0.5 if name in GIVEN else 0.3  # of the few who came so far
        assert np.abs(p[:, 0] - truth[name]).mean() < share * spread, name
        top = p[:, 0] >= np.quantile(p, 0.9)
        for part in (top, ~top):
            assert 0.85 < p[part].mean() / truth[name][part].mean() < 1.15, name
    return outputs


@pytest.mark.parametrize("gaps", GAPS)
@pytest.mark.parametrize("steps", [2, 3])
def test_products_are_calibrated(steps, gaps):
    outputs = assert_calibrated(three_steps()[:steps], gaps)
    if steps == 3:
        assert_products(outputs)


def test_label_known_only_where_the_step_before_was_taken():
    outputs = assert_calibrated(three_steps(where=True), "at random")
    assert_products(outputs)


def test_who_did_not_take_a_step_took_none_after_it():
    """Labels with gaps are those without, weighed; whatever is given for the rest."""
    nan = float("nan")
    labels = {
        "click": [1.0, 1.0, 1.0, 0.0, 0.0, nan],
        "cart": [1.0, 0.0, nan, nan, 1.0, 1.0],
        "buy": [nan, nan, 1.0, nan, 1.0, 0.0],
    }
    tasks = three_steps()
    found = complete_labels(tasks, {k: np.array(v) for k, v in labels.items()}, {}, {})
    np.testing.assert_array_equal(found["cart"][:, 0], [1, 0, nan, 0, 0, 1])
    np.testing.assert_array_equal(found["buy"][:, 0], [nan, 0, 1, 0, 0, 0])
    weights = step_weights(tasks, found)
    assert sorted(weights) == ["buy", "cart"]
    half, third = 1 / 2, 1 / 3
    cart = [1, 1, 0, 2 * third, 2 * third, 1]
    np.testing.assert_allclose(weights["cart"][:, 0], cart, rtol=1e-6)
    # of those who put into the cart one of two has the label; of those who clicked
    # the mean of 0 (who bought is not known), 1/2 (for who did not) and 1
    buy = [0, half, 1, half, half, 1]
    np.testing.assert_allclose(weights["buy"][:, 0], buy, rtol=1e-6)


def rare_funnel(count):
    """Labels of steps; 3 in 10 of those who took the one before have a later one."""
    generator = np.random.default_rng(0)
    taken = np.cumprod(generator.random((count, 3)) < [0.03, 0.5, 0.5], axis=1)
    labels = dict(zip(["click", "cart", "buy"], taken.T.astype("f4"), strict=True))
    for name, took in (("cart", taken[:, 0]), ("buy", taken[:, 1])):
        labels[name][np.cumsum(took) % 10 >= 3] = np.nan
    return labels


def best_constants(labels, batch, training, weights=None):
    """The constant predictions of least loss, from the losses of two others."""
    tasks, given = three_steps(), [0.25, 0.5]
    objectives = Objectives(tasks)

    @tf.function(reduce_retracing=True)
    def run(labels, weights):
        found = complete_labels(tasks, labels, {}, {})
        objectives.count(found, training)
        losses = [
            objectives.task_losses(
                found, {name: tf.fill((batch, 1), p) for name in labels}, weights
            )
            for p in given
        ]
        return [[loss[name] for name in labels] for loss in losses]

    total = np.zeros((2, 3))
    for start in range(0, len(labels["click"]), batch):
        rows = slice(start, start + batch)
        one = {name: tf.constant(y[rows]) for name, y in labels.items()}
        total += run(one, None if weights is None else tf.constant(weights[rows]))
    terms = -np.log([[p, 1 - p] for p in given])
    positive, negative = np.linalg.solve(terms, total)
    return dict(zip(labels, positive / (positive + negative), strict=True))


@pytest.mark.parametrize("training, weighted", [(True, False), (False, True)])
def test_small_batches_do_not_make_a_step_look_rare(training, weighted):
    labels = rare_funnel(64_000)
    weights = np.full(64_000, 3.0, "f4") if weighted else None
    expected = best_constants(labels, 64_000, True)
    found = best_constants(labels, 32, training, weights)
    assert expected["cart"] == pytest.approx(0.015, rel=0.15)
    assert found == pytest.approx(expected, rel=0.03)


WAYS = {"plain": None, "surgery": balancing.PCGrad(), "two passes": balancing.FAMO()}


@pytest.mark.parametrize("way", WAYS)
def test_training_counts_each_batch_once(way, tmp_path):
    tasks = three_steps()
    model = network(tasks)
    model.compile("sgd", metrics={}, balancing=WAYS[way])
    x, labels, _ = example_funnel(40, 0, "both")
    given = {"x": x["x"]}, labels
    data = {"batch_size": 8, "verbose": 0}
    history = model.fit(*given, epochs=2, validation_data=given, **data).history
    assert sorted(history) == sorted(
        f"{kind}{name}"
        for kind in ("", "val_")
        for name in ("loss", *(f"{task.name}_loss" for task in tasks))
    )
    counts = step_counts(tasks, complete_labels(tasks, labels, {}, {}))
    seen = {name: v.numpy() for name, v in model._objectives.variables.items()}
    assert sorted(seen) == ["buy", "cart"]
    for name, count in counts.items():
        np.testing.assert_allclose(seen[name], 2 * count, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = network(tasks)
    again.load_weights(tmp_path / "model.weights.h5")  # not compiled: nothing to keep
    for name, variable in loaded._objectives.variables.items():
        np.testing.assert_array_equal(variable, seen[name])
    loaded.fit(*given, shuffle=False, **data)
    for name, values in model.fit(*given, shuffle=False, **data).history.items():
        found = loaded.history.history[name]
        np.testing.assert_allclose(found, values, rtol=1e-5)
    assert len(model.get_weights()) == len(network(tasks).get_weights())


def test_evaluation_weighs_by_its_own_labels():
    model, other = network(three_steps()), network(three_steps())
    x, labels, _ = example_funnel(400, 0, "both")
    model.compile(keras.optimizers.SGD(0.0))
    other.compile()
    model.fit({"x": x["x"]}, labels, verbose=0)
    x, labels, _ = example_funnel(400, 1)
    known = {name: np.nan_to_num(y) for name, y in labels.items()}
    for _ in range(2):
        found = model.evaluate({"x": x["x"]}, known, verbose=0, return_dict=True)
        expected = other.evaluate({"x": x["x"]}, known, verbose=0, return_dict=True)
        assert found == pytest.approx(expected, rel=1e-6)


def test_counts_are_of_the_latest():
    seen = RunningCounts([Binary("click"), Binary("buy", after="click")])
    for share in [0.25] * 40 + [0.75] * 400:
        seen.update({"buy": np.array([[4000 * share, 0.0, 4000]])})
    [[known, _, took]] = seen.variables["buy"].numpy()
    assert took == 2**16
    assert known / took == pytest.approx(0.75, abs=1e-3)


def test_a_label_that_does_not_exist_opens_no_other():
    tasks = [
        Binary("click"),
        Binary("conv", where="click"),
        Binary("repeat", where="conv"),
    ]
    labels = {"click": [0.0, 1, 1], "conv": [1.0, 1, 0], "repeat": [1.0, 1, 1]}
    arrays = {name: np.array(values) for name, values in labels.items()}
    found = complete_labels(tasks, arrays, {}, {})
    nan = float("nan")
    np.testing.assert_array_equal(found["conv"][:, 0], [nan, 1, 0])
    np.testing.assert_array_equal(found["repeat"][:, 0], [nan, 1, nan])


def test_where_is_a_number():
    tasks = [Binary("click", where="country")]
    columns = {"country": keras.ops.convert_to_tensor([["de"], ["at"]], "string")}
    message = "The column 'country' of task 'click' should be numbers. Received: dtype"
    with pytest.raises(ValueError, match=message):
        complete_labels(tasks, {"click": np.ones(2)}, columns, {})


def test_label_of_a_step_that_is_left_out():
    model = network(three_steps())
    model.compile("sgd", metrics={})
    before = [w.numpy() for w in model.get_layer("buy_tower").weights]
    history = model.fit(
        {"x": rows(20)["x"]}, {"click": np.zeros(20)}, verbose=0
    ).history
    assert history["cart_loss"] == history["buy_loss"] == [0.0]
    for was, w in zip(before, model.get_layer("buy_tower").weights, strict=True):
        np.testing.assert_array_equal(w, was)


def test_entire_space_two_steps_by_the_formula():
    tasks = [Binary("click"), Binary("buy", weight=2.0, after="click")]
    model = network(tasks)
    model.compile(keras.optimizers.SGD(0.0))
    x = {"x": rows(40)["x"]}
    generator = np.random.default_rng(0)
    click = generator.integers(0, 2, 40)
    labels = {"click": click, "buy": click * generator.integers(0, 2, 40)}
    p = {name: y[:, 0] for name, y in model.predict(x, verbose=0).items()}
    p["buy"] = p["click"].astype("f8") * p["buy_given_click"]
    losses = {
        name: -np.where(y == 1, np.log(p[name]), np.log1p(-p[name])).mean()
        for name, y in labels.items()
    }
    history = model.fit(x, labels, batch_size=40, verbose=0).history
    for name, loss in losses.items():
        np.testing.assert_allclose(history[f"{name}_loss"], loss, rtol=1e-5)
    total = losses["click"] + 2 * losses["buy"]
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    metrics = [f"{name}_{m}" for name in labels for m in ("auc", "calibration", "loss")]
    assert sorted(history) == sorted([*metrics, "loss"])


def test_position_moves_a_step_in_training_alone():
    model = network()
    for task, column in (("click", 3), ("cart", 2)):
        bias = model.get_layer(f"{task}_position_bias").bias
        values = np.zeros(bias.shape, "f4")
        values[1 + column] = 2.0
        bias.assign(values)
    x = rows(400)["x"]
    given = {"x": x, "shown_at": np.full((400, 1), 3)}
    served, trained = model(given, training=False), model(given, training=True)
    ratio = {name: np.mean(trained[name]) / np.mean(served[name]) for name in served}
    assert ratio["click"] > 1.2
    assert ratio["buy"] == pytest.approx(ratio["click"], rel=0.2)
    # position 3 is one that the step `cart` does not know
    assert ratio["cart_given_click"] == pytest.approx(1.0, abs=1e-6)
    others = model({"x": x, "shown_at": np.zeros((400, 1))}, training=False)
    for name, y in served.items():
        np.testing.assert_array_equal(others[name], y)


def test_order_of_the_steps():
    with pytest.raises(ValueError) as error:
        network([STEPS[1], STEPS[0]])
    assert str(error.value) == (
        "Task 'cart' should come after a binary task that stands before it, one of "
        "[]. Received: after='click'"
    )
