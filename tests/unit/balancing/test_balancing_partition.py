"""What tasks share, as read from the graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing, models
from tfmtl.balancing.task_gradients import TaskGradients, gram_of
from tfmtl.features import Categorical, Numeric, Sequence
from tfmtl.folding import fold
from tfmtl.tasks import Binary, Position, Regression

WORDS = ("a", "b", "c")
FEATURES = [
    Numeric("x", width=2, mean=(0.0, 0.0), std=(1.0, 1.0)),
    Categorical("city", vocabulary=WORDS, units=4),
]
TASKS = [Binary("a"), Regression("ab"), Regression("shared_x")]
NAMES = [task.name for task in TASKS]
# Layers that the tasks share; each task has its tower.
RECIPES = {
    "shared_bottom": ({"bottom": (4, 4)}, {"level_1"}),
    "omoe": ({"experts": 2, "levels": [4]}, {"level_1", "task_gate"}),
    "mmoe": (
        {"experts": 2, "levels": [4, 4]},
        {"level_1", "level_2", "level_2_gate", "task_gate"},
    ),
    "snr": (
        {"levels": [(2, 4), (2, 4)]},
        {"level_1", "level_2", "task_routing"},
    ),
    "cgc": ({"units": 4}, {"level_1_experts", "level_1_gate"}),
    "ple": (
        {"levels": [4, 4]},
        {"level_1_experts", "level_1_gate", "level_2_experts", "level_2_gate"},
    ),
    "adatt": (
        {"levels": [4, 4]},
        {"level_1_experts", "level_1_gate", "level_2_experts", "level_2_gate"},
    ),
    "cross_stitch": (
        {"levels": [4, 4]},
        {"level_1", "level_1_stitch", "level_2", "level_2_stitch"},
    ),
}


def layers_of(variables):
    return {variable.path.split("/")[0] for variable in variables}


def paths(variables):
    return sorted(variable.path for variable in variables)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes(recipe):
    arguments, shared = RECIPES[recipe]
    model = getattr(models, recipe)(FEATURES, TASKS, **arguments)
    parts = balancing.partition(model, NAMES)
    assert layers_of(parts.shared) == {"embedding_4", *shared}
    for name in NAMES:
        tower = model.get_layer(f"{name}_tower")
        assert paths(parts.own[name]) == paths(tower.trainable_variables)
    every = [*parts.shared, *(v for own in parts.own.values() for v in own)]
    assert paths(every) == paths(model.trainable_variables)


def test_networks_apart_share_nothing():
    model = models.single_task(FEATURES, TASKS, bottom=4)
    parts = balancing.partition(model, NAMES)
    assert parts.shared == []
    assert layers_of(parts.own["ab"]) == {
        "task_ab_embedding_4",
        "task_ab_bottom",
        "ab_tower",
    }
    with pytest.raises(ValueError) as error:
        model.compile("sgd", balancing=balancing.PCGrad())
    assert str(error.value) == (
        "`balancing` should be used where tasks share trainable parameters. "
        "Received: none shared by the tasks ['a', 'ab', 'shared_x']"
    )


def test_one_task_shares_nothing():
    model = models.shared_bottom(FEATURES, TASKS[:1])
    with pytest.raises(ValueError, match="Received: none shared by the tasks"):
        model.compile("sgd", balancing=balancing.MGDA())


def test_a_funnel_shares_its_first_step():
    tasks = [Binary("click"), Binary("buy", after="click"), Regression("stars")]
    model = models.shared_bottom(FEATURES, tasks, bottom=4)
    parts = balancing.partition(model, ["click", "buy", "stars"])
    assert layers_of(parts.shared) == {"embedding_4", "level_1", "click_tower"}
    assert parts.own["click"] == []
    assert layers_of(parts.own["buy"]) == {"buy_tower"}


def test_a_position_is_a_task_s_own():
    shown = Position("position", num_positions=3)
    tasks = [Binary("click", position=shown), Regression("stars")]
    model = models.shared_bottom(FEATURES, tasks, bottom=4)
    parts = balancing.partition(model, ["click", "stars"])
    assert layers_of(parts.own["click"]) == {"click_tower", "click_position_bias"}


def test_what_no_task_reaches_and_what_does_not_train_is_in_none():
    x = keras.Input((3,), name="x")
    shared = keras.layers.Dense(4, name="shared")(x)
    fixed = keras.layers.Dense(4, name="fixed", trainable=False)(shared)
    outputs = {
        name: keras.layers.Dense(1, name=name)(fixed) for name in ("a", "ab", "score")
    }
    parts = balancing.partition(keras.Model({"x": x}, outputs), ["a", "ab"])
    assert layers_of(parts.shared) == {"shared"}
    assert {task: layers_of(own) for task, own in parts.own.items()} == {
        "a": {"a"},
        "ab": {"ab"},
    }


def test_printed():
    model = models.shared_bottom(FEATURES, TASKS, bottom=4, tower={"units": (3,)})
    assert str(balancing.partition(model, NAMES)).splitlines() == [
        "shared     embedding_4, level_1 (48 parameters)",
        "a          a_tower (19 parameters)",
        "ab         ab_tower (19 parameters)",
        "shared_x   shared_x_tower (19 parameters)",
    ]
    model = models.single_task(FEATURES[:1], TASKS[:2], bottom=4)
    printed = str(balancing.partition(model, ["a", "ab"]))
    assert printed.splitlines()[0] == "shared   nothing (0 parameters)"


def test_a_task_without_output_is_refused():
    model = models.shared_bottom(FEATURES, TASKS)
    with pytest.raises(ValueError) as error:
        balancing.partition(model, ["a", "none"])
    assert str(error.value) == (
        "`model` should have an output for each task. Received: none for ['none']"
    )


def test_the_model_stays_as_it_is():
    model = models.mmoe(FEATURES, TASKS, experts=2, levels=[4])
    before = [operation.output for operation in model.operations]
    for _ in range(2):
        balancing.partition(model, NAMES)
    after = [operation.output for operation in model.operations]
    assert all(
        one is other
        for one, other in zip(
            keras.tree.flatten(before), keras.tree.flatten(after), strict=True
        )
    )


def test_a_model_that_was_called_and_folded():
    """Whose layers have further calls, in other graphs."""
    model = models.snr(FEATURES, TASKS, levels=[(2, 4)])
    expected = paths(balancing.partition(model, NAMES).shared)
    columns = {
        name: keras.Input(t.shape[1:], dtype=t.dtype) for name, t in model.input.items()
    }
    model(columns)
    fold(model)
    keras.Model(model.get_layer("level_1").output, model.output)
    assert paths(balancing.partition(model, NAMES).shared) == expected


# Gradients of graphs that are no recipe's


def graph(build):
    """A model of tasks `a` and `b` on columns x `(3,)` and ids `(2,)`."""
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    ids = keras.Input((2,), name="ids", dtype="int32")
    a, b = build(x, ids)
    outputs = {"a": a, "b": b}
    tasks = [Regression("a"), Regression("b")]
    return models.MultiTaskModel({"x": x, "ids": ids}, outputs, tasks=tasks)


def dense(units, **arguments):
    return keras.layers.Dense(units, "tanh", **arguments)


def layer_called_twice_by_each(x, ids):
    level = dense(3, name="level")
    h = level(level(x))
    return dense(1)(h), dense(1)(h)


def layer_called_by_one_task_each(x, ids):
    level = dense(3, name="level")
    return dense(1)(level(x)), dense(1)(level(-x))


def tower_that_both_call(x, ids):
    tower, bottom = dense(1, name="tower"), dense(3, name="bottom")(x)
    return tower(dense(2)(bottom)), tower(dense(2)(bottom))


def task_that_reads_two_depths(x, ids):
    low = dense(3, name="low")(x)
    high = dense(3, name="high")(low)
    return dense(1)(low), dense(1)(keras.ops.concatenate([low, high], axis=1))


def output_that_is_an_input_of_the_other(x, ids):
    a = dense(1, name="first")(dense(3, name="low")(x))
    return a, a * dense(1)(x)


def table_that_is_read_twice(x, ids):
    table = keras.layers.Embedding(4, 3, name="table")
    found = table(ids[:, :1])[:, 0], table(ids[:, 1:])[:, 0]
    return dense(1)(found[0] + found[1]), dense(1)(found[0] * found[1])


def table_that_a_task_reads_alone_too(x, ids):
    table = keras.layers.Embedding(4, 3, name="table")
    both = dense(3, name="bottom")(table(ids[:, :1])[:, 0])
    return dense(1)(both), dense(1)(both + table(ids[:, 1:])[:, 0])


def tables_that_feed_each_other(x, ids):
    low = keras.layers.Embedding(4, 3, name="low")(ids[:, 0])
    high = dense(3, name="high")(low * keras.layers.Embedding(4, 3)(ids[:, 1]))
    return dense(1)(high) + dense(1)(low), dense(1)(high)


def model_inside(x, ids):
    inner = keras.Input((3,))
    h = keras.Model(inner, dense(3)(dense(4)(inner)), name="inner")(x)
    return dense(1)(h), dense(1)(h)


GRAPHS = [
    layer_called_twice_by_each,
    layer_called_by_one_task_each,
    tower_that_both_call,
    task_that_reads_two_depths,
    output_that_is_an_input_of_the_other,
    table_that_is_read_twice,
    table_that_a_task_reads_alone_too,
    tables_that_feed_each_other,
    model_inside,
]


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_equal_weights_are_the_plain_sum_in_any_graph(build):
    rng = np.random.default_rng(0)
    x = {
        "x": rng.normal(size=(8, 3)).astype("float32"),
        "ids": rng.integers(0, 4, (8, 2)).astype("int32"),
    }
    y = {name: rng.normal(size=(8, 1)).astype("float32") for name in ("a", "b")}
    one, other = graph(build), graph(build)
    for model, method in ((one, balancing.EqualWeights()), (other, None)):
        model.compile(keras.optimizers.SGD(0.5), metrics={}, balancing=method)
        model.fit(x, y, epochs=3, shuffle=False, verbose=0)
    for weight, expected in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(weight, expected, 0, 1e-6, err_msg=weight.path)


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_products_are_those_of_one_tape_per_task_in_any_graph(build):
    model = graph(build)
    parts = balancing.partition(model, ["a", "b"])
    gradients = TaskGradients(model, parts)
    rng = np.random.default_rng(0)
    x = {
        "x": tf.constant(rng.normal(size=(8, 3)), "float32"),
        "ids": tf.constant(rng.integers(0, 4, (8, 2)), "int32"),
    }
    with tf.GradientTape(persistent=True) as tape:
        outputs, frontier = gradients.forward(x)
        losses = [tf.reduce_sum(outputs[name] ** 2) for name in ("a", "b")]
    cotangents, _ = gradients.of_towers(tape, losses, frontier)
    gram = gram_of(gradients.by_task(tape, frontier, cotangents).values())
    rows = []
    for name in ("a", "b"):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True)[name] ** 2)
        values = [variable.value for variable in parts.shared]
        found = tape.gradient(loss, values)
        rows += [
            np.concatenate([tf.convert_to_tensor(g).numpy().ravel() for g in found])
        ]
    rows = np.stack(rows)
    np.testing.assert_allclose(gram, rows @ rows.T, 1e-4, 1e-5)


@pytest.mark.parametrize(
    "build, shared, frontier",
    [
        (layer_called_twice_by_each, {"level"}, 1),
        (layer_called_by_one_task_each, {"level"}, 2),
        (tower_that_both_call, {"tower", "bottom"}, 2),
        (task_that_reads_two_depths, {"low"}, 1),
        (output_that_is_an_input_of_the_other, {"first", "low"}, 1),
        (table_that_is_read_twice, {"table"}, 2),
        (table_that_a_task_reads_alone_too, {"table", "bottom"}, 2),
    ],
)
def test_frontiers(build, shared, frontier):
    parts = balancing.partition(graph(build), ["a", "b"])
    assert layers_of(parts.shared) == shared
    assert len(parts.cut.frontier) == frontier


@pytest.mark.parametrize("recipe, frontier", [("shared_bottom", 1), ("mmoe", 3)])
def test_towers_read_learned_vectors_and_no_ids(recipe, frontier):
    features = [*FEATURES, Sequence("tags", vocabulary=WORDS, units=4, length=3)]
    model = getattr(models, recipe)(features, TASKS)
    cut = balancing.partition(model, NAMES).cut
    assert [tensor.dtype for tensor in cut.frontier] == ["float32"] * frontier


def test_gradients_stop_at_the_frontier():
    """dL / dF is that of the task's own part alone, whatever F feeds beside it."""
    model = graph(output_that_is_an_input_of_the_other)
    gradients = TaskGradients(model, balancing.partition(model, ["a", "b"]))
    x = {"x": tf.ones((2, 3)), "ids": tf.zeros((2, 2), "int32")}
    with tf.GradientTape(persistent=True) as tape:
        outputs, frontier = gradients.forward(x)
        losses = [tf.reduce_sum(outputs[name]) for name in ("a", "b")]
    [found], _ = gradients.of_towers(tape, losses, frontier)
    np.testing.assert_allclose(found[0], 1.0)
    np.testing.assert_allclose(found[1], outputs["b"] / outputs["a"], 1e-5)
