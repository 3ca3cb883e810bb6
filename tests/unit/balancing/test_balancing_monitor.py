"""Cosines and norms of the tasks' gradients while a model trains."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing, models
from tfmtl.balancing import ConflictMonitor
from tfmtl.features import Categorical, Numeric
from tfmtl.tasks import Binary, Regression

FEATURES = [
    Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
    Categorical("city", dtype="int64", vocabulary=(0, 1, 2), units=4),
]
TASKS = [Binary("click"), Binary("buy", after="click"), Regression("stars", weight=2.0)]
NAMES = [task.name for task in TASKS]
KEYS = {
    "cosine_click/buy",
    "cosine_click/stars",
    "cosine_buy/stars",
    *(f"gradient_norm_{name}" for name in NAMES),
    *(f"gradient_ratio_{name}" for name in NAMES),
}


def data(count=32, seed=0):
    rng = np.random.default_rng(seed)
    x = {
        "x": rng.normal(size=(count, 3)).astype("float32"),
        "city": rng.integers(0, 4, (count, 1)),
    }
    y = {
        "click": rng.integers(0, 2, (count, 1)).astype("float32"),
        "buy": rng.integers(0, 2, (count, 1)).astype("float32"),
        "stars": rng.normal(size=(count, 1)).astype("float32"),
    }
    return x, y


def network(**compiled):
    keras.utils.set_random_seed(0)
    expert = {"dropout": 0.3}
    model = models.shared_bottom(FEATURES, TASKS, bottom=(6, 4), expert=expert)
    model.compile(keras.optimizers.SGD(0.1), metrics={}, **compiled)
    return model


def fitted(model, monitor, epochs=1, **arguments):
    return model.fit(
        *data(),
        batch_size=8,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[monitor],
        **arguments,
    )


def measured(model, batch):
    """Cosines and norms from one tape per task."""
    x, y, *weights = tf.nest.map_structure(tf.convert_to_tensor, batch)
    shared = [v.value for v in balancing.partition(model, NAMES).shared]
    gradients = []
    for k in range(len(NAMES)):
        with tf.GradientTape() as tape:
            loss = model.losses_on(x, y, model(x, training=False), *weights)[k]
        found = tape.gradient(loss, shared, unconnected_gradients="zero")
        dense = [tf.convert_to_tensor(g).numpy().ravel() for g in found]
        gradients.append(np.concatenate(dense))
    gradients = np.stack(gradients).astype("float64")
    norms = np.linalg.norm(gradients, axis=1)
    scale = np.where(norms > 0, norms, np.inf)
    return gradients @ gradients.T / np.outer(scale, scale), norms


def test_cosines_and_norms_are_numpy_s():
    model, monitor = network(), ConflictMonitor(data(8, seed=1), every=4)
    fitted(model, monitor)
    cosines, norms = measured(model, data(8, seed=1))
    assert monitor.tasks == NAMES
    np.testing.assert_allclose(monitor.cosines[-1], cosines, 1e-4, 1e-6)
    np.testing.assert_allclose(monitor.norms[-1], norms, 1e-5)


@pytest.mark.parametrize("by_task", [False, True])
def test_the_batch_may_have_weights(by_task):
    x, y = data(8, seed=1)
    weights = np.linspace(0, 2, 8).astype("float32")
    given = (x, y, dict.fromkeys(NAMES, weights) if by_task else weights)
    model, monitor = network(), ConflictMonitor(given, every=4)
    fitted(model, monitor)
    cosines, norms = measured(model, given)
    np.testing.assert_allclose(monitor.cosines[-1], cosines, 1e-4, 1e-6)
    np.testing.assert_allclose(monitor.norms[-1], norms, 1e-5)
    assert np.abs(norms / measured(model, (x, y))[1] - 1).max() > 0.01


@pytest.mark.parametrize("balanced", [False, True])
def test_beside_balanced_tasks(balanced):
    method = balancing.UPGrad() if balanced else None
    model, monitor = network(balancing=method), ConflictMonitor(data(), every=2)
    fitted(model, monitor, epochs=2)
    cosines, norms = measured(model, data())
    np.testing.assert_allclose(monitor.cosines[-1], cosines, 1e-4, 1e-6)
    np.testing.assert_allclose(monitor.norms[-1], norms, 1e-5)


@pytest.mark.parametrize(
    "every, steps", [(1, [*range(1, 9)]), (3, [3, 6]), (100, [4, 8])]
)
def test_measures_every_few_steps_and_at_least_once_per_epoch(every, steps):
    monitor = ConflictMonitor(data(), every=every)
    fitted(network(), monitor, epochs=2)
    assert monitor.steps == steps
    assert monitor.cosines.shape == (len(steps), 3, 3)
    assert monitor.norms.shape == (len(steps), 3)


@pytest.mark.parametrize(
    "at_once, every, steps", [(2, 1, [2, 4, 6, 8]), (2, 3, [4, 6]), (4, 2, [4, 8])]
)
def test_steps_are_counted_that_are_executed_at_once(at_once, every, steps):
    monitor = ConflictMonitor(data(), every=every)
    fitted(network(steps_per_execution=at_once), monitor, epochs=2)
    assert monitor.steps == steps


def test_history_has_means_over_the_measurements():
    monitor = ConflictMonitor(data(), every=2)
    history = fitted(network(), monitor, epochs=2).history
    assert set(history) >= KEYS
    for epoch in range(2):
        own = slice(2 * epoch, 2 * epoch + 2)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            found = history[f"cosine_{NAMES[i]}/{NAMES[j]}"][epoch]
            assert found == pytest.approx(monitor.cosines[own, i, j].mean())
        for k, name in enumerate(NAMES):
            found = history[f"gradient_norm_{name}"][epoch]
            assert found == pytest.approx(monitor.norms[own, k].mean())
            ratios = monitor.norms[own, k] / monitor.norms[own].mean(axis=1)
            found = history[f"gradient_ratio_{name}"][epoch]
            assert found == pytest.approx(ratios.mean())


def test_names_that_join_to_the_same_have_cosines_of_their_own():
    names = ["a", "b_c", "a_b", "c"]
    tasks = [Regression(name) for name in names]
    model = models.shared_bottom(FEATURES, tasks, bottom=4)
    model.compile("sgd", metrics={})
    x, y = data()
    y = dict.fromkeys(names, y["stars"])
    history = model.fit(x, y, verbose=0, callbacks=[ConflictMonitor((x, y))]).history
    found = {key for key in history if key.startswith("cosine")}
    assert found == {
        f"cosine_{pair}" for pair in "a/b_c a/a_b a/c b_c/a_b b_c/c a_b/c".split()
    }


def of_two(labels, scale=1.0):
    """A monitor of two linear tasks on a shared layer, trained on labels (32, 2)."""
    keras.utils.set_random_seed(0)
    shared = keras.layers.Dense(1, use_bias=False)(x := keras.Input((3,), name="x"))
    outputs = {name: shared for name in ("a", "b")}
    tasks = [Regression(name) for name in outputs]
    model = models.MultiTaskModel({"x": x}, outputs, tasks=tasks)
    weights = {"a": 1.0, "b": scale}
    model.compile(keras.optimizers.SGD(0.0), metrics={}, loss_weights=weights)
    rows = {"x": data()[0]["x"]}
    y = {"a": labels[:, :1], "b": labels[:, 1:]}
    monitor = ConflictMonitor((rows, y), every=1)
    model.fit(rows, y, batch_size=16, verbose=0, callbacks=[monitor])
    return monitor


def test_it_says_that_surgery_is_not_needed():
    y = data()[1]["stars"]
    monitor = of_two(np.concatenate([y, y], axis=1))
    assert monitor.worked_against == {"a": 0.0, "b": 0.0}
    assert str(monitor).splitlines() == [
        "a, b: mean cosine 1.00, below 0 in 0% of the measurements",
        "a: 1 × the mean norm, worked against in 0%",
        "b: 1 × the mean norm, worked against in 0%",
        "The plain step works against no task: surgery is not needed.",
    ]


def test_it_says_whom_the_plain_step_works_against():
    y = 100 * data()[1]["stars"]
    monitor = of_two(np.concatenate([y, -y], axis=1), scale=0.5)
    assert monitor.worked_against == {"a": 0.0, "b": 1.0}
    first, *_, last = str(monitor).splitlines()
    assert first == "a, b: mean cosine -1.00, below 0 in 100% of the measurements"
    assert last == "The plain step works against b: surgery may help."


def test_it_says_nothing_before_it_measures():
    assert str(ConflictMonitor(data())) == "not measured yet"


def test_a_task_without_labels_has_no_norm_and_no_cosine():
    x, y = data()
    monitor = ConflictMonitor((x, {**y, "stars": np.full((32, 1), np.nan, "f4")}))
    fitted(network(), monitor)
    assert monitor.norms[0, 2] == 0 and (monitor.norms[0, :2] > 0).all()
    np.testing.assert_array_equal(monitor.cosines[0, 2], [0, 0, 0])
    np.testing.assert_allclose(np.diag(monitor.cosines[0])[:2], 1, 1e-6)


def test_measuring_changes_nothing():
    one, other = network(), network()
    found = fitted(one, ConflictMonitor(data(8, seed=1), every=1), epochs=2).history
    expected = fitted(other, keras.callbacks.Callback(), epochs=2).history
    for weight, value in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    assert set(found) == set(expected) | KEYS
    for name, values in expected.items():
        assert found[name] == values, name


def test_callbacks_see_what_it_measures():
    monitor = ConflictMonitor(data(), every=4)
    stop = keras.callbacks.EarlyStopping(monitor="cosine_click/stars", mode="max")
    model = network()
    model.fit(*data(), epochs=2, verbose=0, callbacks=[monitor, stop])
    assert len(monitor.steps) == 2


def test_a_batch_of_a_dataset():
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(8)
    monitor = ConflictMonitor(next(iter(batches)), every=4)
    model = network()
    model.fit(batches, verbose=0, shuffle=False, callbacks=[monitor])
    cosines, _ = measured(model, next(iter(batches)))
    np.testing.assert_allclose(monitor.cosines[-1], cosines, 1e-4, 1e-6)


def test_further_fits_go_on():
    monitor, model = ConflictMonitor(data(), every=4), network()
    fitted(model, monitor)
    fitted(model, monitor)
    assert monitor.steps == [4, 8]


def test_written_for_tensorboard(tmp_path):
    history = fitted(
        network(), ConflictMonitor(data(), log_dir=str(tmp_path)), epochs=2
    ).history
    [path] = tmp_path.iterdir()
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    assert set(found) == KEYS
    for name, by_epoch in found.items():
        assert list(by_epoch) == [0, 1]
        np.testing.assert_allclose(list(by_epoch.values()), history[name], 1e-6)


@pytest.mark.parametrize("every", [0, -1, 1.5, "often"])
def test_every_is_a_positive_integer(every):
    with pytest.raises(ValueError) as error:
        ConflictMonitor(data(), every=every)
    assert str(error.value) == (
        f"`every` should be a positive integer. Received: every={every!r}"
    )


def test_a_model_without_tasks_is_refused():
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(1)(x), name="plain")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError) as error:
        model.fit(
            np.ones((2, 3)),
            np.ones((2, 1)),
            verbose=0,
            callbacks=[ConflictMonitor(data())],
        )
    assert str(error.value) == (
        "ConflictMonitor should be used with a MultiTaskModel that trains on the "
        "losses of its tasks. Received: model='plain'"
    )


def test_a_model_with_losses_of_its_own_is_refused():
    model = network()
    model.compile("sgd", {name: "mse" for name in NAMES})
    with pytest.raises(ValueError, match="Received: model='shared_bottom'"):
        fitted(model, ConflictMonitor(data()))


def test_tasks_that_share_nothing_are_refused():
    keras.utils.set_random_seed(0)
    model = models.single_task(FEATURES, TASKS[::2], bottom=4)
    model.compile("sgd", metrics={})
    x, y = data()
    del y["buy"]
    with pytest.raises(ValueError, match="Received: none shared by the tasks"):
        model.fit(x, y, verbose=0, callbacks=[ConflictMonitor((x, y))])
