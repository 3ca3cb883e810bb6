"""Tasks: what each kind says, `compile_arguments` for stock models, refusals."""

import keras
import keras_rs
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import layers
from tfmtl.metrics import Labelled, auc
from tfmtl.tasks import (
    Binary,
    Count,
    LabelledLoss,
    LogNormal,
    MultiClass,
    MultiLabel,
    Ordinal,
    Position,
    Ranking,
    Regression,
    WeightedLogistic,
    compile_arguments,
)
from tfmtl.tasks.kinds import level_error
from tfmtl.tasks.objectives import Objectives

NAN = float("nan")
HINGE = keras_rs.losses.PairwiseHingeLoss(temperature=0.5)
KINDS = [  # a task with nothing left at its default, units, names of metrics
    (Binary, {"position": Position("p", 3, 0.5), "after": "b"}, 1, "auc calibration"),
    (Regression, {"delta": 0.5}, 1, "rmse"),
    (LogNormal, {"sigma": 0.5}, 1, "rmse calibration"),
    (WeightedLogistic, {}, 1, "rmse calibration"),
    (Count, {}, 1, "rmse calibration"),
    (MultiClass, {"num_classes": 4}, 4, "accuracy"),
    (MultiLabel, {"num_labels": 5}, 5, "auc"),
    (Ordinal, {"num_levels": 5}, 4, "mae"),
    (Ranking, {"within": "q", "pairwise_loss": HINGE}, 1, "ndcg_10"),
]
TASKS = [
    (kind("a", 2.0, -1.0, "c", **arguments), units, names)
    for kind, arguments, units, names in KINDS
]
each_task = pytest.mark.parametrize(
    "task, units, names", TASKS, ids=[type(task).__name__ for task, _, _ in TASKS]
)


@each_task
def test_what_a_task_says(task, units, names):
    assert (task.name, task.weight, task.missing, task.where) == ("a", 2.0, -1.0, "c")
    assert task.output_units == units
    assert task.label_units == (units if isinstance(task, MultiLabel) else 1)
    assert [metric.name for metric in task.metrics()] == names.split()
    assert isinstance(task.loss(), LabelledLoss)
    assert task.loss().missing == -1.0


@each_task
def test_a_task_survives_its_configuration(task, units, names):
    config = keras.saving.serialize_keras_object(task)
    assert keras.saving.deserialize_keras_object(config) == task


@each_task
def test_a_loss_survives_its_configuration(task, units, names):
    config = keras.saving.serialize_keras_object(task.loss())
    rebuilt = keras.saving.deserialize_keras_object(config)
    assert rebuilt.get_config() == task.loss().get_config()
    assert type(rebuilt) is type(task.loss())


@each_task
def test_losses_and_metrics_are_new_each_time(task, units, names):
    assert task.metrics()[0] is not task.metrics()[0]
    assert task.loss() is not task.loss()


@each_task
def test_another_weight(task, units, names):
    other = task.weighted(7.0)
    assert (other.weight, task.weight) == (7.0, 2.0)
    assert other.weighted(2.0) == task


@pytest.mark.parametrize("task", [Binary("a"), Regression("a")])
def test_loss_is_a_mean_over_labelled_examples(task):
    y, p = (
        np.array([[1.0], [NAN], [0.0], [1.0]]),
        np.array([[0.9], [0.1], [0.4], [0.3]]),
    )
    once = float(task.loss()(y, p))
    twice = float(task.loss()(np.tile(y, (2, 1)), np.tile(p, (2, 1))))
    known = float(task.loss()(y[[0, 2, 3]], p[[0, 2, 3]]))
    np.testing.assert_allclose([twice, known], once, rtol=1e-6)


@pytest.mark.parametrize("task", [Binary("a"), Regression("a", missing=-1.0)])
def test_weight_of_an_example_without_label_may_be_nan(task):
    y = [[1.0], [NAN], [-1.0 if task.missing else NAN]]
    p = np.full((3, 1), 0.5, "f4")
    loss = task.loss()(y, p, np.array([2.0, NAN, NAN]))
    np.testing.assert_allclose(loss, task.loss()(y[:1], p[:1]))


def test_weights_may_be_negative():
    loss = Regression("a").loss()
    y, p, weights = np.array([[3.0], [1.0]]), np.zeros((2, 1)), np.array([2.0, -1.0])
    assert float(loss(y, p, weights)) == 2 * 9 - 1


def test_level_error():
    p = np.array([[0.9, 0.5, 0.1], [1.0, 1.0, 1.0]], "f4")
    error = keras.ops.convert_to_numpy(level_error(np.array([[3], [3]]), p))
    np.testing.assert_allclose(error, [1.5, 0.0], atol=1e-6)


@pytest.mark.parametrize("rate", [0.5, 0.001])
@pytest.mark.parametrize("task", [Binary("a"), MultiLabel("a", num_labels=2)])
def test_auc_of_common_and_rare_labels(task, rate):
    generator = np.random.default_rng(0)
    logits = generator.normal(np.log(rate / (1 - rate)), 1.0, (100_000, 1))
    logits = np.repeat(logits, task.output_units, axis=1)
    p = 1 / (1 + np.exp(-logits))
    y = (generator.random(p.shape) < p).astype("f4")
    metric = task.metrics()[0]
    metric.update_state(y, p)
    exact = auc(y.ravel(), p.ravel())
    assert exact < 0.85
    np.testing.assert_allclose(metric.result(), exact, atol=5e-4)


@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_exceedance_never_rises(scale):
    raw = np.random.default_rng(0).normal(scale=scale, size=(200, 6)).astype("f4")
    p = keras.ops.convert_to_numpy(Ordinal("a", num_levels=7).head_activation(raw))
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p, axis=1) <= 0).all()


# A stock model


def test_arguments_by_task_name():
    tasks = [Binary("a", weight=2.0), Regression("b", missing=-1.0)]
    arguments = compile_arguments(tasks)
    assert sorted(arguments) == ["loss", "loss_weights", "weighted_metrics"]
    assert arguments["loss_weights"] == {"a": 2.0, "b": 1.0}
    for task in tasks:
        loss = arguments["loss"][task.name]
        assert loss.get_config() == task.loss().get_config()
        metrics = arguments["weighted_metrics"][task.name]
        assert all(isinstance(metric, Labelled) for metric in metrics)
        assert [m.name for m in metrics] == [m.name for m in task.metrics()]


def test_stock_model_trains_with_missing_labels():
    tasks = [
        Binary("click"),
        Binary("buy", weight=2.0, after="click", missing=-1.0),
        MultiLabel("topics", num_labels=3),
    ]
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    p = {
        task.name: keras.layers.Dense(task.output_units, "sigmoid", name=task.name)(x)
        for task in tasks
    }
    p["buy"] = layers.JointProbability(name="joint")([p["click"], p["buy"]])
    model = keras.Model(x, p)
    model.compile(keras.optimizers.SGD(0.0), **compile_arguments(tasks))
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(20, 4)).astype("f4")
    labels = {
        task.name: generator.integers(0, 2, (20, task.output_units)).astype("f4")
        for task in tasks
    }
    labels["click"][::3] = NAN
    labels["buy"][::2] = -1.0
    labels["topics"][generator.random((20, 3)) < 0.5] = NAN
    history = model.fit(rows, labels, batch_size=20, verbose=0).history
    predicted = model.predict(rows, verbose=0)
    total = 0.0
    for task in tasks:
        y, p = labels[task.name], predicted[task.name].astype("f8")
        known = ~np.isnan(y) & (y != task.missing)
        entropy = -np.where(y > 0, np.log(p), np.log1p(-p))[known].mean()
        np.testing.assert_allclose(history[f"{task.name}_loss"], entropy, rtol=1e-5)
        total += task.weight * entropy
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    assert "topics_auc" in history


# Refusals


def message(function, *arguments, **named):
    with pytest.raises(ValueError) as error:
        function(*arguments, **named)
    return str(error.value)


@pytest.mark.parametrize("names", [[], ["a", "b", "a"]])
def test_none_or_twice(names):
    assert message(compile_arguments, [Binary(name) for name in names]) == (
        f"`tasks` should be one or more tasks of different names. Received: "
        f"names={names}"
    )


def test_conditional_output_of_a_task_s_name():
    tasks = [Binary("a"), Binary("b", after="a"), Regression("b_given_a")]
    assert message(compile_arguments, tasks).startswith(
        "`tasks` should be one or more tasks of different names."
    )


def test_unfit_name():
    assert message(compile_arguments, [Binary("a b"), Binary("_c")]) == (
        "Names of `tasks` should start with a letter or digit and hold letters, "
        "digits, '_', '.' and '-' only. Received: ['a b', '_c']"
    )


def test_where_is_refused_by_compile_arguments():
    assert message(compile_arguments, [Binary("a"), Count("b", where="a")]) == (
        "Tasks whose label depends on another column (`where`, `within`) should be "
        "trained with a tfmtl.models.MultiTaskModel. Received: ['b']"
    )


@pytest.mark.parametrize(
    "tasks, before",
    [
        ([Binary("b", after="a"), Binary("a")], []),
        ([Binary("b", after="b")], []),
        ([Regression("a"), Binary("b", after="a")], []),
        ([MultiLabel("a"), Binary("c"), Binary("b", after="a")], ["c"]),
    ],
    ids=["later", "itself", "regression", "several labels"],
)
def test_step_after_none_of_its_kind(tasks, before):
    after = tasks[-1].after or tasks[0].after
    assert message(compile_arguments, tasks) == (
        f"Task 'b' should come after a binary task that stands before it, one of "
        f"{before}. Received: after={after!r}"
    )


@pytest.mark.parametrize(
    "kind, argument",
    [(MultiClass, "num_classes"), (MultiLabel, "num_labels"), (Ordinal, "num_levels")],
)
@pytest.mark.parametrize("value", [1, 2.0])
def test_fewer_than_two(kind, argument, value):
    assert message(kind, "a", **{argument: value}) == (
        f"`{argument}` of task 'a' should be an integer of 2 or more. "
        f"Received: {argument}={value!r}"
    )


@pytest.mark.parametrize(
    "kind, argument", [(LogNormal, "sigma"), (Regression, "delta")]
)
@pytest.mark.parametrize("value", [0.0, -1.0, NAN])
def test_not_above_0(kind, argument, value):
    assert message(kind, "a", **{argument: value}) == (
        f"`{argument}` of task 'a' should be a number above 0. "
        f"Received: {argument}={value!r}"
    )


@pytest.mark.parametrize("kind", [Binary, Regression, LogNormal, Count, MultiClass])
@pytest.mark.parametrize("weight", [NAN, float("inf"), "1", None])
def test_weight_that_is_no_finite_number(kind, weight):
    assert message(kind, "a", weight=weight) == (
        f"`weight` of task 'a' should be a finite number. Received: weight={weight!r}"
    )


def test_loss_weight_that_is_no_finite_number():
    weights = {"a": 1.0, "b": NAN}
    assert message(Objectives, [Binary("a"), Binary("b")], weights) == (
        "`loss_weights` should be finite numbers. "
        "Received: loss_weights={'a': 1.0, 'b': nan}"
    )


def test_position_of_another_type():
    assert message(Binary, "a", position="shown_at") == (
        "`position` of task 'a' should be a tfmtl.tasks.Position. "
        "Received: position='shown_at'"
    )


@pytest.mark.parametrize(
    "shapes", [[(2, 1)], [(2, 1), (2, 3)], [(2, 1)] * 3], ids=["one", "unlike", "three"]
)
def test_joint_probability_of_other_than_two(shapes):
    inputs = [tf.ones(shape) for shape in shapes]
    inputs = inputs if len(inputs) > 1 else inputs[0]
    assert message(layers.JointProbability(), inputs) == (
        "JointProbability should be called on two probabilities of one shape. "
        f"Received: shapes={shapes}"
    )
