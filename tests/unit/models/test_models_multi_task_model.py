"""MultiTaskModel: missing labels, weights, what Keras does too, saving, policies.

Run as a script it answers for a process of its own, with two logical devices.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing, layers, models
from tfmtl.features import Numeric
from tfmtl.folding import fold
from tfmtl.tasks import (
    Binary,
    Count,
    DecayingWeights,
    LogNormal,
    MultiClass,
    MultiLabel,
    Ordinal,
    Position,
    Regression,
    WeightedLogistic,
)

NAN = float("nan")
FEATURES = [
    Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
    Numeric("seen", width=1, mean=(0.0,), std=(1.0,)),
]
TASKS = [Binary("a", weight=0.5), Regression("b", weight=3.0)]
EVERY_KIND = [
    Binary("click", position=Position("shown_at", 4, dropout=0.0)),
    Binary("buy", after="click"),
    Regression("rating", delta=1.0),
    LogNormal("seconds", where="click"),
    WeightedLogistic("amount", weight=0.1),
    Count("comments", missing=-1.0),
    MultiClass("reason", num_classes=3),
    MultiLabel("topics", num_labels=2),
    Ordinal("stars", num_levels=4),
]


def rows(count=12, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "x": generator.normal(size=(count, 3)).astype("f4"),
        "seen": generator.normal(size=(count, 1)).astype("f4"),
    }


def labels(count=12, seed=1):
    generator = np.random.default_rng(seed)
    return {
        "a": generator.integers(0, 2, count).astype("f4"),
        "b": generator.normal(size=count).astype("f4"),
    }


def shown(count=12):
    return {**rows(count), "shown_at": np.resize(np.arange(5), (count, 1))}


def labels_of_every_kind(count=12):
    generator = np.random.default_rng(2)
    drawn = {
        "click": generator.integers(0, 2, count),
        "buy": generator.integers(0, 2, count),
        "rating": generator.normal(size=count),
        "seconds": generator.exponential(9.0, count),
        "amount": np.maximum(0, generator.normal(size=count)),
        "comments": generator.integers(-1, 4, count),
        "reason": generator.integers(0, 3, count),
        "topics": generator.integers(0, 2, (count, 2)),
        "stars": generator.integers(0, 4, count),
    }
    given = {name: y.astype("f4") for name, y in drawn.items()}
    for name in given:
        given[name][generator.random(given[name].shape) < 0.3] = NAN
    return given


def network(tasks=TASKS, **arguments):
    keras.utils.set_random_seed(0)
    tower = {"units": (3,), "activation": "tanh"}
    expert = {"activation": "tanh"}
    given = {"experts": 3, "levels": [4], "tower": tower, "expert": expert}
    return models.mmoe(FEATURES, tasks, **{**given, **arguments})


def compiled(tasks=TASKS, optimizer=None, **arguments):
    model = network(tasks)
    model.compile(optimizer or keras.optimizers.SGD(0.1), **arguments)
    return model


def predictions(model, x):
    found = model.predict(x, verbose=0)
    return {name: y.astype("f8") for name, y in found.items()}


def log_loss(y, p):
    return -y * np.log(p) - (1 - y) * np.log1p(-p)


def expected_losses(model, x, y, weights=None):
    """Mean losses of the tasks `a` and `b` over what is labelled."""
    p = {name: values[:, 0] for name, values in predictions(model, x).items()}
    each = {"a": log_loss(y["a"], p["a"]), "b": (y["b"] - p["b"]) ** 2}
    found = {}
    for name, values in each.items():
        w = np.ones(len(values)) if weights is None else weights[name]
        w = np.where(np.isnan(values), 0.0, w)
        found[name] = (w * np.nan_to_num(values)).sum() / max(w.sum(), 1e-9)
    return found


def losses(logs):
    return {name: np.ravel(logs[f"{name}_loss"])[0] for name in "ab"}


def assert_losses(logs, expected):
    for name in "ab":
        np.testing.assert_allclose(losses(logs)[name], expected[name], rtol=1e-5)


def evaluated(model, x, y, **arguments):
    return model.evaluate(x, y, verbose=0, return_dict=True, **arguments)


def gradients(model, x, y):
    """Loss and gradients by variable of a step, in a graph."""

    @tf.function
    def run(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    loss, found = run(*keras.tree.map_structure(tf.constant, (x, y)))
    paths = [variable.path for variable in model.trainable_variables]
    values = [tf.convert_to_tensor(gradient).numpy() for gradient in found]
    return loss.numpy(), dict(zip(paths, values, strict=True))


# Missing labels

NONE = {  # ways to say that no example has a label for the task `b`
    "NaN": (TASKS, {"b": np.full(12, NAN)}),
    "sentinel": ([TASKS[0], Regression("b", missing=-1.0)], {"b": np.full(12, -1.0)}),
    "where": (
        [TASKS[0], Regression("b", where="taken")],
        {"b": np.ones(12), "taken": np.zeros(12)},
    ),
    "where is NaN": (
        [TASKS[0], Regression("b", where="taken")],
        {"b": np.ones(12), "taken": np.full(12, NAN)},
    ),
    "left out": (TASKS, {}),
}
each_way = pytest.mark.parametrize("way", NONE)


def without_b(way):
    tasks, given = NONE[way]
    given = {name: values.astype("f4") for name, values in given.items()}
    return compiled(tasks), {"a": labels()["a"], **given}


@each_way
def test_no_label_no_loss_no_gradient(way):
    model, y = without_b(way)
    loss, found = gradients(model, rows(), y)
    logs = model.get_metrics_result()
    assert float(logs["b_loss"]) == 0
    np.testing.assert_allclose(loss, TASKS[0].weight * logs["a_loss"], rtol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in found.values())
    gate = found.pop("task_gate/kernel")
    assert gate[:, :3].any()
    assert (gate[:, 3:] == 0).all()
    assert [path for path, g in found.items() if not g.any()] == [
        path for path in found if path.startswith("b_tower")
    ]


@each_way
def test_no_label_leaves_the_metrics(way):
    model, y = without_b(way)
    x, known = rows(), {"taken": np.ones(12, "f4")} if "taken" in y else {}
    outputs = model(x)
    model.compute_loss(x, {**labels(), **known}, outputs)
    model.compute_metrics(x, {**labels(), **known}, outputs)
    own = [metric for metric in model.metrics if metric.name.startswith("b_")]
    assert [metric.name for metric in own] == ["b_loss", "b_rmse"]
    before = [float(metric.result()) for metric in own]
    assert min(before) > 0
    model.compute_loss(x, y, outputs)
    logs = model.compute_metrics(x, y, outputs)
    assert [float(logs[metric.name]) for metric in own] == before


@each_way
def test_no_label_in_fit_and_evaluate(way):
    model, y = without_b(way)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    history = model.fit(rows(), y, epochs=2, verbose=0).history
    assert history["b_loss"] == [0, 0]
    assert np.isfinite(history["loss"]).all()
    after = {v.path: v.numpy() for v in model.trainable_variables}
    kept = {path for path in before if (before[path] == after[path]).all()}
    assert kept == {path for path in before if path.startswith("b_tower")}
    logs = evaluated(model, rows(), y)
    assert logs["b_loss"] == 0
    expected = TASKS[0].weight * logs["a_loss"]
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-6)


def test_batches_with_and_without_a_label():
    model, y = compiled(), labels()
    for name in "ab":
        logs = model.train_on_batch(rows(), {name: y[name]}, return_dict=True)
        assert logs["loss"] > 0
    logs = model.train_on_batch(rows(), y, return_dict=True)
    assert np.isfinite(logs["loss"])


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_losses_are_those_of_any_batch_size(batch):
    model, x, y = compiled(optimizer=keras.optimizers.SGD(0.0)), rows(64), labels(64)
    generator = np.random.default_rng(3)
    for name in "ab":
        y[name][generator.random(64) < 0.6] = NAN
    expected = expected_losses(model, x, y)
    history = model.fit(x, y, batch_size=batch, verbose=0).history
    assert_losses(history, expected)
    assert_losses(evaluated(model, x, y, batch_size=batch), expected)


def weighted_batches(x, y, weights):
    whole = tf.data.Dataset.from_tensor_slices((x, y, weights))
    return whole.batch(5)


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_weights_of_examples(shape):
    model, x, y = compiled(optimizer=keras.optimizers.SGD(0.0)), rows(), labels()
    y["b"][::3] = NAN
    w = np.random.default_rng(0).uniform(0, 2, shape).astype("f4")
    expected = expected_losses(model, x, y, {name: w.ravel() for name in "ab"})
    batches = weighted_batches(x, y, w)
    assert_losses(model.fit(batches, shuffle=False, verbose=0).history, expected)
    assert_losses(evaluated(model, batches, None), expected)
    fitted = model.fit(x, y, sample_weight=w, verbose=0, batch_size=12).history
    assert_losses(fitted, expected)
    total = sum(task.weight * expected[task.name] for task in TASKS)
    np.testing.assert_allclose(fitted["loss"], total, rtol=1e-5)


@pytest.mark.parametrize("weighted", ["ab", "b"])
def test_weights_by_task_name(weighted):
    model, x, y = compiled(optimizer=keras.optimizers.SGD(0.0)), rows(), labels()
    y["b"][::3] = NAN
    generator = np.random.default_rng(0)
    given = {name: generator.uniform(0, 2, 12).astype("f4") for name in weighted}
    expected = expected_losses(model, x, y, {"a": np.ones(12), **given})
    batches = weighted_batches(x, y, given)
    assert_losses(model.fit(batches, shuffle=False, verbose=0).history, expected)
    fitted = model.fit(
        x, y, sample_weight=given, validation_data=(x, y, given), verbose=0
    ).history
    assert_losses(fitted, expected)
    validated = {name[4:]: v for name, v in fitted.items() if "val_" in name}
    assert_losses(validated, expected)
    assert_losses(evaluated(model, x, y, sample_weight=given), expected)


def test_weight_of_a_row_without_label_may_be_nan():
    model, x, y = compiled(optimizer=keras.optimizers.SGD(0.0)), rows(), labels()
    y["b"][::3] = NAN
    w = np.where(np.isnan(y["b"]), NAN, 2.0)
    expected = expected_losses(model, x, y)
    fitted = model.fit(x, y, sample_weight={"b": w}, verbose=0).history
    assert_losses(fitted, expected)
    assert np.isfinite([*fitted["loss"], *fitted["b_rmse"]]).all()


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("labels_by_name", [False, True])
def test_class_weights_of_a_single_task(by_name, labels_by_name):
    model = compiled([Binary("a")], keras.optimizers.SGD(0.0))
    x, y = rows(), labels()["a"]
    weights = {0: 1.0, 1: 4.0}
    history = model.fit(
        x,
        {"a": y} if labels_by_name else y,
        class_weight={"a": weights} if by_name else weights,
        verbose=0,
        batch_size=5,
    ).history
    w, p = np.where(y == 1, 4.0, 1.0), predictions(model, x)["a"][:, 0]
    expected = np.average(log_loss(y, p), weights=w)
    np.testing.assert_allclose(history["a_loss"], expected, rtol=1e-5)


def test_class_weights_by_task_name():
    tasks = [Binary("a"), Binary("b", after="a"), MultiLabel("t", num_labels=2)]
    model, x = compiled(tasks, keras.optimizers.SGD(0.0)), rows()
    a = np.resize([0.0, 1.0, 1.0], 12)
    topics = np.stack([a, 1 - a], axis=1)
    y = {"a": a, "b": np.where(a == 1, 1.0, NAN), "t": topics}
    w = np.random.default_rng(0).uniform(0, 2, 12)
    classes = {"b": {0: 3.0}, "t": {1: 5.0}}
    history = model.fit(
        x, y, sample_weight=w, class_weight=classes, verbose=0, batch_size=12
    ).history
    p = predictions(model, x)
    for name, label, weights in (
        ("a", a, w),
        ("b", a, w * np.where(a == 1, 1.0, 3.0)),
        ("t", topics, w[:, None] * np.where(topics == 1, 5.0, 1.0)),
    ):
        losses = log_loss(label, p[name].reshape(label.shape))
        expected = np.average(losses, weights=weights)
        np.testing.assert_allclose(history[f"{name}_loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("where", ["a", "taken", "seen"])
def test_label_where_another_column_is_positive(where):
    tasks = [Binary("a"), Regression("b", where=where)]
    model, x, y = compiled(tasks), rows(), labels()
    y["taken"] = np.resize([1.0, NAN, 0.0, 5.0, -1.0], 12).astype("f4")
    y["a"][3] = x["seen"][3] = NAN
    given = dict(y) if where == "taken" else {name: y[name] for name in "ab"}
    column = {"a": y["a"], "taken": y["taken"], "seen": x["seen"][:, 0]}[where]
    x["seen"] = np.nan_to_num(x["seen"]) if where != "seen" else x["seen"]
    expected = expected_losses(model, x, {**y, "b": np.where(column > 0, y["b"], NAN)})
    assert_losses(evaluated(model, x, given), expected)


def test_where_names_a_label_that_is_missing():
    tasks = [Binary("a", missing=9.0), Regression("b", where="a")]
    model, x, y = compiled(tasks), rows(), labels()
    y["a"][:6] = 9.0
    known = np.where(y["a"] == 9, NAN, y["a"])
    expected = {"a": known, "b": np.where(known > 0, y["b"], NAN)}
    found = evaluated(model, x, y)
    assert_losses(found, expected_losses(model, x, expected))


# What Keras does too


def test_stock_keras_step_by_step():
    tasks = [Binary("a"), Regression("b")]
    own, stock = compiled(tasks, "adam"), network(tasks)
    stock = keras.Model(stock.input, stock.output)
    stock.compile("adam", {"a": "binary_crossentropy", "b": "mse"})
    for step in range(10):
        x, y = rows(seed=step), labels(seed=step)
        y = {name: values[:, None] for name, values in y.items()}
        history = own.fit(x, y, verbose=0).history
        expected = stock.fit(x, y, verbose=0).history
        for name in ("loss", "a_loss", "b_loss"):
            np.testing.assert_allclose(history[name], expected[name], rtol=1e-6)
    for weight, other in zip(own.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-6)


def test_losses_of_one_s_own():
    model = network()
    losses_by_name = {"a": "binary_crossentropy", "b": "mae"}
    model.compile("adam", losses_by_name, {"a": 2.0, "b": 1.0}, {"b": ["mae"]})
    y = {name: values[:, None] for name, values in labels().items()}
    history = model.fit(rows(), y, verbose=0, batch_size=12).history
    assert sorted(history) == ["a_loss", "b_loss", "b_mae", "loss"]
    total = 2 * history["a_loss"][0] + history["b_loss"][0]
    np.testing.assert_allclose(history["loss"], total, rtol=1e-6)
    assert model.task_weights == {}
    assert "b_mae" in evaluated(model, rows(), y)
    model.compile("adam")
    assert "b_rmse" in model.fit(rows(), y, verbose=0).history


def test_names_in_the_history():
    model = compiled(EVERY_KIND)
    given = (shown(), labels_of_every_kind())
    history = model.fit(*given, validation_data=given, verbose=0).history
    metrics = {
        "click": "auc calibration",
        "buy": "auc calibration",
        "rating": "rmse",
        "seconds": "rmse calibration",
        "amount": "rmse calibration",
        "comments": "rmse calibration",
        "reason": "accuracy",
        "topics": "auc",
        "stars": "mae",
    }
    names = ["loss"] + [
        f"{task}_{name}"
        for task in metrics
        for name in ["loss", *metrics[task].split()]
    ]
    assert [metric.name for metric in model.metrics] == names
    assert set(history) == {*names, *(f"val_{name}" for name in names)}
    assert np.isfinite(list(history.values())).all()


@pytest.mark.parametrize("penalty", [None, keras.regularizers.L2(0.5)])
def test_total_is_the_weighted_sum_and_penalties(penalty):
    model = network(expert={"kernel_regularizer": penalty})
    model.compile("sgd")
    logs = evaluated(model, rows(), labels())
    expected = sum(task.weight * logs[f"{task.name}_loss"] for task in TASKS)
    expected += sum(float(loss) for loss in model.losses)
    assert bool(model.losses) == bool(penalty)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-6)


def test_weights_in_place_of_the_tasks_own():
    model = compiled(loss_weights={"a": 7.0})
    weights = {name: float(w) for name, w in model.task_weights.items()}
    assert weights == {"a": 7.0, "b": 3.0}
    logs = evaluated(model, rows(), labels())
    np.testing.assert_allclose(
        logs["loss"], 7 * logs["a_loss"] + 3 * logs["b_loss"], rtol=1e-6
    )


def test_metrics_in_place_of_the_tasks_own():
    metrics = {"b": [keras.metrics.MeanSquaredError("mse")]}
    logs = evaluated(compiled(metrics=metrics), rows(), labels())
    assert set(logs) == {"loss", "a_loss", "b_loss", "b_mse"}
    np.testing.assert_allclose(logs["b_mse"], logs["b_loss"], rtol=1e-6)


def test_no_metrics():
    logs = evaluated(compiled(metrics={}), rows(), labels())
    assert set(logs) == {"loss", "a_loss", "b_loss"}


@pytest.mark.parametrize(
    "arguments", [{"run_eagerly": True}, {"steps_per_execution": 2}]
)
def test_other_arguments_of_compile(arguments):
    plain, other = compiled(), compiled(**arguments)
    expected = plain.fit(rows(), labels(), batch_size=3, verbose=0, shuffle=False)
    found = other.fit(rows(), labels(), batch_size=3, verbose=0, shuffle=False)
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=1e-4)


@pytest.mark.parametrize(
    "policy, jit",
    [("float32", True), ("mixed_float16", False), ("mixed_bfloat16", False)],
)
def test_every_kind_trains(policy, jit):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(EVERY_KIND, metrics={}, jit_compile=jit)
        x, y = shown(48), labels_of_every_kind(48)
        history = model.fit(x, y, batch_size=16, epochs=4, verbose=0).history
    finally:
        keras.config.set_dtype_policy(before)
    assert all(output.dtype == "float32" for output in model.output.values())
    for task in EVERY_KIND:
        assert np.isfinite(history[f"{task.name}_loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


# Saving, cloning, folding


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trained model and its file."""
    weights = {"click": 2.0}
    metrics = {"rating": [keras.metrics.MeanAbsoluteError(name="mae")]}
    adam = keras.optimizers.Adam(0.01)
    model = compiled(EVERY_KIND, adam, loss_weights=weights, metrics=metrics)
    model.fit(shown(), labels_of_every_kind(), epochs=2, verbose=0)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return model, path


def train_on(model):
    """Answers of a model that is evaluated and trains on, as arrays."""
    x, y = shown(), labels_of_every_kind()
    logs = evaluated(model, x, y)
    found = {f"evaluated {name}": value for name, value in logs.items()}
    found["iterations"] = model.optimizer.iterations.numpy()
    history = model.fit(x, y, epochs=2, verbose=0, shuffle=False).history
    found.update({f"trained {name}": values for name, values in history.items()})
    return found


def of_replicas():
    """History and weights of one and two replicas, with labels of equal number."""
    x, y = rows(16), labels(16)
    y["b"][[1, 2, 9, 10]] = NAN
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    found = {}
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        strategy = tf.distribute.MirroredStrategy(devices)
        count = strategy.num_replicas_in_sync
        with strategy.scope():
            penalty = keras.regularizers.L2(0.5)
            model = network(expert={"kernel_regularizer": penalty})
            model.compile(keras.optimizers.SGD(0.1))
        decay = DecayingWeights({"a": 0.5})
        arguments = {"epochs": 3, "shuffle": False, "verbose": 0}
        history = model.fit(batches, callbacks=[decay], **arguments).history
        found.update({f"{count} {name}": values for name, values in history.items()})
        for k, weight in enumerate(model.get_weights()):
            found[f"{count} weight {k}"] = weight
    return found


@pytest.fixture(scope="module")
def elsewhere(saved):
    """What a process of its own answers."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, __file__, saved[1]],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    with np.load(saved[1].with_suffix(".npz")) as found:
        return dict(found)


def test_loaded_model_knows_its_tasks(saved):
    model, path = saved
    loaded = keras.saving.load_model(path, safe_mode=True)
    assert type(loaded) is models.MultiTaskModel
    assert loaded.tasks == tuple(EVERY_KIND)
    assert float(loaded.task_weights["click"]) == 2.0
    names = [metric.name for metric in model.metrics]
    assert "rating_mae" in names
    assert [metric.name for metric in loaded.metrics] == names


def test_file_in_a_fresh_process_goes_on(saved, elsewhere):
    expected = train_on(saved[0])
    assert expected["iterations"] == 2
    for name, value in expected.items():
        np.testing.assert_allclose(elsewhere[name], value, rtol=1e-5, err_msg=name)


def test_two_replicas_are_one(elsewhere):
    found = {name: value for name, value in elsewhere.items() if name[:2] == "1 "}
    assert len(found) > 10
    for name, value in found.items():
        other = elsewhere[f"2 {name[2:]}"]
        tolerance = 0.02 if "auc" in name else 1e-5
        np.testing.assert_allclose(other, value, tolerance, 1e-6, err_msg=name)


def test_model_that_was_not_compiled(tmp_path):
    network().save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.tasks == tuple(TASKS)
    assert not loaded.compiled
    loaded.compile("adam")
    assert np.isfinite(loaded.fit(rows(), labels(), verbose=0).history["loss"]).all()


def test_losses_of_one_s_own_are_saved(tmp_path):
    model = network()
    model.compile("adam", {"a": "binary_crossentropy", "b": "mse"})
    y = {name: values[:, None] for name, values in labels().items()}
    model.fit(rows(), y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = evaluated(model, rows(), y)
    assert evaluated(loaded, rows(), y) == pytest.approx(expected, rel=1e-6)


def test_clone_of_a_compiled_model_trains():
    model = network()
    weights, own = {"a": 0.5, "b": 2.0}, balancing.PCGrad()
    model.compile("adam", loss_weights=weights, balancing=own)
    clone = keras.models.clone_model(model)
    assert (type(clone), clone.tasks) == (models.MultiTaskModel, model.tasks)
    assert clone.get_compile_config() == model.get_compile_config()
    clone.set_weights(model.get_weights())
    expected = evaluated(model, rows(), labels())
    assert evaluated(clone, rows(), labels()) == pytest.approx(expected, rel=1e-6)


def test_clone_of_another_model_gets_its_tasks_again():
    model = network()
    clone = keras.models.clone_model(model)
    assert (type(clone), clone.tasks) == (models.MultiTaskModel, ())
    again = models.MultiTaskModel(clone.input, clone.output, tasks=model.tasks)
    rebuilt = models.MultiTaskModel.from_config(model.get_config())
    model.compile("adam")
    expected = evaluated(model, rows(), labels())
    for copy in (again, rebuilt):
        copy.set_weights(model.get_weights())
        copy.compile("adam")
        assert copy.tasks == model.tasks
        assert evaluated(copy, rows(), labels()) == pytest.approx(expected, rel=1e-6)


def test_clone_without_tasks_is_saved(tmp_path):
    clone = keras.models.clone_model(network())
    clone.compile("adam", {"a": "binary_crossentropy", "b": "mse"})
    y = {name: values[:, None] for name, values in labels().items()}
    clone.fit(rows(), y, verbose=0)
    clone.save(tmp_path / "clone.keras")
    loaded = keras.saving.load_model(tmp_path / "clone.keras")
    assert loaded.tasks == ()
    assert loaded.compiled


def test_folded_model_trains_on():
    model = compiled(EVERY_KIND)
    folded = fold(model)
    assert type(folded) is models.MultiTaskModel
    assert folded.tasks == tuple(EVERY_KIND)
    assert sorted(folded.input) == ["seen", "x"]
    expected, found = predictions(model, shown()), predictions(folded, rows())
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    folded.compile(keras.optimizers.Adam(0.01), metrics={})
    history = folded.fit(rows(), labels_of_every_kind(), epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


# Refusals


def message(function, *arguments, **named):
    with pytest.raises(ValueError) as error:
        function(*arguments, **named)
    return str(error.value)


ONES = np.ones(12, "f4")
READ = "Labels should be given by name for tasks among ['a', 'b']. Received: "


@pytest.mark.parametrize(
    "given, expected",
    [
        (None, READ + "NoneType"),
        ({}, READ + "labels=[]"),
        (ONES, READ + "ndarray"),
        ([ONES, ONES], READ + "list"),
        ({"c": ONES}, READ + "labels=['c']"),
        ({"a": ONES, "c": ONES}, READ + "labels=['a', 'c']"),
        ({"seen": ONES}, READ + "labels=['seen']"),
        (
            {"a": np.ones((12, 2))},
            "The label of task 'a' should be of shape (batch, 1). "
            "Received: shape=(12, 2)",
        ),
        (
            {"a": np.ones((12, 1, 1))},
            "The label of task 'a' should be of shape (batch, 1). "
            "Received: shape=(12, 1, 1)",
        ),
    ],
    ids=str,
)
def test_labels_that_do_not_fit(given, expected):
    model = compiled()
    outputs = model(rows())
    assert message(model.compute_loss, rows(), given, outputs) == expected


def test_text_in_a_batch_of_labels():
    model, given = compiled(), {"a": tf.constant(["0"] * 12)}
    assert message(model.compute_loss, rows(), given, model(rows())) == (
        "The label of task 'a' should be numbers. Received: dtype=string"
    )


def test_no_label_of_a_single_task():
    model = compiled([Binary("a")])
    assert message(model.fit, rows(), verbose=0) == (
        "Labels should be given by name for tasks among ['a']. Received: NoneType"
    )


@pytest.mark.parametrize(
    "task, label, expected",
    [
        (Binary("a"), ["0", "1"], "numbers. Received: dtype=<U1"),
        (Binary("a"), [0, 5], "from 0 to 1, or missing. Received: from 0 to 5"),
        (
            MultiLabel("a", num_labels=2),
            [[0.0, 1.5]],
            "from 0 to 1, or missing. Received: from 0 to 1.5",
        ),
        (
            Count("a", missing=-2.0),
            [NAN, -2.0, -1.0],
            "from 0 to inf, or missing. Received: from -1 to -1",
        ),
        (
            MultiClass("a", num_classes=3),
            [0, 7],
            "from 0 to 2, or missing. Received: from 0 to 7",
        ),
        (
            Ordinal("a", num_levels=3),
            [-1, 1],
            "from 0 to 2, or missing. Received: from -1 to 1",
        ),
    ],
)
def test_label_that_the_task_cannot_have(task, label, expected):
    model, label = compiled([task]), np.asarray(label)
    label = np.resize(label, (12, *label.shape[1:]))
    for function in (model.fit, model.evaluate):
        assert message(function, rows(), {"a": label}, verbose=0) == (
            f"The label of task 'a' should be {expected}"
        )


def test_labels_in_a_list():
    assert message(compiled().fit, rows(), [ONES, ONES], verbose=0) == READ + "list"


@pytest.mark.parametrize("argument", ["sample_weight", "class_weight"])
def test_weights_not_by_task_name(argument):
    given = {argument: {"c": {0: 1.0}}, "verbose": 0}
    assert message(compiled().fit, rows(), labels(), **given) == (
        f"`{argument}` should be a dict by task name, of ['a', 'b']. "
        f"Received: {argument}=['c']"
    )


def test_weights_of_a_dataset_not_by_task_name():
    batches = weighted_batches(rows(), labels(), {"c": ONES})
    assert message(compiled().fit, batches, shuffle=False, verbose=0) == (
        "`sample_weight` should be a dict by task name, of ['a', 'b']. "
        "Received: sample_weight=['c']"
    )


def test_class_weights_of_a_dataset():
    batches = weighted_batches(rows(), labels(), {"a": ONES})
    given = {"a": {0: 1.0}}
    assert message(compiled().fit, batches, class_weight=given, verbose=0) == (
        "`class_weight` should be given with arrays of labels; a dataset may have "
        "weights by task name as the third element of its batches. "
        "Received: class_weight={'a': {0: 1.0}}"
    )


def test_label_of_several_is_too_narrow():
    model = compiled([MultiLabel("a", num_labels=3)])
    assert message(model.compute_loss, rows(), ONES, model(rows())) == (
        "The label of task 'a' should be of shape (batch, 3). Received: shape=(12, 1)"
    )


@pytest.mark.parametrize(
    "where, expected",
    [
        (
            "taken",
            "The labels or inputs should have the column 'taken' that says where task "
            "'b' has a label. Received: labels=['b'], inputs=['seen', 'x']",
        ),
        (
            "x",
            "The column 'x' of task 'b' should be of shape (batch, 1). "
            "Received: shape=(12, 3)",
        ),
    ],
)
def test_where_is_not_found(where, expected):
    model = compiled([Binary("a"), Regression("b", where=where)])
    assert message(model.compute_loss, rows(), {"b": ONES}, model(rows())) == expected


@pytest.mark.parametrize("argument", ["loss_weights", "metrics"])
@pytest.mark.parametrize("given", [{"c": 1.0}, [1.0]])
def test_arguments_not_by_task_name(argument, given):
    assert message(network().compile, **{argument: given}) == (
        f"`{argument}` should be a dict by task name, of ['a', 'b']. "
        f"Received: {argument}={[*given]}"
    )


@pytest.mark.parametrize("given", ["auc", ["auc"]])
def test_metrics_that_are_none(given):
    assert message(network().compile, metrics={"a": given}) == (
        f"`metrics` should be a list of Keras metrics for task 'a'. Received: {given!r}"
    )


def test_weighted_metrics_without_loss():
    assert message(network().compile, weighted_metrics=["auc"]) == (
        "`weighted_metrics` should be given with `loss` only; `metrics` of tasks take "
        "weights. Received: weighted_metrics=['auc']"
    )


def test_clone_without_loss():
    assert message(keras.models.clone_model(network()).compile, "adam") == (
        "`loss` should be given for a model without tasks, such as a clone of one not "
        "compiled; MultiTaskModel(clone.input, clone.output, tasks=…) has them. "
        "Received: loss=None"
    )


def gated():
    x = keras.Input((3,), name="x")
    slots = layers.SubNetworkRouting(1, 2)(layers.Experts(2, 2)(x))
    outputs = {"a": layers.Tower()(slots[:, 0])}
    return models.MultiTaskModel({"x": x}, outputs, tasks=[Binary("a")])


def test_weight_decay_excludes_gates_and_what_it_did_before():
    model = gated()
    optimizer = keras.optimizers.AdamW(weight_decay=0.5)
    routing = model.get_layer(index=2)
    optimizer.exclude_from_weight_decay([routing.kernel], ["bias"])
    model.compile(optimizer)
    biases = [weight for weight in model.weights if "bias" in weight.name]
    for weight in [routing.gate.theta, routing.kernel, *biases]:
        assert not optimizer._use_weight_decay(weight)
    assert any(optimizer._use_weight_decay(weight) for weight in model.weights)


def test_sparsity_begins_before_other_callbacks_and_ends_after_them():
    heard = []

    class Hear(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_train_begin(self, logs=None):
            heard.append(f"{self.name} begins")

        def on_epoch_end(self, epoch, logs=None):
            heard.append(f"{self.name} {epoch}")

        def on_train_end(self, logs=None):
            heard.append(f"{self.name} ends")

    model = gated()
    model.compile("adam", sparsity=Hear("gates"))
    y = {"a": np.zeros(2)}
    model.fit({"x": np.ones((2, 3))}, y, callbacks=[Hear("user")], verbose=0)
    assert heard == [
        "gates begins",
        "user begins",
        "gates 0",
        "user 0",
        "user ends",
        "gates ends",
    ]


def test_output_that_is_no_dict():
    x = keras.Input((3,), name="x")
    given = {"inputs": {"x": x}, "outputs": layers.Tower()(x), "tasks": TASKS}
    assert message(models.MultiTaskModel, **given) == (
        "`outputs` should be a dict with one for each task, of ['a', 'b']. "
        f"Received: outputs={given['outputs']}"
    )


def test_task_without_output():
    x = keras.Input((3,), name="x")
    given = {"inputs": {"x": x}, "outputs": {"a": layers.Tower()(x)}, "tasks": TASKS}
    assert message(models.MultiTaskModel, **given) == (
        "`outputs` should be a dict with one for each task, of ['a', 'b']. "
        "Received: outputs=['a']"
    )


def main(path):
    device = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(device, two)
    loaded = keras.saving.load_model(path, safe_mode=True)
    np.savez(path.with_suffix(".npz"), **train_on(loaded), **of_replicas())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
