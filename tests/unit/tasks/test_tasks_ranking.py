"""Ranking: pairs and lists of a batch, against loops; what is refused."""

import re

import keras
import keras_rs
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import features, models
from tfmtl.metrics import Listwise, mean_average_precision, ndcg
from tfmtl.tasks import Binary, Ranking
from tfmtl.tasks.labels import complete_labels
from tfmtl.tasks.ranking import PairwiseLoss

NAN = float("nan")
PAIRWISE = {
    "PairwiseHingeLoss": lambda d, _: np.maximum(0, 1 - d),
    "PairwiseLogisticLoss": lambda d, _: np.log1p(np.exp(-d)),
    "PairwiseSoftZeroOneLoss": lambda d, _: 1 / (1 + np.exp(d)),
    "PairwiseMeanSquaredError": lambda d, y: (y - d) ** 2,
}
each_loss = pytest.mark.parametrize("name", PAIRWISE)


def rows(seed, size=40, lists=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, size).astype("f4")
    labels[rng.random(size) < 0.2] = NAN
    weights = rng.integers(0, 3, size).astype("f4")
    numbers = rng.integers(0, lists, size).astype("f4")
    numbers[rng.random(size) < 0.1] = NAN
    return labels, rng.normal(size=size).astype("f4"), weights, numbers


def by_loops(name, labels, scores, weights, lists):
    """The loss and its gradient, pair by pair."""
    total = weight = 0.0
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i == j or lists[i] != lists[j] or 0 in (weights[i], weights[j]):
                continue
            y = labels[i] - labels[j]
            if np.isnan(y) or y <= 0 and name != "PairwiseMeanSquaredError":
                continue
            total += weights[i] * PAIRWISE[name](scores[i] - scores[j], y)
            weight += weights[i]
    return total / weight if weight else 0.0


def of(name, **arguments):
    return PairwiseLoss(getattr(keras_rs.losses, name)(**arguments))


@each_loss
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("jit", [False, True])
def test_loss_is_a_mean_over_pairs(name, seed, jit):
    labels, scores, weights, lists = rows(seed)
    loss = of(name)

    @tf.function(jit_compile=jit, input_signature=[tf.TensorSpec((None, 1))])
    def value_and_gradient(s):
        with tf.GradientTape() as tape:
            tape.watch(s)
            value = loss(np.stack([labels, lists], 1), s, weights[:, None])
        return value, tape.gradient(value, s)

    value, gradient = value_and_gradient(tf.constant(scores[:, None]))
    expected = by_loops(name, labels, scores, weights, lists)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    left_out = np.isnan(labels) | np.isnan(lists) | (weights == 0)
    assert left_out.any() and not gradient.numpy()[left_out].any()
    for k in np.flatnonzero(~left_out)[:5]:
        step = 1e-3 * (np.arange(len(scores)) == k)
        ends = [
            by_loops(name, labels, scores + s, weights, lists) for s in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / 2e-3
        np.testing.assert_allclose(gradient[k, 0], slope, rtol=1e-2, atol=1e-4)


@each_loss
def test_a_single_list_is_that_of_keras_rs(name):
    labels, scores, _, _ = rows(0)
    labels = np.nan_to_num(labels)
    found = of(name, temperature=2.0)(
        np.stack([labels, np.zeros_like(labels)], 1), scores[:, None]
    )
    # which is a mean over rows of sums over pairs
    own = getattr(keras_rs.losses, name)(temperature=2.0)(labels[None], scores[None])
    y = labels[:, None] - labels
    pairs = (y > 0).sum() if name != "PairwiseMeanSquaredError" else y.size - len(y)
    np.testing.assert_allclose(float(found) * pairs, float(own) * y[0].size, rtol=1e-5)


@each_loss
@pytest.mark.parametrize(
    "labels, lists",
    [([1, 1, 1], [0, 1, 2]), ([NAN, 1, NAN], [0, 0, 0]), ([1, 0, 2], [NAN] * 3)],
    ids=["alone", "one label", "of no list"],
)
def test_no_pair_no_loss_and_no_gradient(name, labels, lists):
    scores = tf.constant([[3.0], [-1.0], [2.0]])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        value = of(name)(np.stack([labels, lists], 1).astype("f4"), scores)
    assert float(value) == 0.0
    assert not tape.gradient(value, scores).numpy().any()


def test_weights_and_values_give_the_mean():
    labels, scores, weights, lists = rows(5)
    y, loss = np.stack([labels, lists], 1), of("PairwiseLogisticLoss")
    values, counted = map(np.asarray, loss.per_label(y, scores[:, None], weights))
    assert values.shape == counted.shape == (40, 1)
    mean = (values * counted).sum() / counted.sum()
    np.testing.assert_allclose(mean, loss(y, scores[:, None], weights), rtol=1e-5)


@pytest.mark.parametrize(
    "column",
    [
        tf.constant(["u", "v", "", "u", ""]),
        tf.constant([[2**40 + 1], [2**40], [-1], [2**40 + 1], [-1]]),
        np.array([0.5, 2.0, NAN, 0.5, NAN]),
    ],
    ids=["strings", "ids", "numbers"],
)
@pytest.mark.parametrize("place", ["labels", "columns"])
def test_rows_of_one_value_are_a_list(column, place):
    tasks = [Ranking("click", within="user"), Binary("like", where="click")]
    given = {"click": np.arange(5.0), "like": np.ones(5)}
    columns = {}
    (given if place == "labels" else columns)["user"] = column
    found = complete_labels(tasks, given, columns, {})
    np.testing.assert_array_equal(
        found["click"], [[0, 0], [1, 1], [2, NAN], [3, 0], [4, NAN]]
    )
    assert found["like"].shape == (5, 1)


METRICS = [
    (lambda: keras_rs.metrics.NDCG(k=3, seed=0), ndcg, 3),
    (
        lambda: keras_rs.metrics.MeanAveragePrecision(seed=0),
        mean_average_precision,
        None,
    ),
]


@pytest.mark.parametrize("make, exact, k", METRICS, ids=["NDCG", "MAP"])
@pytest.mark.parametrize("weighted", [False, True])
def test_metric_is_the_exact_one_where_batches_hold_whole_lists(
    make, exact, k, weighted
):
    metric, parts = Listwise(make()), []
    for seed in range(3):
        labels, scores, weights, lists = rows(seed)
        weights = weights if weighted else None
        metric.update_state(np.stack([labels, lists], 1), scores[:, None], weights)
        known = ~np.isnan(lists)
        groups = lists[known].astype(int) + 100 * seed
        parts.append([labels[known], scores[known], groups])
        parts[-1].append(weights[known] if weighted else np.ones(known.sum()))
    y, s, g, w = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    expected = exact(y, s, g, k=k, sample_weight=w if weighted else None)
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-5)
    metric.update_state(np.full((4, 2), NAN), np.ones((4, 1)))  # nothing known
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-5)


def test_listwise_survives_its_configuration():
    metric = Listwise(keras_rs.metrics.NDCG(k=3), name="own")
    config = keras.saving.serialize_keras_object(metric)
    rebuilt = keras.saving.deserialize_keras_object(config)
    assert (rebuilt.name, rebuilt.metric.k) == ("own", 3)


def ranker(tasks, seed=0):
    keras.utils.set_random_seed(seed)
    x = features.Numeric("x", width=4, mean=(0,) * 4, std=(1,) * 4)
    user = features.Categorical("user", vocabulary=tuple("abcde"))
    return models.mmoe([x, user], tasks, experts=2, levels=[8])


def log(size=300, seed=0):
    """Rows whose order within a user follows x, but whose level does not."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 4)).astype("f4")
    user = rng.choice(list("abcde"), size)
    level = np.array([ord(name) - ord("c") for name in user])
    watched = np.maximum(x[:, 0] + 3.0 * level + 10.0, 0.0)
    return {"x": x, "user": user}, {"watched": watched, "like": 1.0 * (x[:, 1] > 0)}


TASKS = [Ranking("watched", within="user"), Binary("like")]


def test_a_ranking_trains_beside_other_tasks():
    x, y = log()
    model = ranker(TASKS)
    metrics = {
        "watched": [
            keras_rs.metrics.NDCG(k=5, name="ndcg"),
            keras.metrics.RootMeanSquaredError(name="rmse"),
        ]
    }
    model.compile(keras.optimizers.Adam(0.02), metrics=metrics)
    history = model.fit(x, y, batch_size=100, epochs=8, verbose=0).history
    assert {"watched_ndcg", "watched_rmse", "watched_loss"} <= set(history)
    # every batch is a mean over its own pairs, an epoch over all of these
    assert history["watched_loss"][-1] < 0.75 * history["watched_loss"][0]
    scores = model.predict(x, verbose=0)["watched"]
    found = model.evaluate(x, y, batch_size=300, verbose=0, return_dict=True)
    exact = ndcg(y["watched"], scores, x["user"], k=5)
    np.testing.assert_allclose(found["watched_ndcg"], exact, rtol=1e-4)


def test_class_and_sample_weights():
    x, y = log(60)
    labels = {"watched": np.repeat([0.0, 1.0, 2.0], 20), "like": y["like"]}
    model = ranker(TASKS)
    model.compile("sgd")
    weights = np.repeat([1.0, 3.0, 2.0], 20)
    found = model.evaluate(
        x,
        labels,
        sample_weight={"watched": weights},
        batch_size=60,
        verbose=0,
        return_dict=True,
    )
    scores = model.predict(x, verbose=0)["watched"][:, 0]
    _, lists = np.unique(x["user"], return_inverse=True)
    expected = by_loops(
        "PairwiseLogisticLoss", labels["watched"], scores, weights, lists
    )
    np.testing.assert_allclose(found["watched_loss"], expected, rtol=1e-4)
    frozen = ranker(TASKS)
    frozen.compile(keras.optimizers.SGD(0.0))
    by_class = {"watched": {1.0: 3.0, 2.0: 2.0}}
    history = frozen.fit(x, labels, class_weight=by_class, batch_size=60, verbose=0)
    np.testing.assert_allclose(history.history["watched_loss"][0], expected, rtol=1e-4)


def test_saved_with_its_loss(tmp_path):
    x, y = log(50)
    hinge = keras_rs.losses.PairwiseHingeLoss(temperature=0.5)
    model = ranker([Ranking("watched", within="user", pairwise_loss=hinge)])
    model.compile("sgd")
    model.fit(x, {"watched": y["watched"]}, verbose=0)
    model.save(tmp_path / "ranker.keras")
    loaded = keras.saving.load_model(tmp_path / "ranker.keras")
    assert loaded.tasks == model.tasks
    assert loaded.tasks[0].loss().pairwise_loss.temperature == 0.5
    results = [
        m.evaluate(x, {"watched": y["watched"]}, batch_size=50, verbose=0)
        for m in (model, loaded)
    ]
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_column_that_is_missing():
    model = ranker([Ranking("watched", within="request")])
    model.compile("sgd")
    x, y = log(10)
    with pytest.raises(ValueError) as error:
        model.evaluate(x, {"watched": y["watched"]}, verbose=0)
    assert (
        "The labels or inputs should have the column 'request' that says in which "
        "list task 'watched' has a label. Received: labels=['watched'], "
        "inputs=['user', 'x']"
    ) in str(error.value)


def test_list_metric_of_a_task_without_lists():
    model = ranker(TASKS)
    with pytest.raises(ValueError) as error:
        model.compile("sgd", metrics={"like": [keras_rs.metrics.NDCG(name="ndcg")]})
    assert str(error.value) == (
        "`metrics` of task 'like' should be of single rows, or the task a "
        "tfmtl.tasks.Ranking, which has lists. Received: ndcg"
    )


@pytest.mark.parametrize("within", ["", None, 3])
def test_no_column(within):
    with pytest.raises(ValueError) as error:
        Ranking("click", within=within)
    assert str(error.value) == (
        "`within` of task 'click' should be the name of a column. "
        f"Received: within={within!r}"
    )


@pytest.mark.parametrize(
    "loss", [keras.losses.Hinge(), keras_rs.losses.ListMLELoss(), "hinge"]
)
def test_loss_of_another_kind(loss):
    message = (
        "`pairwise_loss` of 'click' should be a pairwise loss of `keras_rs.losses`. "
        f"Received: pairwise_loss={loss!r}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Ranking("click", within="user", pairwise_loss=loss)


def test_metric_of_another_kind():
    with pytest.raises(ValueError) as error:
        Listwise(keras.metrics.AUC(name="auc"))
    assert str(error.value).startswith(
        "`metric` should be a metric of `keras_rs.metrics`. Received: metric="
    )
