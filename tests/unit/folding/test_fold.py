import subprocess
import sys

import keras
import numpy as np
import pytest

from tfmtl.folding import (
    FoldError,
    compare,
    fold,
    structure,
    without_training_inputs,
)
from tfmtl.layers import (
    BroadcastConstant,
    Experts,
    Mixture,
    PositionBias,
    PrunedTransformation,
    SoftmaxGate,
    SubNetworkRouting,
    Tower,
)
from tfmtl.report import topology
from tfmtl.sparsity import gates


@keras.saving.register_keras_serializable(package="test")
class Scale(keras.layers.Layer):
    """One weight without a name of its own."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[1:], initializer="normal")

    def call(self, inputs):
        return inputs * self.scale


@keras.saving.register_keras_serializable(package="test")
class AlwaysNoisy(keras.layers.Layer):
    """Breaks a promise: its output is random in inference too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs):
        shape = keras.ops.shape(inputs)
        return inputs + keras.random.normal(shape, seed=self.seed_generator)


def rows_for(model, count=17):
    generator = np.random.default_rng(0)
    return {
        name: generator.choice(["a", "b", "zz"], (count, *tensor.shape[1:]))
        if tensor.dtype == "string"
        else generator.normal(size=(count, *tensor.shape[1:])).astype("float32")
        for name, tensor in model.input.items()
    }


def outputs_of(model, rows):
    return {
        name: keras.ops.convert_to_numpy(value)
        for name, value in model(_tensors(model, rows), training=False).items()
    }


def _tensors(model, rows):
    return {
        name: keras.ops.convert_to_tensor(value.tolist(), model.input[name].dtype)
        for name, value in rows.items()
    }


def assert_same(model, folded):
    rows = rows_for(model)
    before, after = outputs_of(model, rows), outputs_of(folded, rows)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-6)


def set_gates(layer, z):
    layer.gate.set_log_alpha(np.where(np.array(z) > 0, 4.0, -4.0))


def test_the_recipe_folds_smaller_with_the_same_names_and_outputs(ranker):
    set_gates(ranker.get_layer("level_2"), np.eye(5, 4))
    set_gates(ranker.get_layer("task_routing"), np.eye(3, 5))
    folded = fold(ranker)
    assert_same(ranker, folded)
    assert folded.name == ranker.name
    assert list(folded.input) == list(ranker.input)
    assert [layer.name for layer in folded.layers if "tower" in layer.name] == [
        "a_tower",
        "ab_tower",
        "shared_x_tower",
    ]
    # three connections per level are left, and the sub-networks on their way
    report = compare(ranker, folded)
    assert (report.before.connections, report.after.connections) == (20 + 15, 3 + 3)
    assert (report.before.sub_networks, report.after.sub_networks) == (12, 9)


def test_what_is_left_is_counted_to_the_last_parameter():
    inputs = keras.Input((7,), name="x")
    x = Experts(3, 4, name="level_1")(inputs)
    x = SubNetworkRouting(2, 5, use_bias=True, name="level_2")(x)
    outputs = {f"t{k}": Tower((), name=f"tower_{k}")(x[:, k]) for k in range(2)}
    model = keras.Model({"x": inputs}, outputs)
    set_gates(model.get_layer("level_2"), [[1, 0, 0], [1, 0, 0]])
    folded = fold(model)
    expert, towers = 7 * 4 + 4, 2 * (5 + 1)
    assert structure(folded).parameters == expert + 4 * 10 + 10 + towers
    assert structure(folded).flops == 2 * (7 * 4 + 4 * 10) + 2 * (5 + 5)
    gate = 6
    before = 3 * expert + gate + 3 * 4 * 2 * 5 + 10 + towers
    assert structure(model).parameters == before
    assert structure(model).bytes == 4 * before


def test_a_hand_written_model_with_plain_layers_between_folds(hand_written):
    set_gates(
        hand_written.get_layer("level_2"), [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    )
    folded = fold(hand_written)
    assert_same(hand_written, folded)
    assert list(folded.input) == ["x", "unread"]
    assert folded.get_layer("level_1").num_experts == 2
    assert folded.get_layer("level_2").num_outputs == 2


def test_the_original_is_left_as_it_is(hand_written):
    set_gates(hand_written.get_layer("level_2"), np.eye(3, 4))
    weights = [w.numpy().copy() for w in hand_written.weights]
    folded = fold(hand_written)
    for layer in folded.layers:
        for weight in layer.trainable_weights:
            weight.assign(weight + 1.0)
    for weight, old in zip(hand_written.weights, weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    stem = hand_written.get_layer("stem")
    assert stem.output is not None  # a single node: nothing was called again


def test_a_task_that_lost_every_input_is_a_constant_of_the_right_batch(ranker):
    set_gates(ranker.get_layer("task_routing"), [[1] * 5, [0] * 5, [1] * 5])
    folded = fold(ranker)
    assert_same(ranker, folded)
    constant = [la for la in folded.layers if isinstance(la, BroadcastConstant)]
    assert len(constant) == 1
    for count in (1, 5):
        rows = rows_for(ranker, count)
        assert outputs_of(folded, rows)["ab"].shape == (count, 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_constant_is_one_whatever_the_rounding_of_its_batch(seed):
    """A product of one row may be summed in another order than that of two."""
    generator = np.random.default_rng(seed)
    x = keras.Input((8,), name="x")
    routing = SubNetworkRouting(1, 61, use_bias=True, name="routing")
    tower = Tower((257, 129), name="tower")
    y = tower(routing(Experts(2, 8)(x))[:, 0])
    model = keras.Model({"x": x}, {"t": y})
    for weight in [routing.bias, *tower.weights]:
        weight.assign(generator.normal(size=weight.shape))
    set_gates(routing, [[0, 0]])
    folded = fold(model)
    assert_same(model, folded)
    assert "tower" not in [layer.name for layer in folded.layers]


@pytest.mark.parametrize("numbered", [True, False])
def test_beside_an_infinity_numbers_are_compared(numbered):
    @keras.saving.register_keras_serializable(package="test")
    class Numbered(keras.layers.Layer):
        """An infinity, and the number of the row or 1."""

        def call(self, inputs):
            rows = keras.ops.ones_like(inputs[:, :1])
            rows = keras.ops.cumsum(rows, axis=0) if numbered else rows
            return keras.ops.concatenate([rows / 0.0, rows], axis=-1)

    x = keras.Input((3,), name="x")
    routing = SubNetworkRouting(1, 2, name="routing")
    y = Numbered(name="numbered")(routing(Experts(2, 3)(x))[:, 0])
    model = keras.Model({"x": x}, {"t": y})
    set_gates(routing, [[0, 0]])
    folded = fold(model)
    assert_same(model, folded)
    kept = "numbered" in [layer.name for layer in folded.layers]
    assert kept == numbered  # a constant is not computed


def test_a_model_of_constants_keeps_one_input_for_the_batch(ranker):
    for gate in gates(ranker):
        gate.set_log_alpha(-4.0)
    folded = fold(ranker)
    assert_same(ranker, folded)
    assert structure(folded).connections == 0
    assert structure(folded).flops == 0
    assert list(folded.input) == list(ranker.input)


def test_a_dead_sub_network_becomes_bias_of_its_readers():
    inputs = keras.Input((3,), name="x")
    x = Experts(2, 4, name="level_1")(inputs)
    x = SubNetworkRouting(2, 4, use_bias=True, name="level_2")(x)
    x = SubNetworkRouting(1, 4, name="level_3")(x)
    model = keras.Model({"x": inputs}, {"t": x[:, 0]})
    set_gates(model.get_layer("level_2"), [[1, 1], [0, 0]])
    set_gates(model.get_layer("level_3"), [[1, 1]])
    model.get_layer("level_2").bias.assign(np.arange(8.0).reshape(2, 4))
    folded = fold(model)
    assert_same(model, folded)
    assert folded.get_layer("level_3").connections() == 1
    assert np.any(np.asarray(folded.get_layer("level_3").bias) != 0)


def test_fractional_gates_are_multiplied_into_the_kernel():
    inputs = keras.Input((2, 3), name="x")
    routing = SubNetworkRouting(1, 2, name="routing")
    model = keras.Model({"x": inputs}, {"t": routing(inputs)[:, 0]})
    routing.gate.set_log_alpha([[0.0, 1.0]])
    z = np.array(routing.gate(training=False))
    assert 0 < z.min() < z.max() < 1
    folded = fold(model)
    kernel = np.array(routing.kernel) * z.T[:, None, :, None]
    np.testing.assert_allclose(
        np.array(folded.get_layer("routing").kernels[0]),
        kernel.reshape(6, 2),
        rtol=1e-6,
    )


def test_folding_twice_changes_nothing(hand_written):
    set_gates(hand_written.get_layer("level_2"), np.eye(3, 4))
    once = fold(hand_written)
    twice = fold(once)
    assert_same(once, twice)
    assert structure(twice) == structure(once)
    assert len(twice.layers) == len(once.layers)


def test_a_layer_called_twice_keeps_one_set_of_weights():
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    shared = Experts(4, 5, name="shared")
    routing = SubNetworkRouting(2, 5, name="routing")
    stacked = keras.layers.Concatenate(axis=1)([shared(first), shared(second)])
    x = routing(stacked)
    model = keras.Model(
        {"first": first, "second": second}, {"a": x[:, 0], "b": x[:, 1]}
    )
    open_ones = np.zeros((2, 8))
    open_ones[0, 0] = open_ones[1, 6] = 1
    set_gates(routing, open_ones)
    folded = fold(model)
    assert_same(model, folded)
    assert folded.count_params() < model.count_params()
    assert sum(isinstance(layer, Experts) for layer in folded.layers) == 1


def test_a_nested_model_called_twice_folds_to_equal_outputs():
    inner_in = keras.Input((3,))
    x = SubNetworkRouting(2, 4, name="routing")(Experts(3, 4, name="e")(inner_in))
    inner = keras.Model(inner_in, keras.layers.Flatten()(x), name="inner")
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    model = keras.Model(
        {"first": first, "second": second},
        {"t": keras.layers.Add()([inner(first), inner(second)])},
    )
    set_gates(inner.get_layer("routing"), [[1, 0, 0], [0, 1, 0]])
    folded = fold(model)
    assert_same(model, folded)
    assert folded.count_params() <= model.count_params()


def test_a_subclass_of_model_with_an_argument_of_its_own_folds(ranker):
    class WithArgument(keras.Model):
        def __init__(self, inputs, outputs, extra, **kwargs):
            super().__init__(inputs, outputs, **kwargs)
            self.extra = extra

    set_gates(ranker.get_layer("task_routing"), np.eye(3, 5))
    model = WithArgument(ranker.input, ranker.output, extra=3)
    assert_same(model, fold(model))


def test_a_sequential_model_folds():
    routing = SubNetworkRouting(2, 4, name="routing")
    model = keras.Sequential(
        [keras.Input((3,), name="x"), Experts(3, 4), routing, keras.layers.Flatten()]
    )
    set_gates(routing, [[1, 0, 0], [0, 1, 0]])
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    folded = fold(model, rows)
    np.testing.assert_allclose(folded(rows), model(rows), rtol=1e-5, atol=1e-6)
    assert structure(folded).sub_networks == 4


def test_an_adapted_lookup_keeps_its_vocabulary():
    lookup = keras.layers.StringLookup(name="lookup")
    lookup.adapt(np.array(["b", "a", "b"]))
    inputs = keras.Input((1,), dtype="string", name="c")
    x = keras.layers.Flatten()(keras.layers.Embedding(4, 3)(lookup(inputs)))
    model = keras.Model({"c": inputs}, {"t": Experts(2, 3)(x)[:, 0]})
    assert_same(model, fold(model))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_folds_within_its_own_accuracy(policy):
    inputs = keras.Input((6,), name="x")
    x = Experts(4, 8, dtype=policy)(inputs)
    routing = SubNetworkRouting(2, 8, use_bias=True, dtype=policy)
    x = routing(x)
    outputs = {f"t{k}": Tower((4,), name=f"w{k}")(x[:, k]) for k in range(2)}
    model = keras.Model({"x": inputs}, outputs)
    set_gates(routing, [[1, 0, 1, 0], [0, 0, 0, 0]])
    rows = rows_for(model)
    tolerance = 5e-3 if policy == "mixed_float16" else 4e-2
    folded = fold(model, rows, tolerance)
    before, after = outputs_of(model, rows), outputs_of(folded, rows)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=tolerance)


def test_float64_folds_to_rounding():
    inputs = keras.Input((6,), name="x", dtype="float64")
    x = Experts(4, 8, dtype="float64")(inputs)
    routing = SubNetworkRouting(2, 8, dtype="float64")
    model = keras.Model({"x": inputs}, {"t": routing(x)[:, 0]})
    set_gates(routing, [[1, 0, 1, 0], [0, 0, 0, 0]])
    rows = {"x": np.random.default_rng(0).normal(size=(9, 6))}
    folded = fold(model, rows, tolerance=1e-9)
    assert folded.output["t"].dtype == "float64"


def test_a_folded_model_saves_and_reloads_without_the_original(hand_written, tmp_path):
    set_gates(hand_written.get_layer("level_2"), np.eye(3, 4))
    folded = fold(hand_written)
    rows = rows_for(folded)
    folded.save(tmp_path / "folded.keras")
    np.savez(tmp_path / "rows.npz", **rows)
    np.savez(tmp_path / "expected.npz", **outputs_of(folded, rows))
    script = (
        "import sys, keras, numpy as np, tfmtl\n"
        "model = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "rows = dict(np.load(sys.argv[2]))\n"
        "expected = np.load(sys.argv[3])\n"
        "for name, value in model(rows, training=False).items():\n"
        "    np.testing.assert_allclose(value, expected[name], rtol=1e-6)\n"
    )
    files = [tmp_path / f for f in ("folded.keras", "rows.npz", "expected.npz")]
    subprocess.run([sys.executable, "-c", script, *map(str, files)], check=True)


def test_a_folded_model_trains_on(ranker):
    set_gates(ranker.get_layer("task_routing"), np.eye(3, 5))
    folded = fold(ranker)
    rows = _tensors(folded, rows_for(folded, 64))
    labels = {name: np.ones((64, 1), "float32") for name in folded.output}
    folded.compile("adam", "binary_crossentropy")
    history = folded.fit(rows, labels, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_a_fold_that_differs_is_refused_with_the_worst_output(ranker):
    noisy = keras.Model(
        ranker.input,
        {**ranker.output, "ab": AlwaysNoisy(name="noise")(ranker.output["ab"])},
    )
    with pytest.raises(
        FoldError, match=r"within 1e-05. Received: output 'ab' differs by [0-9.]+"
    ):
        fold(noisy)


def test_rows_on_which_the_model_gives_nan_prove_nothing(ranker):
    ranker.get_layer("ab_tower").head.bias.assign([np.nan])
    with pytest.raises(FoldError, match="give others as `inputs`.*'ab'.*64 NaN"):
        fold(ranker)


def test_no_rows_prove_nothing(ranker):
    rows = {name: value[:0] for name, value in rows_for(ranker).items()}
    with pytest.raises(FoldError, match="at least one"):
        fold(ranker, rows)


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="Functional or Sequential.*Subclassed"):
        fold(Subclassed())


def test_optional_and_named_inputs_keep_their_flags():
    inputs = {
        "x": keras.Input((3,), name="x"),
        "maybe": keras.Input((2,), name="maybe", optional=True),
    }
    model = keras.Model(inputs, {"t": Experts(2, 3)(inputs["x"])[:, 0]})
    folded = fold(model, {"x": np.ones((2, 3), "float32"), "maybe": None})
    names = {t.name: la.optional for la, t in _input_layers(folded)}
    assert names == {"x": False, "maybe": True}


def _input_layers(model):
    layers = [la for la in model.layers if isinstance(la, keras.layers.InputLayer)]
    return [(layer, layer.output) for layer in layers]


def test_a_user_layer_between_stays_and_reads_everything():
    @keras.saving.register_keras_serializable(package="test")
    class MixesSlots(keras.layers.Layer):
        def call(self, inputs):
            return inputs - keras.ops.mean(inputs, axis=1, keepdims=True)

    inputs = keras.Input((3,), name="x")
    x = Experts(4, 5, name="level_1")(inputs)
    first = SubNetworkRouting(3, 5, use_bias=True, name="first")
    second = SubNetworkRouting(1, 5, name="second")
    x = second(MixesSlots(name="mine")(first(x)))
    model = keras.Model({"x": inputs}, {"t": x[:, 0]})
    set_gates(first, [[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    set_gates(second, [[1, 0, 0]])
    first.bias.assign(np.arange(15.0).reshape(3, 5))
    folded = fold(model)
    assert_same(model, folded)
    assert folded.get_layer("level_1").num_experts == 1
    assert folded.get_layer("first").num_outputs == 2  # the third is a constant


def test_weights_without_names_are_told_apart_by_their_places():
    inputs = keras.Input((4,), name="x")
    outputs = {"y": Tower((), name="tower")(Scale()(Scale()(inputs)))}
    model = keras.Model({"x": inputs}, outputs)
    assert_same(model, fold(model))


def test_a_pruned_layer_reads_slots_in_the_order_it_is_given():
    layer = PrunedTransformation([([1, 0], [0])], 2)
    layer.build((None, 2, 1))
    layer.kernels[0].assign([[1.0, 0.0], [0.0, 1.0]])
    x = np.array([[[10.0], [20.0]]], "float32")
    np.testing.assert_array_equal(layer(x), [[[20.0, 10.0]]])


def test_slots_that_are_read_one_by_one_are_passed_on_as_a_list(free_groups, tmp_path):
    inputs = keras.Input((3,), name="x")
    x = Experts(4, 5, name="level_1")(inputs)
    x = SubNetworkRouting(4, 5, use_bias=True, name="level_2")(x)
    x = SubNetworkRouting(3, 5, activation="relu", name="level_3")(x)
    a, b, c = keras.ops.unstack(x, 3, axis=1)
    outputs = {"a": a, "b": b, "c": keras.layers.Dense(1, name="head")(c)}
    model = keras.Model({"x": inputs}, outputs)
    set_gates(model.get_layer("level_2"), np.eye(4))
    set_gates(model.get_layer("level_3"), [[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    folded = fold(model)
    assert [folded.get_layer(f"level_{k}").apart for k in (2, 3)] == [True, True]
    assert structure(folded).sub_networks == 3 + 3 + 3
    assert_same(model, folded)
    assert structure(fold(folded)) == structure(folded)
    assert len(topology(folded).edges) == 3 + 4 + 3
    folded.save(tmp_path / "folded.keras")
    assert_same(folded, keras.saving.load_model(tmp_path / "folded.keras"))


def test_a_list_of_one_slot_folds_to_equal_outputs():
    inputs = keras.Input((3,), name="x")
    x = Experts(2, 5, name="level_1")(inputs)
    layer = PrunedTransformation([([0], [0]), ([0], [1])], 4, apart=True, name="list")
    dead, live = layer([x[:, 0]])
    model = keras.Model({"x": inputs}, {"live": live})
    folded = fold(model)
    assert_same(model, folded)
    assert folded.get_layer("list").num_outputs == 1
    assert dead.shape == live.shape


def test_stacked_experts_follow_the_order_of_what_they_read(free_groups):
    inputs = keras.Input((8,), name="x")
    routing = SubNetworkRouting(3, 6, name="routing")
    x = Experts(3, 4)(routing(Experts(3, 6)(inputs)))
    model = keras.Model({"x": inputs}, {"t": keras.layers.Flatten()(x)})
    set_gates(routing, [[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    assert_same(model, fold(model))


def test_an_open_connection_of_zeros_passes_nothing_on():
    inputs = keras.Input((8,), name="x")
    routing = SubNetworkRouting(2, 4, kernel_initializer="zeros", name="routing")
    x = routing(Experts(3, 6)(inputs))
    model = keras.Model({"x": inputs}, {"t": x[:, 0], "u": x[:, 1]})
    folded = fold(model)
    assert_same(model, folded)
    assert structure(folded).connections == 0


@pytest.mark.filterwarnings("ignore:Layer 'inner'")
def test_a_nested_model_on_a_masked_tensor_stays_whole():
    inputs = keras.Input((5,), dtype="int32", name="x")
    embedded = keras.layers.Embedding(3, 8, mask_zero=True)(inputs)
    inner = keras.Sequential(
        [keras.layers.Dense(8), keras.layers.GlobalAveragePooling1D()], name="inner"
    )
    model = keras.Model({"x": inputs}, {"t": Experts(2, 3)(inner(embedded))[:, 0]})
    rows = {"x": np.array([[1, 2, 0, 0, 0], [2, 2, 1, 0, 0]], "int32")}
    folded = fold(model, rows)
    np.testing.assert_allclose(folded(rows)["t"], model(rows)["t"], atol=1e-6)
    assert "inner" in [layer.name for layer in folded.layers]


def test_a_nested_model_that_casts_its_input_stays_whole():
    inner_in = keras.Input((3,))
    inner = keras.Model(inner_in, keras.layers.Dense(8)(inner_in), name="inner")
    inputs = keras.Input((3,), dtype="int32", name="x")
    model = keras.Model({"x": inputs}, {"t": Experts(2, 3)(inner(inputs))[:, 0]})
    folded = fold(model)
    assert "inner" in [layer.name for layer in folded.layers]


@pytest.mark.parametrize(
    "select",
    [
        lambda x: keras.ops.take(x, [[0, 1], [2, 3]], axis=1),
        lambda x: keras.ops.take(x, np.int64(1), axis=1),
        lambda x: keras.ops.take(x, np.array([3, 1]), axis=1),
        lambda x: keras.ops.concatenate([x[:, 2:2], x[:, 3:0:-2]], axis=1),
    ],
)
def test_every_way_of_selecting_slots_folds(select):
    inputs = keras.Input((8,), name="x")
    routing = SubNetworkRouting(4, 6, name="routing")
    x = select(routing(Experts(3, 6)(inputs)))
    model = keras.Model({"x": inputs}, {"t": keras.layers.Flatten()(x)})
    set_gates(routing, [[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]])
    assert_same(model, fold(model))


def test_what_is_frozen_inside_a_layer_stays_frozen(ranker):
    ranker.get_layer("a_tower").hidden[0].trainable = False
    folded = fold(ranker).get_layer("a_tower")
    assert [weight.trainable for weight in folded.weights] == [False] * 2 + [True] * 2


@pytest.mark.parametrize("closed", [0.0, 0.5, 1.0])
def test_weights_of_a_gate_that_are_an_output_stay_whole(closed):
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    weights = SoftmaxGate(2, 4, hard_concrete={}, name="gate")(x)
    mixed = Mixture()([Experts(4, 5)(x), weights])
    outputs = {"weights": weights, "click": Tower(())(mixed[:, 0])}
    outputs["like"] = Tower(())(mixed[:, 1])
    model = keras.Model({"x": x}, outputs)
    [gate] = gates(model)
    gate.set_log_alpha(np.where(np.arange(8) < closed * 8, -4.0, 4.0))
    folded = fold(model)  # proves the outputs equal
    assert folded.output["weights"].shape == (None, 2, 4)
    assert structure(fold(folded)) == structure(folded)
    computed = [layer for layer in folded.layers if isinstance(layer, Experts)]
    assert sum(layer.num_experts for layer in computed) == (1 if closed == 1 else 4)


def test_one_position_bias_for_two_tasks_and_a_recipe_in_a_model():
    keras.utils.set_random_seed(0)
    inputs = {
        "x": keras.Input((3,), name="x"),
        "shown": keras.Input((1,), name="shown", dtype="int32"),
    }
    bias = PositionBias(4)
    outputs = {
        task: keras.layers.Dense(1, name=task)(inputs["x"]) + bias(inputs["shown"])
        for task in ("a", "b")
    }
    model = keras.Model(inputs, outputs)
    again = {name: keras.Input(t.shape[1:], name=name) for name, t in inputs.items()}
    again["shown"] = keras.Input((1,), name="shown", dtype="int32")
    outer = keras.Model(again, model(again))
    for found in (fold(model), without_training_inputs(model), fold(outer)):
        assert list(found.input) == ["x"]


def test_slots_that_are_moved_and_filled_in_fold_to_no_more_layers():
    inputs = keras.Input((3,), name="x")
    x = Experts(3, 5)(inputs)
    routing = SubNetworkRouting(4, 5, name="routing")
    x = keras.ops.take(routing(x), [3, 1, 0, 2], axis=1)
    model = keras.Model({"x": inputs}, {"t": keras.layers.Flatten()(x)})
    set_gates(routing, [[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0]])
    folded = fold(model)
    assert_same(model, folded)
    assert len(fold(folded).layers) == len(folded.layers)


def test_a_fold_is_the_same_each_time(ranker, hand_written):
    set_gates(ranker.get_layer("level_2"), np.arange(20).reshape(5, 4) % 3)
    set_gates(hand_written.get_layer("level_2"), np.eye(3, 4))
    for model in (ranker, hand_written):
        one, two = fold(model), fold(model)
        assert one.get_config() == two.get_config()
        assert [w.path for w in one.weights] == [w.path for w in two.weights]
        for first, second in zip(one.get_weights(), two.get_weights(), strict=True):
            np.testing.assert_array_equal(first, second)
