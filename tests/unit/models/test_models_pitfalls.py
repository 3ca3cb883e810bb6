"""What goes wrong in public multi-task code: experts, gates, wiring, PLE, SNR."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import layers, models
from tfmtl.features import Numeric
from tfmtl.folding import fold, without_training_inputs
from tfmtl.sparsity import gates
from tfmtl.tasks import Binary, Position, Regression

WIDTH = 4
FEATURES = [Numeric("x", width=WIDTH, mean=(0.0,) * WIDTH, std=(1.0,) * WIDTH)]
TASKS = [Binary("a"), Regression("ab"), Regression("shared_x")]
NAMES = [task.name for task in TASKS]
OWN = {"a": 2, "ab": 1, "shared_x": 3}
RECIPES = {
    "single_task": {"bottom": (4, 4)},
    "shared_bottom": {"bottom": (4, 4)},
    "omoe": {"experts": 3, "levels": [(4, 4)]},
    "mmoe": {"experts": 3, "levels": [4, 4]},
    "snr": {"levels": [(3, 4), (2, 4)]},
    "snr average": {"kind": "average", "levels": [(3, 4), (2, 4)]},
    "cgc": {"specific": OWN, "shared": 2, "units": (4, 4)},
    "ple": {"specific": OWN, "shared": 2, "levels": [4, 4]},
    "adatt": {"specific": OWN, "levels": [4, 4]},
    "adatt shared": {"specific": OWN, "shared": 2, "levels": [4, 4]},
    "cross_stitch": {"levels": [4, 4]},
}
GATED = ["omoe", "mmoe", "cgc", "ple", "adatt", "adatt shared"]
SMOOTH = {"activation": "tanh"}  # no ReLU that is 0 on every row hides a change
each_recipe = pytest.mark.parametrize("name", RECIPES)
each_gated = pytest.mark.parametrize("name", GATED)


def rows(count=12, seed=0):
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype("f4")


def network(name, tasks=TASKS, **arguments):
    keras.utils.set_random_seed(0)
    build = getattr(models, name.split()[0])
    arguments = {**RECIPES[name], **arguments}
    given = [arguments.get("experts"), arguments.get("specific")]
    given += [experts for experts, _ in arguments["levels"]] if "snr" in name else []
    if not any(isinstance(experts, list) for experts in given):
        arguments.setdefault("expert", SMOOTH)
    arguments.setdefault("tower", {"units": (3,), **SMOOTH})
    return build(FEATURES, tasks, **arguments)


@functools.cache
def built(name, own=None, shared=None):
    counts = {}
    if own is not None:
        specific = dict(zip(NAMES, own, strict=True))
        counts = {"specific": specific, "shared": shared}
    model = network(name, **counts)
    return model, model.get_weights()


def pristine(name, *counts):
    """The recipe's model with its first weights; built once."""
    model, weights = built(name, *counts)
    model.set_weights(weights)
    return model


def randomized(model):
    """Random weights all over, so that no default is restored by chance."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        values = generator.normal(scale=0.5, size=weight.shape)
        if weight.name == "theta":
            values = generator.uniform(-0.1, 0.1, weight.shape)
        weight.assign(abs(values) if "variance" in weight.name else values)
    return model


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def answers(model, training=False, **columns):
    outputs = model({"x": rows(), **columns}, training=training)
    return {name: values(y) for name, y in outputs.items()}


def changed(before, after):
    return [name for name in before if not np.array_equal(before[name], after[name])]


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def gate_weights(model, training=False):
    """What every gate of a model gives, by the gate's name."""
    outputs = {own.name: own.output for own in layers_of(model, layers.SoftmaxGate)}
    tensors = keras.Model(model.input, outputs)({"x": rows()}, training=training)
    return {name: values(tensor) for name, tensor in tensors.items()}


# Experts


each_initializer = pytest.mark.parametrize(
    "initializer",
    ["glorot_uniform", keras.initializers.GlorotUniform(seed=7)],
    ids=["named", "one seeded object"],
)


def assert_unlike(kernels):
    for a, b in itertools.combinations(kernels, 2):
        cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        assert abs(cosine) < 0.999
    assert all(np.linalg.matrix_rank(kernel) > 1 for kernel in kernels)


def assert_unlike_experts(model):
    for level in layers_of(model, layers.Experts):
        for kernel in level.kernels:
            assert_unlike(values(kernel))
    for level in layers_of(model, layers.SubNetworkRouting):
        if level.kernel is not None:
            blocks = values(level.kernel).transpose(0, 2, 1, 3)
            assert_unlike(blocks.reshape(-1, 4, 4))


@each_recipe
def test_experts_start_unlike(name):
    assert_unlike_experts(pristine(name))


@pytest.mark.parametrize("name", [*GATED, "snr", "cross_stitch"])
def test_experts_with_one_seeded_initializer_start_unlike(name):
    initializer = keras.initializers.GlorotUniform(seed=7)
    assert_unlike_experts(network(name, expert={"kernel_initializer": initializer}))


@each_initializer
def test_hidden_layers_of_an_expert_start_unlike(initializer):
    level = layers.Experts(3, (4, 4), kernel_initializer=initializer)
    level.build((None, 4))
    assert_unlike(np.concatenate([values(kernel) for kernel in level.kernels]))


@pytest.mark.parametrize("name", ["omoe", "mmoe", "snr", "cgc", "adatt"])
@each_initializer
def test_experts_given_as_layers_start_unlike(name, initializer):
    arguments = {"kernel_initializer": initializer}
    experts = [keras.layers.Dense(4, "relu", **arguments) for _ in range(2)]
    arguments = {
        "omoe": {"experts": experts},
        "mmoe": {"experts": experts},
        "snr": {"levels": [(experts, 4)]},
        "cgc": {"specific": experts, "shared": experts},
        "adatt": {"specific": experts, "shared": experts},
    }[name]
    if name in ("omoe", "mmoe", "adatt"):
        arguments["levels"] = [4]
    model = network(name, **arguments)
    kernels = [values(own.kernel) for own in layers_of(model, keras.layers.Dense)]
    assert len(kernels) == {"cgc": 8, "adatt": 8}.get(name, 2)
    assert_unlike(kernels)


@each_initializer
def test_modules_beside_one_given_as_layers_start_unlike(initializer):
    expert = {"kernel_initializer": initializer}
    own = {"a": [keras.layers.Dense(4, "relu")], "ab": 2, "shared_x": 1}
    model = network("cgc", specific=own, units=4, expert=expert)
    parts = layers_of(model, layers.Experts)
    assert [part.num_experts for part in parts] == [2, 1, 2]
    assert_unlike(np.concatenate([values(part.kernels[0]) for part in parts]))


# Gates


@each_gated
@pytest.mark.parametrize("training", [False, True])
def test_gates_sum_to_one(name, training):
    found = gate_weights(randomized(pristine(name)), training)
    assert found
    for weights in found.values():
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["omoe", "cgc"])
def test_gates_are_a_kernel_and_nothing_else(name):
    normalized = {"normalization": "batch"}
    model = network(name, expert=normalized, tower=normalized)
    for gate in layers_of(model, layers.SoftmaxGate):
        assert [weight.name for weight in gate.weights] == ["kernel"]
    assert any("moving_variance" in weight.path for weight in model.weights)


def parts_of(weight, gradient):
    """A gradient, cut into what must not be 0: experts, pairs, connections."""
    if weight.name in ("theta", "z"):
        return gradient.reshape(-1, 1)
    if "_gate/" in weight.path:
        return gradient.T
    if gradient.ndim == 4:
        j, d, i, h = gradient.shape
        return gradient.transpose(0, 2, 1, 3).reshape(j * i, d * h)
    if gradient.ndim == 3 or weight.name.startswith("bias_"):
        return gradient
    return gradient[None]


def gradients(model, columns, training=False):
    trained = model.trainable_weights
    with tf.GradientTape() as tape:
        outputs = model(columns, training=training)
        loss = sum(keras.ops.mean((y - 0.3) ** 2) for y in outputs.values())
    found = tape.gradient(loss, [weight.value for weight in trained])
    return list(zip(trained, found, strict=True))


@pytest.mark.parametrize(
    "name, gate",
    [
        *((name, None) for name in RECIPES),
        *((name, {"hard_concrete": {}, "use_bias": True}) for name in GATED),
    ],
)
def test_every_weight_gets_a_gradient(name, gate):
    model = network(name, gate=gate) if gate else pristine(name)
    for own in gates(model):
        own.set_log_alpha(1.5)  # z = 0.88: nearly open, and not clipped
    for weight, gradient in gradients(model, {"x": rows(24)}):
        for part in parts_of(weight, values(gradient)):
            assert np.isfinite(part).all()
            assert (part != 0).any(), weight.path


# for SNR see test_models_snr.py
@pytest.mark.parametrize("name", [name for name in RECIPES if "snr" not in name])
def test_every_weight_is_saved(name, tmp_path):
    extra = {"gate": {"use_bias": True, "dropout": 0.1}} if name in GATED else {}
    if name in ("cgc", "ple"):
        extra["gate"]["hard_concrete"] = {"l0": 1e-3}
    if name == "shared_bottom":
        extra = {"expert": {"normalization": "batch"}}
    model = randomized(network(name, **extra))
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert changed(answers(model), answers(reloaded)) == []
    for old, new in zip(model.weights, reloaded.weights, strict=True):
        assert old.path.split("/")[-1] == new.path.split("/")[-1]
        np.testing.assert_array_equal(values(new), values(old))


# Wiring


def tasks_moved(model, level):
    """The tasks whose outputs change with each expert of a level."""
    before, found = answers(model), []
    bias = model.get_layer(level).biases[-1]
    old = values(bias)
    for e in range(len(old)):
        bias.assign(old + np.eye(len(old))[:, [e]])
        found.append(changed(before, answers(model)))
    bias.assign(old)
    return found


def owners(own, shared):
    """The tasks that read each expert."""
    pairs = zip(NAMES, own, strict=True)
    return [[name] for name, count in pairs for _ in range(count)] + [NAMES] * shared


@pytest.mark.parametrize("level", ["level_1", "level_2"])
def test_every_expert_of_mmoe_moves_all_tasks(level):
    assert tasks_moved(pristine("mmoe"), level) == [NAMES] * 3


COUNTS = [((2, 1, 3), 2), ((2, 1, 3), 0), ((0, 3, 1), 1), ((1, 0, 0), 3)]
each_count = pytest.mark.parametrize("own, shared", COUNTS)


@each_count
def test_experts_of_cgc_move_the_tasks_that_read_them(own, shared):
    model = pristine("cgc", own, shared)
    assert tasks_moved(model, "level_1_experts") == owners(own, shared)


@each_count
def test_experts_of_ple_move_the_tasks_that_read_them(own, shared):
    model = pristine("ple", own, shared)
    expected = owners(own, shared)
    assert tasks_moved(model, "level_2_experts") == expected
    if shared:  # the shared gate passes those of the first level on to all tasks
        expected = [NAMES] * len(expected)
    assert tasks_moved(model, "level_1_experts") == expected


@pytest.mark.parametrize("own, shared", COUNTS[1:3])
def test_every_expert_of_adatt_moves_all_tasks(own, shared):
    model = pristine("adatt", own, shared)
    for level in (1, 2):
        moved = tasks_moved(model, f"level_{level}_experts")
        assert moved == [NAMES] * (sum(own) + shared)


@pytest.mark.parametrize("own, shared", COUNTS[1:])
def test_residual_of_adatt_is_of_a_task_s_own_experts(own, shared):
    model = network("adatt", specific=dict(zip(NAMES, own, strict=True)), shared=shared)
    first, last = layers_of(model, layers.StaticMixture)
    alone = owners(own, 0) + [["shared"]] * shared
    expected = [[reader == [name] for reader in alone] for name in [*NAMES, "shared"]]
    assert last.reads == expected[:3]
    assert first.reads == (expected if shared else expected[:3])


@pytest.mark.parametrize("shared", [0, 1])
def test_plain_residual_of_adatt_is_nothing_to_train(shared):
    model = network("adatt", specific=1, shared=shared, levels=[4, 4])
    assert layers_of(model, layers.StaticMixture) == []
    count = len(model.trainable_weights)
    model.trainable = False
    model.trainable = True
    assert len(model.trainable_weights) == count
    levels = {own.name: own.output for own in layers_of(model, layers.Mixture)}
    levels["experts"] = model.get_layer("level_2_experts").output
    levels["sum"] = model.get_layer("level_2_sum").output
    found = keras.Model(model.input, levels)({"x": rows()})
    residual = values(found["sum"]) - values(found["level_2_mixture"])
    np.testing.assert_allclose(residual, found["experts"][:, :3], atol=1e-6)


def test_network_of_a_single_task_model_moves_its_task():
    for name in NAMES:
        assert tasks_moved(pristine("single_task"), f"task_{name}_bottom") == [[name]]


@pytest.mark.parametrize("level", ["level_1", "level_2"])
def test_every_stream_of_cross_stitch_moves_all_tasks(level):
    assert tasks_moved(pristine("cross_stitch"), level) == [NAMES] * 3


@each_count
def test_gate_of_a_task_moves_its_task(own, shared):
    model = pristine("cgc", own, shared)
    gate = model.get_layer("level_1_gate")
    sizes = [count + shared for count in own]
    assert gate.open_pairs().sum(axis=1).tolist() == sizes
    before, old = answers(model), values(gate.kernel)
    for k, name in enumerate(NAMES):
        mask = np.repeat(np.arange(3) == k, [n if n > 1 else 0 for n in sizes])
        gate.kernel.assign(np.where(mask, -old, old))
        expected = [name] if sizes[k] > 1 else []
        assert changed(before, answers(model)) == expected


@each_recipe
def test_tower_moves_its_task(name):
    model = pristine(name)
    before = answers(model)
    for task in NAMES:
        head = model.get_layer(f"{task}_tower").head
        head.bias.assign([0.5])
        after = answers(model)
        assert changed(before, after) == [task]
        before = after


# PLE


def moved_rows(before, after):
    """The rows of a gate's weights that are others than before."""
    return np.any(before != after, axis=(0, 2)).tolist()


def shift(model, level, e):
    bias = model.get_layer(level).biases[-1]
    bias.assign(values(bias) + np.eye(bias.shape[0])[:, [e]])


@pytest.mark.parametrize("shared", [0, 2])
def test_gates_of_the_second_level_read_the_first(shared):
    model = network("ple", shared=shared, levels=[4, 5, 6])
    before = gate_weights(model)
    shift(model, "level_1_experts", 0)  # an own one of the first task
    after = gate_weights(model)
    with_shared = [True] if shared else []
    none = [False, False, False, *with_shared]
    assert moved_rows(before["level_1_gate"], after["level_1_gate"]) == [
        False for _ in none
    ]
    assert moved_rows(before["level_2_gate"], after["level_2_gate"]) == [
        True,
        False,
        False,
        *with_shared,
    ]
    assert moved_rows(before["level_3_gate"], after["level_3_gate"]) == (
        [True] * 3 if shared else [True, False, False]
    )


def test_shared_gate_reads_the_shared_stream():
    model = network("ple", levels=[4, 5, 6])
    first = model.get_layer("level_1_gate")
    before, old = gate_weights(model), values(first.kernel)
    sizes = first.open_pairs().sum(axis=1)
    assert sizes.tolist() == [4, 3, 5, 8]
    is_shared = np.repeat([False, False, False, True], sizes)
    first.kernel.assign(np.where(is_shared, -old, old))
    after = gate_weights(model)
    expected = [False, False, False, True]
    assert moved_rows(before["level_1_gate"], after["level_1_gate"]) == expected
    assert moved_rows(before["level_2_gate"], after["level_2_gate"]) == expected


@pytest.mark.parametrize("name", ["ple", "adatt shared"])
@pytest.mark.parametrize("shared", [0, 2])
def test_no_shared_gate_on_the_last_level(name, shared):
    model = network(name, shared=shared, levels=[4, 5, 6])
    outputs = [gate.num_outputs for gate in layers_of(model, layers.SoftmaxGate)]
    assert outputs == [4, 4, 3] if shared else [3, 3, 3]


def test_gates_of_every_level_have_weights_of_their_own():
    model = network("ple", levels=[4, 4, 4])
    first, second, third = layers_of(model, layers.SoftmaxGate)
    assert first is not second and second is not third
    assert first.kernel.shape == second.kernel.shape
    old = values(second.kernel)
    first.kernel.assign(np.zeros(first.kernel.shape))
    np.testing.assert_array_equal(values(second.kernel), old)
    assert not np.array_equal(values(first.kernel), values(second.kernel))


def test_gates_read_another_tensor_where_one_is_given():
    x, chosen = keras.Input((4,), name="x"), keras.Input((3,), name="chosen")
    keras.utils.set_random_seed(0)
    level = {"units": 5, "selector": chosen, "expert": SMOOTH}
    streams = models.extraction(x, [1, 2], 2, last=False, name="first", **level)
    streams = models.extraction(streams, [1, 2], 2, last=True, name="second", **level)
    model = keras.Model({"x": x, "chosen": chosen}, streams)
    gated = [own.output for own in layers_of(model, layers.SoftmaxGate)]
    both = keras.Model(model.input, [*gated, streams])
    data, other = rows(seed=1), rows(seed=2)
    *before, streams_before = both({"x": data, "chosen": data[:, :3]})
    *after, streams_after = both({"x": other, "chosen": data[:, :3]})
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)
    assert not np.allclose(streams_before, streams_after)
    *after, streams_after = both({"x": data, "chosen": other[:, :3]})
    for old, new in zip(before, after, strict=True):
        assert not np.allclose(new, old)
    assert not np.allclose(streams_before, streams_after)


def test_each_gate_reads_its_own_row_of_another_tensor():
    x, chosen = keras.Input((4,), name="x"), keras.Input((3, 2), name="chosen")
    keras.utils.set_random_seed(0)
    models.extraction(x, [1, 2], 2, 5, last=False, selector=chosen)
    gated = models.fusion(x, [1, 2], 2, 5, last=False, selector=chosen)
    model = keras.Model({"x": x, "chosen": chosen}, gated)
    [gate] = layers_of(model, layers.SoftmaxGate)
    selector = np.random.default_rng(1).normal(size=(6, 3, 2)).astype("f4")
    before = values(gate(selector))
    selector[:, 1] += 1
    assert moved_rows(before, values(gate(selector))) == [False, True, False]


# SNR, and pairs with gates


@pytest.mark.parametrize("name", ["snr", "snr average"])
def test_noise_is_no_weight(name):
    for routing in layers_of(pristine(name), layers.SubNetworkRouting):
        kernel = [] if routing.kernel is None else ["kernel"]
        names = {weight.name for weight in routing.trainable_weights}
        assert names == {*kernel, "bias", "theta"}


@pytest.fixture(scope="module", params=["snr", "snr average", "mmoe", "ple"])
def with_gates(request):
    given = "routing" if "snr" in request.param else "gate"
    return network(request.param, **{given: {"hard_concrete": {"l0": 0.5}}})


def test_penalty_is_a_sum_over_all_gates(with_gates):
    found = gates(with_gates)
    for k, gate in enumerate(found):
        gate.set_log_alpha(0.5 - k)
    assert len(with_gates.losses) == len(found)
    free = {(12,): 3, (9,): 3, (20,): 4}  # one pair for each output of a mixture
    expected = 0.0
    for gate in found:
        p = values(gate.open_probability())
        expected += 0.5 * (p.sum() - free.get(gate.shape, 0) * p.flat[0])
    np.testing.assert_allclose(float(sum(with_gates.losses)), expected, rtol=1e-6)


def test_noise_in_training_only(with_gates):
    for gate in gates(with_gates):
        gate.set_log_alpha(0.0)
    noisy = [answers(with_gates, training=True) for _ in range(2)]
    assert changed(*noisy) == NAMES
    assert changed(answers(with_gates), answers(with_gates)) == []


def test_one_log_alpha_per_pair_that_is_read():
    model = network("ple", gate={"hard_concrete": {}}, levels=[4, 4])
    assert [gate.shape for gate in gates(model)] == [(4 + 3 + 5 + 8,), (4 + 3 + 5,)]


@pytest.mark.parametrize("level", [models.extraction, models.fusion])
def test_levels_made_by_hand_from_one_seed_start_unlike(level):
    kernel = keras.initializers.serialize(keras.initializers.GlorotUniform(seed=7))
    located = keras.initializers.RandomNormal(2.0, 0.1, seed=7)
    gate = {
        "kernel_initializer": kernel,
        "hard_concrete": {"log_alpha_initializer": located, "seed": 7},
    }
    arguments = {"gate": gate, "expert": {"kernel_initializer": kernel}}
    x = inputs = keras.Input((4,))
    for name in ("first", "second"):
        x = level(x, [2, 2], 0, 4, last=False, name=name, **arguments)
    model = keras.Model(inputs, x)
    first, second = (model.get_layer(f"{name}_experts") for name in ("first", "second"))
    assert_unlike([*values(first.kernels[0]), *values(second.kernels[0])])
    first, second = layers_of(model, layers.SoftmaxGate)
    assert not np.allclose(first.kernel, second.kernel)
    assert not np.allclose(first.gate.theta, second.gate.theta)
    first.gate.set_log_alpha(0.0)
    second.gate.set_log_alpha(0.0)
    assert not np.allclose(first.gate(training=True), second.gate(training=True))


@each_gated
def test_seeded_pairs_draw_their_own_noise_at_every_level(name):
    arguments = {} if name == "cgc" else {"levels": [4, 4]}
    model = network(name, gate={"hard_concrete": {"seed": 1}}, **arguments)
    draws = [values(gate(training=True)) for gate in gates(model)]
    for a, b in itertools.combinations(draws, 2):
        size = min(len(a), len(b))
        assert not np.allclose(a[:size], b[:size])


@pytest.mark.parametrize("name", ["ple", "adatt"])
def test_seeded_gates_that_a_function_makes_are_unlike_at_every_level(name):
    gate = functools.partial(
        layers.SoftmaxGate,
        kernel_initializer=keras.initializers.GlorotUniform(seed=7),
        hard_concrete={"seed": 1},
    )
    made = layers_of(network(name, gate=gate, levels=[4, 4, 4]), layers.SoftmaxGate)
    for a, b in itertools.combinations(made, 2):
        count = min(a.kernel.shape[1], b.kernel.shape[1])
        kernels = [values(own.kernel)[:, :count] for own in (a, b)]
        assert not np.allclose(*kernels)
        draws = [values(own.gate(training=True))[:count] for own in (a, b)]
        assert not np.allclose(*draws)


@pytest.mark.parametrize("training", [False, True])
def test_gate_that_closes_all_pairs_keeps_the_last(training):
    gate = layers.SoftmaxGate(2, 3, hard_concrete={"beta": 1e-3})
    gate.build((None, 4))
    gate.gate.set_log_alpha([-4, -3.5, -4, 4, -4, 4])
    weights = values(gate(rows(), training=training))
    assert (weights[:, 0] == [0, 1, 0]).all()
    np.testing.assert_allclose(weights[:, 1].sum(axis=-1), 1, atol=1e-6)
    assert gate.open_pairs().tolist() == [[False, True, False], [True, False, True]]


def test_penalty_counts_pairs_beyond_one_of_each_output():
    gate = layers.SoftmaxGate(3, 3, [[1, 1, 1], [1, 0, 1], [0, 1, 0]], hard_concrete={})
    gate.build((None, 4))
    gate.gate.set_log_alpha([2, 1, 0, -1, 3])
    gate.gate.set_l0(0.5)
    p = values(gate.gate.open_probability())
    [penalty] = gate.losses
    np.testing.assert_allclose(penalty, 0.5 * (p[1] + p[2] + p[3]), rtol=1e-6)


@each_gated
def test_strong_penalty_leaves_an_expert_to_each_gate(name):
    arguments = {} if name == "cgc" else {"levels": [4, 4]}
    model = network(name, gate={"hard_concrete": {"l0": 10.0}}, **arguments)
    model.compile("adam", {task: "mse" for task in NAMES})
    labels = {task: rows(64, seed)[:, :1] for seed, task in enumerate(NAMES)}
    model.fit({"x": rows(64)}, labels, batch_size=16, epochs=60, verbose=0)
    for gate in layers_of(model, layers.SoftmaxGate):
        assert (gate.open_pairs().sum(axis=1) == 1).all()
    for scores in answers(model).values():
        assert np.std(scores) > 0


def test_gate_of_a_single_expert_has_no_weights():
    gate = layers.SoftmaxGate(2, 2, [[1, 0], [0, 1]], True, hard_concrete={"l0": 1.0})
    weights = values(gate(rows(), training=True))
    assert (weights == np.eye(2)).all()
    assert gate.weights == [] and gate.losses == [] and gate.flops() == 0


# Dropout of pairs


def dropped(rate, experts=8, reads=None, count=3000, training=True, **kwargs):
    """Weights of the experts with dropout, and without."""
    keras.utils.set_random_seed(3)
    gate = layers.SoftmaxGate(2, experts, reads, dropout=rate, **kwargs)
    x = rows(count)
    return values(gate(x, training=training)), values(gate(x, training=False))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropped_pairs_are_zero_and_the_rest_sums_to_one(rate):
    weights, _ = dropped(rate)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    for t, e in np.ndindex(2, 8):
        np.testing.assert_allclose((weights[:, t, e] == 0).mean(), rate, atol=0.04)


def test_dropped_pairs_leave_the_proportions_of_the_others():
    weights, whole = dropped(0.3)
    kept = np.where(weights > 0, whole, 0)
    expected = kept / kept.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


def test_pairs_are_dropped_for_each_example_and_output():
    weights, _ = dropped(0.5)
    assert len({(row == 0).tobytes() for row in weights}) > 1000
    assert ((weights[:, 0] == 0) != (weights[:, 1] == 0)).any(axis=-1).mean() > 0.9


def test_dropout_of_pairs_that_are_read():
    reads = [[1, 0, 1, 1], [0, 1, 0, 0]]
    weights, _ = dropped(0.5, 4, reads)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert (weights[:, ~np.array(reads, bool)] == 0).all()
    assert (weights[:, 1, 1] == 1).all()  # the only one is kept


@pytest.mark.parametrize("extra", [{}, {"hard_concrete": {}}, {"use_bias": True}])
def test_dropout_of_nearly_all_pairs_is_finite(extra):
    weights, _ = dropped(0.95, 2, **extra)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    model = network("mmoe", experts=2, gate={"dropout": 0.95, **extra})
    for _, gradient in gradients(model, {"x": rows(200)}, training=True):
        assert np.isfinite(values(gradient)).all()


def test_no_dropout_in_inference():
    weights, again = dropped(0.5, training=False)
    assert (weights > 0).all()
    np.testing.assert_array_equal(weights, again)


@each_gated
def test_dropout_reaches_the_gates_of_a_recipe(name):
    model = network(name, gate={"dropout": 0.5})
    for gate in layers_of(model, layers.SoftmaxGate):
        whole = gate_weights(model)[gate.name]
        weights = gate_weights(model, training=True)[gate.name]
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
        assert ((weights == 0) & (whole > 0)).any()


# Position


SHOWN = Position("shown_at", num_positions=3, dropout=0.0)
PLACED = [Binary("a", position=SHOWN), Regression("ab"), Binary("b", position=SHOWN)]


def placed(name="mmoe"):
    model = network(name, PLACED)
    for task in ("a", "b"):
        bias = model.get_layer(f"{task}_position_bias").bias
        bias.assign([[0.3], [-1.0], [2.0], [5.0]])
    return model


def shown_at(*positions):
    return np.resize(positions, (12, 1)).astype("i4")


def test_position_matters_in_training_only():
    model = placed()
    top, below = shown_at(0), shown_at(2)
    before = answers(model, training=True, shown_at=top)
    after = answers(model, training=True, shown_at=below)
    assert changed(before, after) == ["a", "b"]
    served = [answers(model, shown_at=at) for at in (top, below)]
    assert changed(*served) == []


def logit(p):
    return np.log(p / (1 - p))


def test_position_adds_its_logit():
    model = placed()
    for position, bias in [(0, -1.0), (1, 2.0), (-1, 0.3), (3, 0.3)]:
        trained = answers(model, training=True, shown_at=shown_at(position))
        served = answers(model, shown_at=shown_at(position))
        for task in ("a", "b"):
            added = logit(trained[task]) - logit(served[task])
            np.testing.assert_allclose(added, bias - 0.3, atol=1e-4)


def test_biases_of_the_positions_that_were_shown_get_a_gradient():
    columns = {"x": rows(), "shown_at": shown_at(0, 2)}
    found = gradients(placed(), columns, training=True)
    [gradient] = [
        values(tf.convert_to_tensor(gradient))
        for weight, gradient in found
        if weight.path.startswith("a_position_bias")
    ]
    assert (gradient[:, 0] != 0).tolist() == [False, True, False, True]


@pytest.mark.parametrize("smaller", [fold, without_training_inputs])
@pytest.mark.parametrize("name", ["mmoe", "snr"])
def test_model_that_serves_has_no_position(name, smaller):
    model = placed(name)
    assert sorted(model.input) == ["shown_at", "x"]
    served = smaller(model)
    assert list(served.input) == ["x"]
    expected = answers(model, shown_at=shown_at(1))
    got = answers(served)
    assert list(got) == list(expected)
    for task in expected:
        np.testing.assert_allclose(got[task], expected[task], atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.6])
def test_share_of_examples_with_a_missing_position(dropout):
    keras.utils.set_random_seed(5)
    layer = layers.PositionBias(2, dropout)
    positions = np.resize([0, 1], (5000, 1))
    layer.build(positions.shape)
    layer.bias.assign([[7.0], [1.0], [2.0]])
    got = values(layer(positions, training=True))[:, 0]
    missing = got == 7
    np.testing.assert_allclose(missing.mean(), dropout, atol=0.03 if dropout else 0)
    np.testing.assert_array_equal(got[~missing], positions[~missing, 0] + 1)
