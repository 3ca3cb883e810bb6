"""Every layer, loss and recipe where Keras' `floatx` is float64."""

import keras
import numpy as np
import pytest
from registry import REGISTRY
from stock_recipes import FEATURES, RECIPES, TASKS, TOWER, columns, labels

from tfmtl import models, ops
from tfmtl.tasks import (
    Binary,
    Count,
    LogNormal,
    MultiClass,
    MultiLabel,
    Ordinal,
    Ranking,
    Regression,
    WeightedLogistic,
    compile_arguments,
)

KINDS = [
    Binary("y"),
    Regression("y"),
    Regression("y", delta=0.5),
    LogNormal("y"),
    WeightedLogistic("y"),
    Count("y"),
    MultiClass("y", num_classes=3),
    MultiLabel("y", num_labels=3),
    Ordinal("y", num_levels=3),
]


@pytest.fixture(autouse=True)
def float64():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # Keras notes it when first asked
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.id)
def test_a_layer_in_a_stock_model(entry):
    rows = entry.rows(8)
    model = entry.model()
    expected = entry.model(dtype="float32")({"x": rows})["y"]
    got = model({"x": rows})["y"]
    assert got.dtype.name == model.output["y"].dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    y = keras.layers.Flatten()(keras.ops.cast(model.output["y"], "float64"))
    trained = keras.Model(model.input, keras.layers.Dense(1)(y))
    trained.compile("adam", "mse")
    history = trained.fit({"x": rows}, np.ones((8, 1)), verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe(name):
    build = getattr(models, name.split()[0])
    model = build(FEATURES, TASKS, **RECIPES[name], tower=TOWER)
    rows = columns(model)
    types = ["float32", "float64", "int64", "float64"]
    y = labels(model)
    y = {task: y[task].astype(dtype) for task, dtype in zip(y, types, strict=True)}
    model.compile("adam")
    history = model.fit(rows, y, sample_weight=np.ones(6, "f4"), verbose=0).history
    losses = [values for key, values in history.items() if "loss" in key]
    assert len(losses) == len(TASKS) + 1 and np.isfinite(losses).all()
    predicted = model.predict(rows, verbose=0)
    assert {values.dtype.name for values in predicted.values()} == {"float64"}


def loss_as_printed(task, y, p):
    """Mean loss of labels `(batch, k)`, in NumPy."""
    if isinstance(task, Regression) and task.delta is None:
        return np.mean((p - y) ** 2)
    if isinstance(task, Regression):
        error, d = abs(p - y), task.delta
        return np.mean(np.where(error <= d, error**2 / 2, d * (error - d / 2)))
    if isinstance(task, LogNormal):
        return np.mean((np.log1p(y) - np.log1p(p) + 0.5) ** 2 / 2)
    if isinstance(task, WeightedLogistic):
        return np.mean(np.where(y > 0, y * np.log1p(1 / p), np.log1p(p)))
    if isinstance(task, Count):
        return np.mean(p - y * np.log(p))
    if isinstance(task, MultiClass):
        return -np.mean(np.log(p[np.arange(len(p)), y[:, 0].astype(int)]))
    if isinstance(task, Ordinal):
        y = y > np.arange(p.shape[1])
    return -np.mean(np.where(y > 0, np.log(p), np.log1p(-p)))


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_a_loss(task):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, (6, task.label_units)) * (1 + 1e-9)
    if isinstance(task, Binary | MultiClass | MultiLabel | Ordinal):
        y = np.round(y)
    p = generator.uniform(0.1, 0.9, (6, task.output_units))
    if isinstance(task, MultiClass):
        p /= p.sum(axis=1, keepdims=True)
    expected = loss_as_printed(task, y, p)
    assert float(task.loss()(y, p)) == pytest.approx(expected, rel=1e-9)
    values, weights = task.loss().per_label(y, p)
    assert np.average(values, weights=np.broadcast_to(weights, values.shape)) == (
        pytest.approx(expected, rel=1e-9)
    )


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_task_trains_in_a_stock_model(task, dtype):
    x = keras.Input((2,))
    y = keras.layers.Dense(task.output_units, task.head_activation)(x)
    model = keras.Model(x, {"y": y})
    model.compile("adam", **compile_arguments([task]))
    label = np.ones((8, task.label_units), dtype)
    history = model.fit(np.ones((8, 2)), {"y": label}, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_ranking():
    pytest.importorskip("keras_rs", reason="keras-rs is not installed")
    task = Ranking("y", within="user")
    x = keras.Input((2,), name="x")
    model = models.MultiTaskModel(
        {"x": x}, {"y": keras.layers.Dense(1)(x)}, tasks=[task]
    )
    model.compile("adam")
    y = {"y": np.arange(8.0), "user": np.repeat([1, 2], 4)}
    history = model.fit({"x": np.ones((8, 2))}, y, verbose=0).history
    assert history["y_loss"] == [pytest.approx(np.log(2), rel=1e-9)]


def test_openness_is_penalised_as_in_float32():
    [entry] = [e for e in REGISTRY if e.id == "HardConcreteGate"]
    model = entry.model()
    [penalty] = model.losses
    [theta] = [weight for weight in model.weights if weight.name == "theta"]
    gate = theta.regularizer.gate
    probability = ops.open_probability(gate.log_alpha, gate.beta, gate.gamma, gate.zeta)
    assert penalty.dtype.name == "float64"
    expected = gate.initial_l0 * keras.ops.sum(probability)
    assert float(penalty) == pytest.approx(float(expected), rel=1e-6)
