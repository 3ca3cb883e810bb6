"""Limits in which one recipe is another: the same weights give the same outputs."""

import keras
import numpy as np
import pytest

from tfmtl import layers, models
from tfmtl.features import Numeric
from tfmtl.sparsity import gates
from tfmtl.tasks import Binary, Regression

WIDTH = 4
FEATURES = [Numeric("x", width=WIDTH, mean=(0.0,) * WIDTH, std=(1.0,) * WIDTH)]
TASKS = [Binary("a"), Regression("ab"), Regression("shared_x")]
TOWERS = [f"{task.name}_tower" for task in TASKS]
NAMES = [task.name for task in TASKS]


def rows():
    return np.random.default_rng(0).normal(size=(7, WIDTH)).astype("f4")


def network(recipe, tasks=TASKS, seed=0, **arguments):
    """A small model with random weights, biases among them."""
    build = getattr(models, recipe)
    model = build(FEATURES, tasks, tower={"units": (3,)}, **arguments)
    generator = np.random.default_rng([seed, 1])
    for weight in model.trainable_weights:
        if weight.name != "theta":
            weight.assign(generator.normal(scale=0.6, size=weight.shape))
    return model


def copy(source, target, names):
    """Gives layers of `target` the weights of those of `source`, by their names."""
    for name, other in names.items():
        target.get_layer(other).set_weights(source.get_layer(name).get_weights())


def copy_towers(source, target):
    copy(source, target, {tower: tower for tower in TOWERS})


def weights_of(model, layer):
    """Weights of a layer by their names."""
    own = model.get_layer(layer).weights
    return {weight.name: keras.ops.convert_to_numpy(weight) for weight in own}


def answers(model):
    outputs = model({"x": rows()}, training=False)
    return {name: keras.ops.convert_to_numpy(y) for name, y in outputs.items()}


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-6)


def open_all(model):
    for gate in gates(model):
        gate.set_log_alpha(4.0)


@pytest.mark.parametrize("units", [5, (6, 5)])
@pytest.mark.parametrize("recipe", ["mmoe", "omoe"])
def test_one_expert_is_shared_bottom(recipe, units):
    mixture = network(recipe, experts=1, levels=[units])
    bottom = network("shared_bottom", seed=1, bottom=units)
    copy(mixture, bottom, {"level_1": "level_1"})
    copy_towers(mixture, bottom)
    assert_same(answers(bottom), answers(mixture))


def test_mmoe_with_equal_gates_is_omoe():
    one = network("omoe", experts=3, levels=[5, 4])
    many = network("mmoe", seed=1, experts=3, levels=[5, 4])
    names = ["level_1", "level_2", "level_2_gate"]
    copy(one, many, {name: name for name in names})
    copy_towers(one, many)
    [kernel] = one.get_layer("task_gate").get_weights()
    many.get_layer("task_gate").set_weights([np.tile(kernel, (1, 3))])
    assert_same(answers(many), answers(one))


def test_ple_without_own_experts_is_mmoe():
    ple = network("ple", specific=0, shared=3, levels=[5])
    mmoe = network("mmoe", seed=1, experts=3, levels=[5])
    copy(ple, mmoe, {"level_1_experts": "level_1", "level_1_gate": "task_gate"})
    copy_towers(ple, mmoe)
    assert_same(answers(mmoe), answers(ple))


def test_ple_without_own_experts_with_equal_gates_is_omoe():
    omoe = network("omoe", experts=3, levels=[5])
    ple = network("ple", seed=1, specific=0, shared=3, levels=[5])
    copy(omoe, ple, {"level_1": "level_1_experts"})
    copy_towers(omoe, ple)
    [kernel] = omoe.get_layer("task_gate").get_weights()
    ple.get_layer("level_1_gate").set_weights([np.tile(kernel, (1, 3))])
    assert_same(answers(ple), answers(omoe))


@pytest.mark.parametrize("own, shared", [(0, 3), (3, 0), (1, 2)])
def test_ple_of_one_task_is_omoe(own, shared):
    ple = network("ple", TASKS[:1], specific=own, shared=shared, levels=[5])
    omoe = network("omoe", TASKS[:1], seed=1, experts=3, levels=[5])
    names = {"level_1_experts": "level_1", "level_1_gate": "task_gate"}
    copy(ple, omoe, {**names, "a_tower": "a_tower"})
    assert_same(answers(omoe), answers(ple))


def test_ple_of_own_experts_alone_is_single_task_mixtures():
    own = {"a": 3, "ab": 2, "shared_x": 2}
    ple = network("ple", specific=own, shared=0, levels=[5, 4])
    expected = answers(ple)
    for task in range(3):
        alone = only_task(ple, task, list(own.values()))
        assert_same(answers(alone), {NAMES[task]: expected[NAMES[task]]})


def only_task(ple, task, counts):
    """Task's part of a PLE without shared experts, as a model of one task."""
    name, count = NAMES[task], counts[task]
    alone = network("ple", [TASKS[task]], specific=count, shared=0, levels=[5, 4])
    copy(ple, alone, {f"{name}_tower": f"{name}_tower"})
    first = sum(counts[:task])
    for level in (1, 2):
        for part in ("experts", "gate"):
            old = weights_of(ple, f"level_{level}_{part}")
            new = alone.get_layer(f"level_{level}_{part}").weights
            for weight in new:
                values = old[weight.name]
                if part == "gate":
                    values = values[:, first : first + count]
                else:
                    values = values[first : first + count]
                weight.assign(values)
    return alone


@pytest.mark.parametrize("shared", [0, 2])
def test_cgc_is_ple_of_one_level(shared):
    counts = {"specific": {"a": 1, "ab": 3, "shared_x": 2}, "shared": shared}
    cgc = network("cgc", units=(6, 5), **counts)
    ple = network("ple", seed=1, levels=[(6, 5)], **counts)
    ple.set_weights(cgc.get_weights())
    assert_same(answers(ple), answers(cgc))


def dense(units, kernel, bias, activation="relu"):
    layer = keras.layers.Dense(units, activation)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer


def side_by_side(weights):
    """Experts' kernels `(e, d, h)` as one `(d, e h)`, and their biases."""
    kernel, bias = weights["kernel_1"], weights["bias_1"]
    flat = kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)
    return flat, bias.reshape(-1)


def routing_as_dense(weights):
    """A routing's kernel `(j, d, i, h)` as one `(j d, i h)`, and its bias."""
    j, d, i, h = weights["kernel"].shape
    return weights["kernel"].reshape(j * d, i * h), weights["bias"].reshape(-1)


def test_snr_with_open_gates_is_a_dense_network():
    model = network("snr", levels=[(3, 4), (2, 5)])
    open_all(model)
    first = side_by_side(weights_of(model, "level_1"))
    second = routing_as_dense(weights_of(model, "level_2"))
    last = routing_as_dense(weights_of(model, "task_routing"))
    x = dense(12, *first)(rows())
    x = dense(15, *last)(dense(10, *second)(x))
    got = {}
    for k, tower in enumerate(TOWERS):
        own = x[:, 5 * k : 5 * (k + 1)]
        got[NAMES[k]] = keras.ops.convert_to_numpy(model.get_layer(tower)(own))
    assert_same(got, answers(model))


def test_average_snr_with_open_gates_gives_all_tasks_the_sum():
    model = network("snr", kind="average", levels=[(3, 5)])
    open_all(model)
    x = dense(15, *side_by_side(weights_of(model, "level_1")))(rows())
    total = keras.ops.sum(keras.ops.reshape(x, (-1, 3, 5)), axis=1)
    bias = weights_of(model, "task_routing")["bias"]
    got = {}
    for k, tower in enumerate(TOWERS):
        own = keras.ops.relu(total + bias[k])
        got[NAMES[k]] = keras.ops.convert_to_numpy(model.get_layer(tower)(own))
    assert_same(got, answers(model))


def block_diagonal(kind):
    """An SNR whose sub-network k of each level is read by the next one's k alone."""
    levels = [(3, 5), (3, 5 if kind == "average" else 4)]
    model = network("snr", kind=kind, levels=levels)
    for gate in gates(model):
        gate.set_log_alpha(8 * np.eye(3) - 4)
    return model


@pytest.mark.parametrize("kind", ["transformation", "average"])
@pytest.mark.parametrize("task", range(3))
def test_block_diagonal_snr_is_separate_networks(kind, task):
    model = block_diagonal(kind)
    levels = [(1, 5), (1, 5 if kind == "average" else 4)]
    alone = network("snr", [TASKS[task]], seed=1, kind=kind, levels=levels)
    copy(model, alone, {TOWERS[task]: TOWERS[task]})
    for name in ("level_1", "level_2", "task_routing"):
        old, own = weights_of(model, name), slice(task, task + 1)
        for weight in alone.get_layer(name).trainable_weights:
            values = old[weight.name]
            if weight.name == "kernel":
                weight.assign(values[own, :, own])
            elif weight.name != "theta":
                weight.assign(values[own])
    open_all(alone)
    assert_same(answers(alone), {NAMES[task]: answers(model)[NAMES[task]]})


@pytest.mark.parametrize("kind", ["transformation", "average"])
@pytest.mark.parametrize("task", range(3))
def test_networks_of_a_block_diagonal_snr_do_not_touch(kind, task):
    model = block_diagonal(kind)
    before = answers(model)
    bias = model.get_layer("level_1").biases[0]
    bias.assign(keras.ops.convert_to_numpy(bias) + 3 * np.eye(3)[:, [task]])
    for name in ("level_2", "task_routing"):
        routing = model.get_layer(name)
        scale = 1 + np.eye(3)[task]
        if routing.kernel is not None:  # rows and columns of the one network
            kernel = keras.ops.convert_to_numpy(routing.kernel)
            kernel = kernel * scale[:, None, None, None] * scale[None, None, :, None]
            routing.kernel.assign(kernel)
        bias = keras.ops.convert_to_numpy(routing.bias)
        routing.bias.assign(bias * scale[:, None] + 0.5 * (scale[:, None] - 1))
    after = answers(model)
    for k, name in enumerate(NAMES):
        assert np.array_equal(after[name], before[name]) == (k != task)


@pytest.mark.parametrize("reads", [None, [[1, 0, 1], [1, 1, 1]]])
@pytest.mark.parametrize("slots", [(), (2,)])
def test_open_hard_concrete_pairs_change_no_gate(reads, slots):
    x = np.random.default_rng(1).normal(size=(5, *slots, 4)).astype("f4")
    gated = layers.SoftmaxGate(2, 3, reads, True, hard_concrete={})
    plain = layers.SoftmaxGate(2, 3, reads, True)
    gated.build(x.shape)
    plain.build(x.shape)
    gated.gate.set_log_alpha(4.0)
    generator = np.random.default_rng(2)
    for old, new in [(gated.kernel, plain.kernel), (gated.bias, plain.bias)]:
        values = generator.normal(size=old.shape)
        old.assign(values)
        new.assign(values)
    got, expected = gated(x, training=False), plain(x, training=False)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("recipe", ["omoe", "mmoe", "ple", "adatt"])
def test_open_hard_concrete_pairs_change_no_recipe(recipe):
    levels = {"levels": [5, 4]}
    gated = network(recipe, gate={"hard_concrete": {}}, **levels)
    plain = network(recipe, seed=1, **levels)
    open_all(gated)
    for layer in plain.layers:
        kept = [
            weight
            for weight in gated.get_layer(layer.name).weights
            if weight.name not in ("theta", "l0")
        ]
        layer.set_weights([keras.ops.convert_to_numpy(weight) for weight in kept])
    assert_same(answers(gated), answers(plain))


def without_residual(model):
    for layer in model.layers:
        if isinstance(layer, layers.StaticMixture):
            layer.z.assign(np.zeros(layer.z.shape))
    return model


def test_adatt_without_residual_is_mmoe():
    adatt = network("adatt", specific={"a": 1, "ab": 2, "shared_x": 2}, levels=[5])
    mmoe = network("mmoe", seed=1, experts=5, levels=[5])
    without_residual(adatt)
    copy(adatt, mmoe, {"level_1_experts": "level_1", "level_1_gate": "task_gate"})
    copy_towers(adatt, mmoe)
    assert_same(answers(adatt), answers(mmoe))


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("specific", [1, 2])
def test_adatt_without_residual_is_gates_over_all_experts(specific, shared):
    model = network("adatt", specific=specific, shared=shared, levels=[5, 4])
    without_residual(model)
    x = rows()
    for level in (1, 2):
        experts = model.get_layer(f"level_{level}_experts")(x)
        count = experts.shape[1]
        kernel = weights_of(model, f"level_{level}_gate")["kernel"]
        gated = [kernel[:, k : k + count] for k in range(0, kernel.shape[1], count)]
        residual = experts[:, : len(gated)] if specific == 1 else 0  # has no weights
        logits = [
            keras.ops.matmul(x if level == 1 else x[:, k], own)
            for k, own in enumerate(gated)
        ]
        weights = keras.ops.softmax(keras.ops.stack(logits, axis=1))
        x = layers.Mixture()([experts, weights]) + residual
    got = {
        name: keras.ops.convert_to_numpy(model.get_layer(tower)(x[:, k]))
        for k, (name, tower) in enumerate(zip(NAMES, TOWERS, strict=True))
    }
    assert_same(got, answers(model))


def single_streams(model, widths):
    """A single-task model with the streams of a cross-stitch network."""
    single = network("single_task", seed=1, bottom=widths)
    copy_towers(model, single)
    for k, name in enumerate(NAMES):
        bottom = single.get_layer(f"task_{name}_bottom")
        for level, (kernel, bias) in enumerate(
            zip(bottom.kernels, bottom.biases, strict=True), 1
        ):
            old = weights_of(model, f"level_{level}")
            kernel.assign(old["kernel_1"][k : k + 1])
            bias.assign(old["bias_1"][k : k + 1])
    return single


def test_cross_stitch_of_own_shares_is_single_streams():
    model = models.cross_stitch(
        FEATURES, TASKS, [5, 4], own_share=1.0, tower={"units": (3,)}
    )
    assert_same(answers(single_streams(model, (5, 4))), answers(model))


def test_cross_stitch_starts_with_the_shares_that_were_asked_for():
    model = models.cross_stitch(FEATURES, TASKS, [5, 4], own_share=0.8)
    for level in (1, 2):
        a = weights_of(model, f"level_{level}_stitch")["z"].reshape(3, 3)
        np.testing.assert_allclose(a, 0.1 + 0.7 * np.eye(3), atol=1e-6)


def test_one_task_of_a_single_task_model_is_shared_bottom():
    single = network("single_task", TASKS[:1], bottom=(5, 4))
    bottom = network("shared_bottom", TASKS[:1], seed=1, bottom=(5, 4))
    copy(single, bottom, {"task_a_bottom": "level_1", "a_tower": "a_tower"})
    assert_same(answers(bottom), answers(single))
