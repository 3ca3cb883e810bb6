"""The recipe: names, wiring, kinds, saving, training."""

import keras
import numpy as np
import pytest

from tfmtl.features import Categorical, Numeric
from tfmtl.models import snr
from tfmtl.sparsity import L0Ramp, gates
from tfmtl.tasks import Binary, Regression, compile_arguments

FEATURES = [
    Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
    Categorical("c", units=2, vocabulary=("red", "blue")),
]
TASKS = [Binary("a"), Regression("ab", weight=0.5), Binary("shared_x", weight=2.0)]
KINDS = ["transformation", "average"]


def rows(count=6):
    generator = np.random.default_rng(0)
    colours = np.resize(["red", "blue", "green"], count)
    return {
        "x": keras.ops.convert_to_tensor(generator.normal(size=(count, 3)), "float32"),
        "c": keras.ops.convert_to_tensor(colours[:, None].tolist()),
    }


def labels(count=6):
    generator = np.random.default_rng(1)
    return {
        task.name: generator.integers(0, 2, (count, 1)).astype("f4") for task in TASKS
    }


def answers(model):
    outputs = model(rows(), training=False)
    return {name: keras.ops.convert_to_numpy(y) for name, y in outputs.items()}


def network(kind="transformation", tasks=TASKS, levels=((3, 4), (2, 4)), **kwargs):
    keras.utils.set_random_seed(0)
    return snr(FEATURES, tasks, levels, kind, **kwargs)


def connect(layer, opened):
    layer.gate.set_log_alpha(np.where(opened, 4.0, -4.0))


@pytest.mark.parametrize("kind", KINDS)
def test_columns_in_tasks_out(kind):
    model = network(kind)
    assert isinstance(model, keras.Model)
    assert sorted(model.input) == ["c", "x"]
    outputs = answers(model)
    assert list(outputs) == ["a", "ab", "shared_x"]
    assert all(y.shape == (6, 1) for y in outputs.values())
    for name in ("a", "shared_x"):
        assert ((outputs[name] > 0) & (outputs[name] < 1)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [[(3, 4)], [(1, 4)], [(3, 4), (2, 4), (4, 4)]])
def test_any_number_of_levels(kind, levels):
    assert answers(network(kind, levels=levels))["a"].shape == (6, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_task(kind):
    assert list(answers(network(kind, TASKS[:1]))) == ["a"]


def test_one_gate_per_connection_and_routed_level():
    model = network(levels=[(3, 4), (2, 5)])
    assert [gate.shape for gate in gates(model)] == [(2, 3), (3, 2)]


def test_every_weight_is_used():
    model = network()
    names = {weight.path for weight in model.trainable_weights}
    assert len(names) == len(model.trainable_weights)
    tower_weights = [name for name in names if "tower" in name]
    assert len(tower_weights) == 4 * len(TASKS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", range(3))
def test_each_tower_reads_its_own_slot(kind, task):
    model = network(kind)
    for gate in gates(model):
        gate.set_log_alpha(4.0)
    before = answers(model)
    routing = model.get_layer("task_routing")
    bias = np.zeros(routing.bias.shape, "f4")
    bias[task] = 5.0
    routing.bias.assign(bias)
    after = answers(model)
    moved = [name for name in before if not np.allclose(before[name], after[name])]
    assert moved == [TASKS[task].name]


def test_sub_network_moves_the_tasks_that_read_it():
    model = network(levels=[(2, 4)])
    connect(model.get_layer("task_routing"), [[1, 0], [0, 1], [1, 1]])
    before = answers(model)
    [level_bias] = model.get_layer("level_1").biases
    bias = np.zeros(level_bias.shape, "f4")
    bias[0] = 5.0
    level_bias.assign(bias)
    after = answers(model)
    moved = [name for name in before if not np.allclose(before[name], after[name])]
    assert moved == ["a", "shared_x"]


def test_arguments_reach_the_layers():
    gate = {"l0": 0.5, "beta": 0.6}
    regularizer = keras.regularizers.L2(0.5)
    routing = {
        "hard_concrete": gate,
        "activation": "tanh",
        "use_bias": False,
        "kernel_regularizer": regularizer,
    }
    model = network(
        routing=routing, dropout=0.25, tower={"units": (7, 5)}, name="ranker"
    )
    assert model.name == "ranker"
    assert all((g.beta, g.initial_l0) == (0.6, 0.5) for g in gates(model))
    for name in ("level_2", "task_routing"):
        routed = model.get_layer(name)
        assert routed.activation is keras.activations.tanh
        assert routed.bias is None
        assert routed.kernel_regularizer.l2 == 0.5
    assert model.get_layer("level_2_dropout").rate == 0.25
    assert model.get_layer("ab_tower").units == (7, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_keras_file(kind, tmp_path):
    model = network(kind, dropout=0.1)
    for gate in gates(model):
        gate.set_log_alpha(np.resize([4.0, -4.0, 0.3], gate.shape))
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    expected, got = answers(model), answers(reloaded)
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize("kind", KINDS)
def test_fit_with_validation_weights_and_ramp(kind):
    model = network(kind, routing={"hard_concrete": {"l0": 1e-3}}, dropout=0.1)
    model.compile(keras.optimizers.Adam(1e-2), **compile_arguments(TASKS))
    before = model.get_weights()
    history = model.fit(
        rows(12),
        labels(12),
        batch_size=5,
        epochs=2,
        sample_weight={task.name: np.resize([1.0, 0.0], 12) for task in TASKS},
        validation_data=(rows(), labels()),
        callbacks=[L0Ramp(1e-2, dense_epochs=0)],
        verbose=0,
    ).history
    assert {"loss", "a_loss", "val_a_auc", "val_ab_rmse", "open_share"} <= set(history)
    assert all(np.isfinite(values).all() for values in history.values())
    trained = {id(weight) for weight in model.trainable_weights}
    for weight, old in zip(model.weights, before, strict=True):
        if id(weight) in trained and "bias" not in weight.name:
            assert not np.array_equal(old, keras.ops.convert_to_numpy(weight))


def test_task_weights_weigh_the_total():
    model = network()
    model.compile("sgd", **compile_arguments(TASKS))
    found = model.evaluate(rows(), labels(), verbose=0, return_dict=True)
    total = sum(task.weight * found[f"{task.name}_loss"] for task in TASKS)
    np.testing.assert_allclose(found["loss"], total, rtol=1e-5)


def test_total_does_not_depend_on_the_batch_size():
    model = network(routing={"hard_concrete": {"l0": 0.1}})
    model.compile("sgd", **compile_arguments(TASKS))
    totals = [
        model.evaluate(rows(), labels(), batch_size=size, verbose=0)[0]
        for size in (2, 6)
    ]
    np.testing.assert_allclose(*totals, rtol=1e-5)


@pytest.mark.parametrize("levels", [[], [(3,)], [(3, 4, 5)]])
def test_refused_levels(levels):
    with pytest.raises(ValueError) as error:
        snr(FEATURES, TASKS, levels)
    assert str(error.value) == (
        "`levels` should be one or more pairs (number of sub-networks, width). "
        f"Received: levels={levels}"
    )


def test_average_refuses_unequal_widths():
    with pytest.raises(ValueError) as error:
        snr(FEATURES, TASKS, [(3, 4), (3, 5)], "average")
    assert str(error.value) == (
        "`levels` should have one width where kind='average', which keeps its "
        "input's width. Received: levels=[(3, 4), (3, 5)]"
    )


def test_refused_parts():
    with pytest.raises(ValueError, match="`tasks` should be one or more tasks"):
        snr(FEATURES, [])
    with pytest.raises(ValueError, match="`features` should be adapted to data"):
        snr([Numeric("x")], TASKS)
    with pytest.raises(ValueError, match="`kind` should be one of .*kind='mean'"):
        snr(FEATURES, TASKS, [(2, 4)], "mean")
    with pytest.raises(ValueError, match="`num_experts` should be a positive integer"):
        snr(FEATURES, TASKS, [(0, 4)])


def test_seeded_levels_start_unlike_and_draw_their_own_noise():
    features = [Numeric("x", mean=(0.0,), std=(1.0,))]
    tasks = [Binary("a"), Binary("b")]
    routing = {
        "hard_concrete": {"seed": 1},
        "kernel_initializer": keras.initializers.GlorotUniform(seed=7),
    }
    model = snr(features, tasks, [(2, 4), (2, 4)], routing=routing)
    first, second = (model.get_layer(name) for name in ("level_2", "task_routing"))
    assert not np.allclose(first.gate(training=True), second.gate(training=True))
    assert not np.allclose(first.kernel, second.kernel)


@pytest.mark.parametrize("name", ["click a", "", "_x", "a/b"])
def test_a_task_name_that_cannot_name_a_layer_is_refused(name):
    feature = Numeric("x", mean=(0.0,), std=(1.0,))
    with pytest.raises(ValueError, match="letters, digits"):
        snr([feature], [Binary(name)])


@pytest.mark.parametrize("level", [1, 2])
def test_average_refuses_layers_of_another_width(level):
    levels = [(2, 16), (2, 16)]
    levels[level - 1] = ([keras.layers.Dense(8), keras.layers.Dense(8)], 16)
    with pytest.raises(ValueError) as error:
        snr(FEATURES, TASKS, levels, "average")
    assert str(error.value) == (
        "`levels` should state the width of layers where kind='average', which keeps "
        "its input's width. Received: a width of 16 for layers of width 8 in level "
        f"{level}"
    )
