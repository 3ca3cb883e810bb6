"""The train step with balanced tasks, against stock `fit` and against NumPy."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing, models
from tfmtl.balancing import pc_grad
from tfmtl.features import Categorical, Numeric, Sequence
from tfmtl.folding import fold
from tfmtl.tasks import Binary, DecayingWeights, Position, Regression

NUMERIC = [Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)]
WORDS = ("a", "b", "c", "d", "e")
FEATURES = [
    *NUMERIC,
    Categorical("city", vocabulary=WORDS, units=4, regularizer="l2"),
    Categorical("video", vocabulary=WORDS, units=4, table="video"),
    Sequence("watched", vocabulary=WORDS, units=4, table="video", length=3),
]
SHOWN = Position("position", num_positions=4, dropout=0.5)
TASKS = [
    Binary("click", position=SHOWN),
    Binary("buy", after="click", weight=2.0),
    Regression("rating"),
]
APART = [Binary("click"), Binary("buy", weight=2.0), Regression("rating")]
NAMES = [task.name for task in TASKS]
PENALIZED = {"kernel_regularizer": keras.regularizers.L2(0.01)}
RECIPES = {
    "shared_bottom": {"bottom": (6, 4), "expert": PENALIZED},
    "mmoe": {"experts": 3, "levels": [4], "expert": PENALIZED},
    "ple": {"levels": [4, 4]},
    "cross_stitch": {"levels": [4, 4]},
    "snr": {"levels": [(3, 4), (2, 4)], "routing": {"hard_concrete": {"l0": 0.01}}},
}
each_recipe = pytest.mark.parametrize("recipe", RECIPES)  # gates are in float32


def rows(count=16, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(count, 3)).astype("float32"),
        "city": rng.choice(WORDS, (count, 1)).astype(object),
        "video": rng.choice(WORDS[:3], (count, 1)).astype(object),
        "watched": rng.choice(["", *WORDS[:3]], (count, 4)).astype(object),
        "position": rng.integers(-1, 5, (count, 1)).astype("int32"),
    }


def labels(count=16, seed=0, missing=False):
    rng = np.random.default_rng([seed, 1])
    click = rng.integers(0, 2, (count, 1)).astype("float32")
    found = {
        "click": click,
        "buy": click * rng.integers(0, 2, (count, 1)).astype("float32"),
        "rating": rng.normal(size=(count, 1)).astype("float32"),
    }
    if missing:  # in some examples, and in all of the first batch of eight
        found["rating"][rng.random((count, 1)) < 0.3] = np.nan
        found["rating"][:8] = found["buy"][8:16] = np.nan
    return found


def tensors(columns):
    return {name: tf.convert_to_tensor(column) for name, column in columns.items()}


def network(recipe="shared_bottom", features=FEATURES, tasks=TASKS, **arguments):
    keras.utils.set_random_seed(0)
    arguments = {"tower": {"units": (3,)}, **RECIPES[recipe], **arguments}
    return getattr(models, recipe)(features, tasks, **arguments)


def numeric(tasks=2, seed=1, **arguments):
    """A model that XLA can compile, and rows and labels for it."""
    keras.utils.set_random_seed(0)
    kinds = [Regression(f"t{k}") for k in range(tasks)]
    model = models.shared_bottom(
        NUMERIC, kinds, **{"bottom": 6, "tower": {"units": (3,)}, **arguments}
    )
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(16, 3)).astype("float32")
    y = rng.normal(size=(16, tasks)).astype("float32")
    return model, {"x": x}, {f"t{k}": y[:, k : k + 1] for k in range(tasks)}


def trained(model, x, y, epochs=1, batch_size=8, sample_weight=None, **compiled):
    arguments = {"optimizer": keras.optimizers.SGD(0.1), "metrics": {}, **compiled}
    model.compile(**arguments)
    history = model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        sample_weight=sample_weight,
    )
    return history.history


def assert_same(one, other, atol):
    for weight, expected in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(weight, expected, 0, atol, err_msg=weight.path)


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


# Equal weights are the plain sum


def assert_equal_weights_are_stock(recipe, tasks, missing, atol, **compiled):
    x, y = rows(80), labels(80, missing=missing)
    if tasks is APART:
        del x["position"]
    balanced, stock = network(recipe, tasks=tasks), network(recipe, tasks=tasks)
    first = stock.get_weights()
    surgery = balancing.EqualWeights()
    found = trained(balanced, x, y, epochs=5, balancing=surgery, **compiled)
    expected = trained(stock, x, y, epochs=5, **compiled)
    assert_same(balanced, stock, atol)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], 1e-5, err_msg=name)
    moved = zip(stock.weights, first, strict=True)
    assert all(np.any(w != b) for w, b in moved if w.trainable)


@pytest.mark.parametrize(
    "recipe, missing",
    [("shared_bottom", False), ("shared_bottom", True), ("cross_stitch", True)],
)
def test_equal_weights_are_stock_fit_in_float64(recipe, missing, float64):
    assert_equal_weights_are_stock(recipe, APART, missing, atol=1e-9)


@each_recipe
def test_equal_weights_are_stock_fit_of_a_funnel_with_positions(recipe):
    assert_equal_weights_are_stock(recipe, TASKS, missing=True, atol=1e-6)


def test_a_small_last_batch_counts_by_its_rows():
    (one, x, y), (other, *_) = numeric(), numeric()
    found = trained(one, x, y, batch_size=12, balancing=balancing.EqualWeights())
    expected = trained(other, x, y, batch_size=12)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], 1e-6, err_msg=name)


def noisy():
    """A network with batch normalisation and dropout, and what to train it on."""
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    shared = keras.layers.BatchNormalization(name="norm", momentum=0.5)(x)
    shared = keras.layers.Dropout(0.5, seed=1)(keras.layers.Dense(8)(shared))
    outputs = {name: keras.layers.Dense(1)(shared) for name in ("t0", "t1")}
    tasks = [Regression(name) for name in outputs]
    _, columns, labels = numeric()
    return models.MultiTaskModel({"x": x}, outputs, tasks=tasks), columns, labels


@pytest.mark.parametrize(
    "method",
    [
        balancing.EqualWeights(),
        balancing.AtRepresentation(balancing.EqualWeights()),
        balancing.StaticWeights(),
    ],
    ids=repr,
)
def test_dropout_and_batch_normalisation_are_those_of_stock_fit(method):
    (one, x, y), (other, *_) = noisy(), noisy()
    trained(one, x, y, epochs=3, balancing=method)
    trained(other, x, y, epochs=3)
    [seed] = [v.numpy() for v in other.variables if "seed" in v.path]
    assert seed[1] == 6  # a draw in every step
    for found, expected in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(found, expected, 0, 1e-6, err_msg=found.path)


# Surgery against NumPy, from explicit gradients of each task

FUNNEL = [Binary("click"), Binary("buy", after="click", weight=2.0), TASKS[2]]
ORDERS = np.array([[2, 1], [0, 2], [1, 0]])


@pytest.fixture
def drawn(monkeypatch):
    """PCGrad draws `ORDERS`."""
    monkeypatch.setattr(
        pc_grad, "random_orders", lambda tasks, seed: keras.ops.array(ORDERS)
    )


def batch(seed=0, missing=False):
    """Rows and labels of `FUNNEL`."""
    x, y = rows(16, seed), labels(16, seed, missing)
    del x["position"]
    return x, y


def flat(gradients):
    return np.concatenate([g.ravel() for g in gradients])


def gradients_of(model, x, y):
    """`(T, …)` of each trainable variable by path, and those of the penalties."""
    variables = model.trainable_variables
    values = [variable.value for variable in variables]
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(tensors(x), training=True)
        losses = model.losses_on(tensors(x), tensors(y), outputs)
        *targets, penalty = [*losses, tf.add_n([0.0, *model.losses])]
    zero = tf.UnconnectedGradients.ZERO
    found = [tape.gradient(t, values, unconnected_gradients=zero) for t in targets]
    paths = [variable.path for variable in variables]
    own = {
        path: np.stack([tf.convert_to_tensor(g).numpy() for g in task])
        for path, *task in zip(paths, *found, strict=True)
    }
    found = tape.gradient(penalty, values, unconnected_gradients=zero)
    of_penalty = [tf.convert_to_tensor(g).numpy() for g in found]
    return own, dict(zip(paths, of_penalty, strict=True))


def algorithm_1(gradients, orders=ORDERS):
    """The coefficient of each task's gradient, `(T, P)`, in PCGrad's update."""
    gradients = gradients.astype("float64")
    coefficients = np.eye(len(gradients))
    for i, order in enumerate(orders):
        for j in order:
            product = coefficients[i] @ gradients @ gradients[j]
            if product < 0:
                coefficients[i, j] -= product / (gradients[j] @ gradients[j])
    return coefficients.sum(axis=0)


def surgery_of(model, own, weights, looked_at=None, orders=ORDERS):
    """Coefficients by path: of PCGrad where it looks at, else the plain sum's."""
    parts = balancing.partition(model, [task.name for task in model.tasks])
    shared = {variable.path for variable in parts.shared}
    chosen = {p for p in shared if looked_at is None or p.split("/")[0] in looked_at}
    gradients = np.stack(
        [
            weights[k] * flat(own[path][k] for path in chosen)
            for k in range(len(weights))
        ]
    )
    found = algorithm_1(gradients, orders)
    return {path: found if path in chosen else np.ones(len(weights)) for path in own}


def assert_step_is(model, x, y, coefficients, weights, atol=1e-5, **compiled):
    """One step of gradient descent, rate 1, against the sum of `own` and penalties."""
    own, penalties = gradients_of(model, x, y)
    if callable(coefficients):
        coefficients = coefficients(own)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    trained(model, x, y, batch_size=16, optimizer=keras.optimizers.SGD(1.0), **compiled)
    for variable in model.trainable_variables:
        path = variable.path
        expected = np.tensordot(coefficients[path] * weights, own[path], 1)
        expected = expected + penalties[path]
        moved = before[path] - variable.numpy()
        np.testing.assert_allclose(moved, expected, 1e-5, atol, err_msg=path)


def compiled(model, **arguments):
    model.compile(keras.optimizers.SGD(1.0), metrics={}, **arguments)
    return model


@pytest.mark.parametrize("recipe", ["shared_bottom", "mmoe", "ple"])
@pytest.mark.parametrize("tasks", [FUNNEL, APART], ids=["funnel", "apart"])
def test_pc_grad_is_algorithm_1_on_the_shared_parameters(recipe, tasks, drawn):
    model = compiled(network(recipe, tasks=tasks))
    for seed in range(20):  # until tasks conflict
        x, y = batch(seed)
        found = surgery_of(model, gradients_of(model, x, y)[0], np.ones(3))
        if np.abs(found["video_table/embeddings"] - 1).max() > 0.01:
            break
    else:
        raise AssertionError("no conflict")
    assert len(set(x["city"].ravel())) < len(x["city"])
    assert_step_is(model, x, y, found, np.ones(3), balancing=balancing.PCGrad())


@pytest.mark.parametrize("seed", range(4))
def test_pc_grad_of_two_tasks(seed):
    model, x, y = numeric(seed=seed)
    compiled(model)
    orders = np.array([[1], [0]])
    assert_step_is(
        model,
        x,
        y,
        lambda own: surgery_of(model, own, np.ones(2), orders=orders),
        np.ones(2),
        balancing=balancing.PCGrad(),
    )


def test_surgery_is_of_the_gradients_that_a_rule_weighs(drawn):
    weights = np.array([2.0, 0.5, 3.0])
    model, (x, y) = compiled(network(tasks=FUNNEL)), batch()
    both = [balancing.StaticWeights(tuple(weights)), balancing.PCGrad()]
    expected = lambda own: surgery_of(model, own, weights)  # noqa: E731
    assert_step_is(model, x, y, expected, weights, balancing=both)


def test_a_rule_alone_weighs_all_parameters():
    weights = np.array([2.0, 0.5, 3.0])
    model, (x, y) = compiled(network(tasks=FUNNEL)), batch()
    ones = dict.fromkeys([v.path for v in model.trainable_variables], np.ones(3))
    rule = balancing.StaticWeights(tuple(weights))
    assert_step_is(model, x, y, ones, weights, balancing=rule)


def test_shared_names_the_layers_that_surgery_looks_at(drawn):
    model, (x, y) = compiled(network(tasks=FUNNEL)), batch()
    names = ["level_1", "click_tower"]
    expected = lambda own: surgery_of(model, own, np.ones(3), names)  # noqa: E731
    arguments = {"balancing": balancing.PCGrad(), "shared": names}
    assert_step_is(model, x, y, expected, np.ones(3), **arguments)


def test_surgery_at_the_representation(drawn):
    model, x, y = numeric(tasks=3)
    compiled(model)
    bottom = keras.Model(model.input, model.get_layer("level_1").output)

    def expected(own):
        read = bottom(tensors(x))[:, 0]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(read)
            towers = {t: model.get_layer(f"{t}_tower")(read) for t in model.output}
            losses = model.losses_on(tensors(x), tensors(y), towers)
        gradients = np.stack([flat([tape.gradient(t, read).numpy()]) for t in losses])
        found = algorithm_1(gradients)
        assert np.abs(found - 1).max() > 0.01
        return {p: found if "level_1" in p else np.ones(3) for p in own}

    method = balancing.AtRepresentation(balancing.PCGrad())
    assert_step_is(model, x, y, expected, np.ones(3), balancing=method)


def test_a_task_without_labels_changes_nothing(drawn):
    model, (x, y) = compiled(network(tasks=FUNNEL)), batch()
    y["rating"][:] = np.nan
    before = {v.path: v.numpy() for v in model.trainable_variables}
    expected = lambda own: surgery_of(model, own, np.ones(3))  # noqa: E731
    with np.errstate(invalid="ignore", divide="ignore"):
        assert_step_is(model, x, y, expected, np.ones(3), balancing=balancing.PCGrad())
    for variable in model.trainable_variables:
        same = np.array_equal(before[variable.path], variable.numpy())
        assert same == variable.path.startswith("rating_tower")


def test_a_label_that_is_left_out():
    x, y = batch()
    del y["rating"]
    model = network(tasks=FUNNEL)
    before = [w.numpy() for w in model.get_layer("rating_tower").weights]
    history = trained(model, x, y, balancing=balancing.UPGrad())
    assert np.isfinite(history["loss"]).all()
    for weight, value in zip(
        model.get_layer("rating_tower").weights, before, strict=True
    ):
        np.testing.assert_array_equal(weight, value)


def apart():
    """Two tasks that share a layer, one that reads the input alone, a further score."""
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    shared = keras.layers.Dense(4, "tanh", name="shared")(x)
    outputs = {
        "a": keras.layers.Dense(1, name="a")(shared),
        "b": keras.layers.Dense(1, name="b")(shared),
        "alone": keras.layers.Dense(1, name="alone")(x),
        "score": keras.layers.Dense(1, name="score")(shared),
    }
    tasks = [Regression(name) for name in ("a", "b", "alone")]
    return models.MultiTaskModel({"x": x}, outputs, tasks=tasks)


@pytest.mark.parametrize(
    "method",
    [
        balancing.PCGrad(),
        balancing.AtRepresentation(balancing.PCGrad()),
        balancing.GradNorm(),
    ],
    ids=repr,
)
def test_what_a_task_does_not_reach_has_no_gradient(method):
    model, (x, y) = apart(), batch()
    before = {v.path: v.numpy() for v in model.trainable_variables}
    y = {"a": y["rating"], "b": -y["rating"], "alone": y["rating"]}
    history = trained(model, {"x": x["x"]}, y, balancing=method)
    assert np.isfinite(history["loss"]).all()
    for variable in model.trainable_variables:
        same = np.array_equal(before[variable.path], variable.numpy())
        assert same == variable.path.startswith("score")


class Recording(keras.optimizers.SGD):
    """Remembers of which type each variable's gradient was."""

    def apply(self, grads, trainable_variables=None):
        pairs = zip(trainable_variables, grads, strict=True)
        self.types = {variable.path: type(gradient) for variable, gradient in pairs}
        super().apply(grads, trainable_variables)


@pytest.mark.parametrize(
    "method",
    [
        balancing.PCGrad(),
        balancing.AtRepresentation(balancing.PCGrad()),
        [balancing.GradNorm(), balancing.UPGrad()],
        balancing.StaticWeights(),
    ],
    ids=repr,
)
def test_gradients_of_tables_stay_sparse(method):
    features = [
        *NUMERIC,
        Categorical("city", vocabulary=WORDS, units=4),
        *FEATURES[2:],
    ]
    model, (x, y) = network(features=features, tasks=FUNNEL), batch()
    optimizer = Recording(0.1)
    trained(model, x, y, balancing=method, optimizer=optimizer)
    sparse = {path for path, t in optimizer.types.items() if t is tf.IndexedSlices}
    assert sparse == {"embedding_4/embeddings", "video_table/embeddings"}
    assert len(optimizer.types) == len(model.trainable_variables)


def test_an_optimizer_that_accumulates_gets_the_mean_of_what_surgery_makes():
    """Not surgery of the mean gradient, of which it would have to know."""
    model, x, y = numeric()
    first = model.get_weights()

    def moved(rows, **arguments):
        model.set_weights(first)
        part = {name: column[rows] for name, column in y.items()}
        optimizer = keras.optimizers.SGD(1.0, **arguments)
        surgery = {"balancing": balancing.PCGrad(), "optimizer": optimizer}
        trained(model, {"x": x["x"][rows]}, part, **surgery)
        return flat(a - b for a, b in zip(first, model.get_weights(), strict=True))

    halves = (moved(slice(0, 8)) + moved(slice(8, 16))) / 2
    accumulated = moved(slice(0, 16), gradient_accumulation_steps=2)
    np.testing.assert_allclose(accumulated, halves, 0, 1e-6)


# Rules that look at losses and gradients


def state_of(model):
    return {n: v.numpy() for n, v in model._balancer._rule_state.items()}


def losses_of(model, x, y, training=True):
    outputs = model(tensors(x), training=training)
    return tf.stack(model.losses_on(tensors(x), tensors(y), outputs))


def assert_state(model, expected):
    found = state_of(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, 1e-4, 1e-6, err_msg=name)


def test_famo_sees_the_losses_after_the_step():
    rule = balancing.FAMO()
    model, (x, y) = compiled(network(tasks=FUNNEL)), batch()
    before = losses_of(model, x, y)
    trained(model, x, y, batch_size=16, balancing=rule)
    after = losses_of(model, x, y)
    assert (after != before).numpy().all()
    start = rule.initial_state(3)
    assert_state(model, rule.update(start, before, losses_after=after))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_famo_looks_at_what_the_step_changed_and_no_more(jit_compile):
    (one, x, y), (other, *_) = noisy(), noisy()
    still = {"optimizer": keras.optimizers.SGD(0.0), "jit_compile": jit_compile}
    trained(one, x, y, epochs=2, balancing=balancing.FAMO(), **still)
    still["optimizer"] = keras.optimizers.SGD(0.0)
    trained(other, x, y, epochs=2, **still)
    np.testing.assert_allclose(state_of(one)["mean"], 0, atol=1e-5)  # XLA rounds
    for found, expected in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(found, expected, 1e-6, err_msg=found.path)


def test_grad_norm_sees_the_products_of_the_gradients():
    rule = balancing.GradNorm()
    model, (x, y) = compiled(network(tasks=FUNNEL)), batch()
    own, _ = gradients_of(model, x, y)
    shared = balancing.partition(model, NAMES).shared
    gradients = np.stack([flat(own[v.path][k] for v in shared) for k in range(3)])
    before = losses_of(model, x, y)
    trained(model, x, y, batch_size=16, balancing=rule)
    gram = keras.ops.convert_to_tensor(gradients @ gradients.T)
    assert_state(model, rule.update(rule.initial_state(3), before, gram))


def test_dwa_goes_by_the_epochs_of_fit(drawn):
    rule, (x, y) = balancing.DWA(), batch()
    model = network(tasks=FUNNEL)
    optimizer = keras.optimizers.SGD(0.1)
    both = [balancing.PCGrad(), rule]
    history = trained(model, x, y, epochs=2, optimizer=optimizer, balancing=both)
    losses = [task.weight * np.array(history[f"{task.name}_loss"]) for task in FUNNEL]
    before, last = np.transpose(losses)
    found = state_of(model)
    np.testing.assert_allclose(found["last"], last, 1e-5)
    np.testing.assert_allclose(found["before"], before, 1e-5)
    powers = np.exp(last / before / 2)
    weights = 3 * powers / powers.sum()
    own, penalties = gradients_of(model, x, y)
    coefficients = surgery_of(model, own, weights)
    start = {v.path: v.numpy() for v in model.trainable_variables}
    model.fit(x, y, batch_size=16, verbose=0)
    for variable in model.trainable_variables:
        path = variable.path
        step = np.tensordot(coefficients[path] * weights, own[path], 1)
        step = 0.1 * (step + penalties[path])
        moved = start[path] - variable.numpy()
        np.testing.assert_allclose(moved, step, 1e-5, 1e-5, err_msg=path)


def test_dwa_beside_callbacks_of_one_s_own():
    epochs = []

    class Mine(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append(epoch)

    for given in (Mine(), [Mine()]):
        for positional in (False, True):
            model, x, y = numeric()
            model.compile("sgd", metrics={}, balancing=balancing.DWA())
            if positional:
                model.fit(x, y, 8, 1, 0, given)
            else:
                model.fit(x, y, verbose=0, callbacks=given)
            assert (state_of(model)["last"] > 0).all()
    assert epochs == [0] * 4


class Log(keras.callbacks.Callback):
    """What a rule knows after every step."""

    def on_train_begin(self, logs=None):
        self.states = []

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(state_of(self.model)["values"])


def test_a_rule_weighs_anew_in_every_step():
    """Not the weights of the step that was traced."""
    for jit_compile in (False, True):
        model, x, y = numeric()
        log = Log()
        arguments = {"metrics": {}, "jit_compile": jit_compile}
        model.compile("sgd", balancing=balancing.FAMO(), **arguments)
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[log])
        assert len({tuple(state) for state in log.states}) == 4


def test_pc_grad_draws_anew_in_every_step():
    for jit_compile in (False, True):
        model, x, y = numeric(tasks=4, seed=0)
        y = {name: label - sum(y.values()) / 4 for name, label in y.items()}
        first = model.get_weights()
        moved = set()
        arguments = {"metrics": {}, "jit_compile": jit_compile}
        model.compile("sgd", balancing=balancing.PCGrad(), **arguments)
        for _ in range(6):
            model.set_weights(first)
            model.fit(x, y, batch_size=16, verbose=0)
            moved.add(model.get_layer("level_1").get_weights()[0].tobytes())
        assert len(moved) > 1


# What Keras offers


def step_of(model, x, y, **arguments):
    trained(model, x, y, batch_size=16, **arguments)
    return model


@pytest.mark.parametrize(
    "method",
    [
        balancing.PCGrad(),
        balancing.AtRepresentation(balancing.MGDA()),
        [balancing.GradNorm(), balancing.UPGrad()],
        balancing.FAMO(),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "other",
    [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 4}],
    ids=lambda other: next(iter(other)),
)
def test_however_the_step_runs_it_is_the_same(method, other):
    (one, x, y), (two, *_) = numeric(), numeric()
    trained(one, x, y, epochs=3, batch_size=4, balancing=method, jit_compile=False)
    trained(two, x, y, epochs=3, batch_size=4, balancing=method, **other)
    assert two.jit_compile == other.get("jit_compile", two.jit_compile)
    assert_same(one, two, 1e-5)


def test_eager_steps_of_tables_are_the_same(drawn):
    x, y = batch()
    one, two = network(tasks=FUNNEL), network(tasks=FUNNEL)
    arguments = {"balancing": balancing.PCGrad(), "epochs": 2}
    trained(one, x, y, **arguments)
    trained(two, x, y, run_eagerly=True, **arguments)
    assert_same(one, two, 1e-6)


@pytest.mark.parametrize(
    "method",
    [
        balancing.UPGrad(),
        balancing.AlignedMTL(),
        [balancing.FAMO(), balancing.CAGrad()],
        balancing.AtRepresentation(balancing.MGDA()),
    ],
    ids=repr,
)
def test_steps_of_tables_by_xla_are_the_same(method):
    def table():
        keras.utils.set_random_seed(0)
        ids = keras.Input((2,), name="ids", dtype="int32")
        read = keras.layers.Embedding(5, 4, name="table")(ids)
        shared = keras.layers.Dense(4, "tanh")(keras.ops.reshape(read, (-1, 8)))
        outputs = {f"t{k}": keras.layers.Dense(1)(shared) for k in range(3)}
        tasks = [Regression(name) for name in outputs]
        return models.MultiTaskModel({"ids": ids}, outputs, tasks=tasks)

    _, _, y = numeric(tasks=3)
    x = {"ids": np.random.default_rng(1).integers(0, 5, (16, 2)).astype("int32")}
    one, two = table(), table()
    trained(one, x, y, epochs=3, balancing=method, jit_compile=False)
    trained(two, x, y, epochs=3, balancing=method, jit_compile=True)
    assert_same(one, two, 1e-5)


def test_weights_that_decay_do_in_a_balanced_step():
    (one, x, y), (other, *_), (constant, *_) = numeric(), numeric(), numeric()
    trained(constant, x, y, epochs=4, batch_size=32)
    decay = DecayingWeights({"t0": 0.5})
    for model, method in ((one, balancing.EqualWeights()), (other, None)):
        model.compile(keras.optimizers.SGD(0.1), metrics={}, balancing=method)
        model.fit(x, y, epochs=4, shuffle=False, verbose=0, callbacks=[decay])
    assert_same(one, other, 1e-6)
    assert np.abs(flat(constant.get_weights()) - flat(one.get_weights())).max() > 0.01


@pytest.mark.parametrize(
    "arguments",
    [
        {"global_clipnorm": 0.01},
        {"clipnorm": 0.01},
        {"gradient_accumulation_steps": 2},
        {"weight_decay": 0.1},
        {"use_ema": True},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_optimizers_do_what_they_do_in_stock_fit(arguments):
    x, y = batch()
    one, two = network(tasks=APART), network(tasks=APART)
    for model, method in ((one, balancing.EqualWeights()), (two, None)):
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, **arguments)
        trained(model, x, y, epochs=3, balancing=method, optimizer=optimizer)
    assert_same(one, two, 1e-6)


@pytest.mark.parametrize("by_task", [False, True])
def test_sample_weights_count_as_in_stock_fit(by_task):
    x, y = batch(missing=True)
    rng = np.random.default_rng(3)
    weights = rng.uniform(0, 2, 16).astype("float32")
    if by_task:
        weights = {name: rng.uniform(0, 2, 16).astype("float32") for name in NAMES}
        weights["click"][:8] = 0.0  # in all of the first batch
    one, two = network(tasks=FUNNEL), network(tasks=FUNNEL)
    for model, method in ((one, balancing.EqualWeights()), (two, None)):
        trained(model, x, y, epochs=3, sample_weight=weights, balancing=method)
    assert_same(one, two, 1e-6)


def test_surgery_under_a_global_norm_is_clipped_as_a_whole():
    model, x, y = numeric()
    before = model.get_weights()
    optimizer = keras.optimizers.SGD(1.0, global_clipnorm=0.01)
    trained(
        model, x, y, batch_size=16, balancing=balancing.PCGrad(), optimizer=optimizer
    )
    moved = flat(a - b for a, b in zip(before, model.get_weights(), strict=True))
    assert np.linalg.norm(moved) == pytest.approx(0.01, rel=1e-4)


def test_mixed_precision(mixed_float16):
    x, y = batch()
    one, two = network(tasks=FUNNEL), network(tasks=FUNNEL)
    first = one.get_weights()
    for model, method in ((one, balancing.EqualWeights()), (two, None)):
        trained(model, x, y, epochs=3, balancing=method)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert_same(one, two, 2e-3)
    kernel = one.get_layer("level_1").get_weights()[0]
    assert np.abs(kernel - first[2]).max() > 0.01 or first[2].shape != kernel.shape


@pytest.mark.parametrize(
    "method",
    [balancing.PCGrad(), balancing.AtRepresentation(balancing.PCGrad())],
    ids=repr,
)
def test_a_step_that_overflows_is_skipped(method, mixed_float16):
    model, (x, y) = network(tasks=FUNNEL), batch()
    before = model.get_weights()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**40
    )
    step_of(model, x, y, balancing=method, optimizer=optimizer)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert float(optimizer.dynamic_scale) == 2.0**39
    model.fit(x, y, epochs=40, verbose=0)
    assert float(optimizer.dynamic_scale) < 2.0**30
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert not np.array_equal(model.get_layer("level_1").get_weights()[0], before[2])


@pytest.mark.parametrize(
    "method, shared",
    [
        (balancing.MGDA(), ["level_1"]),
        ([balancing.StaticWeights((2.0, 0.5, 1.0)), balancing.UPGrad()], None),
        (balancing.AtRepresentation(balancing.CAGrad(0.7)), None),
        (balancing.GradNorm(), None),
        (balancing.FAMO(), None),
        ([balancing.DWA(), balancing.PCGrad()], None),
        (balancing.GradVac(), None),
    ],
    ids=repr,
)
def test_balancing_survives_saving(method, shared, tmp_path):
    model, (x, y) = network(tasks=FUNNEL), batch()
    step_of(model, x, y, epochs=3, balancing=method, shared=shared)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    filled = network(tasks=FUNNEL)
    arguments = {"metrics": {}, "balancing": method, "shared": shared}
    filled.compile(keras.optimizers.SGD(0.1), **arguments)
    filled.load_weights(tmp_path / "model.weights.h5")
    remembered = model._balancer.variables
    for other in (loaded, filled):
        assert_same(other, model, 0.0)
        assert other._balancer.variables.keys() == remembered.keys()
        for name, variable in other._balancer.variables.items():
            np.testing.assert_array_equal(variable, remembered[name], err_msg=name)
    for one in (loaded, filled, model):
        one.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    assert_same(loaded, model, 1e-6)
    assert_same(filled, model, 1e-6)


def test_what_balancing_remembers_is_no_weight_of_the_model(tmp_path):
    model, (x, y) = network(tasks=FUNNEL), batch()
    plain = [weight.path for weight in model.weights]
    step_of(model, x, y, balancing=[balancing.GradNorm(), balancing.GradVac()])
    assert [weight.path for weight in model.weights] == plain
    assert model.count_params() == network(tasks=FUNNEL).count_params()
    for name in ("model.keras", "model.weights.h5"):
        path = tmp_path / name
        model.save(path) if path.suffix == ".keras" else model.save_weights(path)
        stock = network(tasks=FUNNEL)
        stock.compile("sgd", metrics={})
        stock.load_weights(path)
        assert_same(stock, model, 0.0)
    stock.save_weights(tmp_path / "stock.weights.h5")
    before = state_of(model)
    model.load_weights(tmp_path / "stock.weights.h5")
    assert_state(model, before)


def test_training_that_was_interrupted_goes_on_as_if_not(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fitted(*callbacks):
        model, x, y = numeric()
        method = [balancing.DWA(), balancing.GradVac()]
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        model.compile(optimizer, metrics={}, balancing=method)
        given = {"shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
        model.fit(x, y, batch_size=8, epochs=4, **given)
        return model

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path))

    with pytest.raises(KeyboardInterrupt):
        fitted(backup(), Interrupt())
    resumed, whole = fitted(backup()), fitted()
    assert_same(resumed, whole, 1e-6)
    assert_state(resumed, state_of(whole))


def test_the_optimizer_s_state_survives_where_no_task_reaches_a_variable(tmp_path):
    model, (x, y) = apart(), batch()
    y = {"a": y["rating"], "b": -y["rating"], "alone": y["rating"]}
    adam = keras.optimizers.Adam(0.1)
    x = {"x": x["x"]}
    trained(model, x, y, epochs=2, balancing=balancing.UPGrad(), optimizer=adam)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found, expected = loaded.optimizer.variables, model.optimizer.variables
    assert len(found) == len(expected) == 2 + 2 * len(model.trainable_variables)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_a_folded_model_trains_on_balanced():
    x, y = batch()
    model = network("snr", tasks=APART, routing={"hard_concrete": {"l0": 0.01}})
    step_of(model, x, y, balancing=balancing.UPGrad())
    folded = fold(model, x)
    for one in (folded, model):
        history = step_of(one, x, y, balancing=balancing.UPGrad())
        assert np.isfinite(flat(one.get_weights())).all(), history


REPLICAS = """
    import keras, numpy as np, tensorflow as tf
    from tfmtl import balancing, models
    from tfmtl.features import Categorical, Numeric
    from tfmtl.tasks import Regression

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    rng = np.random.default_rng(0)
    x = {
        "x": rng.normal(size=(32, 3)).astype("float32"),
        "city": rng.integers(0, 4, (32, 1)),
    }
    y = rng.normal(size=(32, 3)).astype("float32")
    y = y - y.mean(axis=1, keepdims=True)  # in conflict, so that orders matter
    y = {f"t{k}": y[:, k : k + 1] for k in range(3)}
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)

    def trained(strategy, method, penalty):
        keras.utils.set_random_seed(0)
        city = {"vocabulary": (0, 1, 2), "units": 4, "regularizer": penalty}
        features = [
            Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
            Categorical("city", dtype="int64", **city),
        ]
        with strategy.scope():
            model = models.shared_bottom(
                features,
                [Regression(name) for name in y],
                bottom=6,
                expert={"kernel_regularizer": "l2"},
            )
            model.compile(keras.optimizers.SGD(0.1), metrics={}, balancing=method)
        history = model.fit(data, epochs=3, shuffle=False, verbose=0).history
        return [*model.get_weights(), *map(np.array, history.values())]

    for method, penalty in [
        (balancing.PCGrad(), None),
        ([balancing.RandomWeighting(), balancing.GradVac()], None),
        ([balancing.FAMO(), balancing.AtRepresentation(balancing.MGDA())], None),
        ([balancing.GradNorm(), balancing.UPGrad()], "l2"),
    ]:
        both = mirrored, tf.distribute.get_strategy()
        found = [trained(strategy, method, penalty) for strategy in both]
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, 1e-5, 1e-5, err_msg=repr(method))
"""


def test_two_replicas_are_one_on_the_global_batch():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REPLICAS)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr


# What does not fit together


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"balancing": "pcgrad"},
            "`balancing` should be a GradientSurgery, a LossWeighting, or one of each. "
            "Received: balancing='pcgrad'",
        ),
        (
            {"balancing": [balancing.PCGrad(), balancing.MGDA()]},
            "`balancing` should be a GradientSurgery, a LossWeighting, or one of each. "
            "Received: balancing=[PCGrad(), MGDA()]",
        ),
        (
            {"balancing": [balancing.DWA(), balancing.FAMO()]},
            "`balancing` should be a GradientSurgery, a LossWeighting, or one of each. "
            "Received: balancing=[DWA(temperature=2.0), FAMO(learning_rate=0.025, "
            "decay=0.001)]",
        ),
        (
            {"balancing": []},
            "`balancing` should be a method. Received: balancing=[]",
        ),
        (
            {"balancing": balancing.PCGrad(), "loss": "mse"},
            "`balancing` should be given without `loss`, for the losses of tasks. "
            "Received: loss='mse'",
        ),
        (
            {"balancing": balancing.PCGrad(), "shared": ["t0_tower"]},
            "`shared` should be names of layers that tasks share, ['level_1']. "
            "Received: shared=['t0_tower']",
        ),
        (
            {"balancing": balancing.PCGrad(), "shared": "level_1"},
            "`shared` should be names of layers that tasks share, ['level_1']. "
            "Received: shared='level_1'",
        ),
        (
            {"balancing": balancing.PCGrad(), "shared": []},
            "`shared` should be names of layers that tasks share, ['level_1']. "
            "Received: shared=[]",
        ),
        (
            {
                "balancing": balancing.AtRepresentation(balancing.PCGrad()),
                "shared": ["level_1"],
            },
            "`shared` should be left out with AtRepresentation, which looks at no "
            "parameters. Received: shared=['level_1']",
        ),
        (
            {"balancing": [balancing.StaticWeights(), balancing.NashMTL()]},
            "`balancing` should have no rule of loss weighting beside NashMTL, for "
            "which a task's scale means nothing. Received: "
            "balancing=[StaticWeights(values=None), NashMTL(iterations=20)]",
        ),
        (
            {
                "balancing": [
                    balancing.AtRepresentation(balancing.IMTLG()),
                    balancing.DWA(),
                ]
            },
            "`balancing` should have no rule of loss weighting beside IMTLG, for which "
            "a task's scale means nothing. Received: "
            "balancing=[AtRepresentation(surgery=IMTLG()), DWA(temperature=2.0)]",
        ),
        (
            {"balancing": balancing.StaticWeights((1.0, 2.0, 3.0))},
            "`values` should be one for each of 2 tasks. "
            "Received: values=(1.0, 2.0, 3.0)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, text):
    model, *_ = numeric()
    with pytest.raises(ValueError) as error:
        model.compile("sgd", **arguments)
    assert str(error.value) == text
