"""Dropout, batch normalisation and linear maps in a row are gone from the fold."""

import keras
import numpy as np
import pytest

from tfmtl.folding import fold, structure
from tfmtl.layers import Experts, PrunedTransformation, SubNetworkRouting, Tower

NOISE = [
    keras.layers.ActivityRegularization(0.1),
    keras.layers.AlphaDropout(0.5),
    keras.layers.Dropout(0.5),
    keras.layers.GaussianDropout(0.5),
    keras.layers.GaussianNoise(0.5),
    keras.layers.Identity(),
    keras.layers.SpatialDropout1D(0.5),
    keras.layers.Activation("linear"),
]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def model_of(make, shape=(6,), dtype=None):
    """A model whose weights and moving statistics are all random."""
    inputs = keras.Input(shape, name="x", dtype=dtype)
    outputs = make(inputs)
    if not isinstance(outputs, dict):
        outputs = {"y": outputs}
    return randomised(keras.Model({"x": inputs}, outputs))


def randomised(model):
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(generator.uniform(0.5, 2, weight.shape))
        elif weight.name in ("bias", "beta", "gamma", "moving_mean", "bias_1"):
            weight.assign(generator.normal(size=weight.shape))
    return model


def folded(model, tolerance=1e-5):
    """The fold, which is the same on other rows too, and when folded again."""
    once = fold(model)
    rows = np.random.default_rng(1).normal(size=(33, *model.input["x"].shape[1:]))
    rows = rows.astype(model.input["x"].dtype)
    expected, got = (m({"x": rows}, training=False) for m in (model, once))
    for name in expected:
        np.testing.assert_allclose(
            got[name], expected[name], rtol=tolerance, atol=tolerance
        )
    twice = fold(once)
    assert structure(twice) == structure(once)
    assert [type(la) for la in twice.layers] == [type(la) for la in once.layers]
    return once


def kinds(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


Dense = keras.layers.Dense
BatchNormalization = keras.layers.BatchNormalization


@pytest.mark.parametrize("layer", NOISE, ids=lambda layer: type(layer).__name__)
def test_the_identity_in_inference_is_gone(layer):
    model = model_of(
        lambda x: keras.layers.Flatten()(layer(Dense(3, "relu")(x))), (4, 6)
    )
    assert kinds(folded(model)) == ["Dense", "Flatten"]


def test_noise_is_gone_where_it_is_an_output_or_an_input():
    noise = keras.layers.GaussianNoise(0.1)
    model = model_of(lambda x: {"y": noise(Dense(3)(noise(x))), "z": noise(x)})
    assert kinds(folded(model)) == ["Dense"]


def test_a_subclass_of_dropout_stays():
    @keras.saving.register_keras_serializable(package="test")
    class Doubles(keras.layers.Dropout):
        def call(self, inputs, training=False):
            return 2 * inputs

    model = model_of(lambda x: Doubles(0.5)(Dense(3)(x)))
    assert kinds(folded(model)) == ["Dense", "Doubles"]


def test_an_activation_that_casts_stays():
    cast = keras.layers.Activation("linear", dtype="float64")
    assert len(kinds(folded(model_of(lambda x: cast(Dense(3, "relu")(x)))))) == 2


def test_dropout_in_training_stays():
    drop = keras.layers.Dropout(0.0)
    model = model_of(lambda x: drop(Dense(3)(x), training=True))
    assert kinds(folded(model)) == ["Dense", "Dropout"]


@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
@pytest.mark.parametrize("slots", [None, [1, 0, 1]])
def test_experts_serve_without_dropout_and_batch_normalisation(normalization, slots):
    given = {"dropout": 0.5, "normalization": normalization, "slots": slots}
    shape = (6,) if slots is None else (2, 6)
    model = model_of(
        lambda x: keras.layers.Flatten()(Experts(3, (5, 4), **given)(x)[:, 1:]), shape
    )
    experts = folded(model).get_layer(model.layers[1].name)
    assert experts.num_experts == 2
    assert experts.dropout == 0
    assert experts.normalization == ("layer" if normalization == "layer" else None)


@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_towers_serve_without_dropout_and_batch_normalisation(normalization):
    given = {"dropout": 0.5, "normalization": normalization, "name": "tower"}
    tower = folded(model_of(Tower((5, 4), **given))).get_layer("tower")
    assert tower.dropout == 0
    assert tower.normalization == ("layer" if normalization == "layer" else None)


def test_experts_called_twice_are_served_once():
    experts = Experts(2, 4, dropout=0.5, normalization="batch", name="experts")
    model = model_of(lambda x: keras.ops.concatenate([experts(x), experts(-x)], axis=1))
    assert kinds(folded(model)).count("Experts") == 1
    assert folded(model).get_layer("experts").normalization is None


@pytest.mark.parametrize("layer", [Experts(2, 3, normalization="batch"), None])
def test_frozen_normalisation_of_trained_kernels_stays(layer):
    layer = layer or Tower((3,), normalization="batch")
    model = model_of(lambda x: keras.layers.Flatten()(layer(x)))
    for inner in getattr(layer, "normalizations", None) or layer.hidden[1:2]:
        inner.trainable = False
    again = folded(model).get_layer(layer.name)
    assert again.normalization == "batch"


def test_batch_normalisation_in_mixed_precision_stays_and_dropout_goes():
    given = {"dropout": 0.5, "normalization": "batch", "dtype": "mixed_bfloat16"}
    model = model_of(lambda x: Tower((3,), name="t", **given)(x))
    tower = fold(model).get_layer("t")
    assert (tower.dropout, tower.normalization) == (0, "batch")


READERS = {
    "Dense": lambda x: Dense(4, "relu")(x),
    "Experts": lambda x: Experts(3, 4)(x),
    "Tower": lambda x: Tower((4,))(x),
    "head": lambda x: Tower(())(x),
    "layer-normalised": lambda x: Tower((4,), normalization="layer")(x),
    "no bias": lambda x: Dense(4, "relu", use_bias=False)(x),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_normalisation_goes_into_what_reads_it(reader, dtype):
    keras.config.set_dtype_policy(dtype)
    try:
        model = model_of(
            lambda x: READERS[reader](BatchNormalization()(x)), dtype=dtype
        )
        once = folded(model, 1e-12 if dtype == "float64" else 1e-5)
    finally:
        keras.config.set_dtype_policy("float32")
    assert "BatchNormalization" not in kinds(once)


@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalisation_goes_into_the_dense_before_it(bias):
    def make(x):
        x = BatchNormalization()(Dense(4, use_bias=bias, name="d")(x))
        return keras.ops.relu(x)

    once = folded(model_of(make))
    assert kinds(once) == ["Dense"]
    assert once.get_layer("d").use_bias


def test_batch_normalisation_of_slots_goes_into_routing_and_towers():
    def make(x):
        x = BatchNormalization()(Experts(3, 4)(x))
        x = SubNetworkRouting(2, 5, activation="relu", use_bias=True)(x)
        a, b = keras.ops.unstack(BatchNormalization()(x), 2, axis=1)
        return {"a": Tower((4,))(a), "b": Tower((), head_activation="sigmoid")(b)}

    once = folded(model_of(make))
    assert "BatchNormalization" not in kinds(once)
    assert structure(once).connections == 6


def test_batch_normalisation_goes_into_a_routing_that_gives_its_slots_apart():
    routing = PrunedTransformation(
        [([0], [0]), ([1], [1])], 50, activation="relu", apart=True, name="routing"
    )

    def make(x):
        a, b = routing(BatchNormalization()(Experts(2, 50)(x)))
        return {"a": Dense(1)(a), "b": Dense(1)(b)}

    assert kinds(folded(model_of(make))).count("BatchNormalization") == 0


def test_batch_normalisation_stays_where_it_cannot_go():
    def beside_an_output(x):
        x = BatchNormalization()(x)
        return {"x": x, "y": Dense(2)(x)}

    def of_another_axis(x):
        return Dense(2)(BatchNormalization(axis=1)(x))

    def before_a_sum(x):
        return keras.ops.relu(BatchNormalization()(x))

    def before_a_constraint(x):
        return Dense(2, kernel_constraint="non_neg")(BatchNormalization()(x))

    def twice(x):
        norm = BatchNormalization()
        return Dense(2)(norm(x)) + Dense(2)(norm(-x))

    shape = {of_another_axis: (4, 6)}
    for make in (
        beside_an_output,
        of_another_axis,
        before_a_sum,
        before_a_constraint,
        twice,
    ):
        once = folded(model_of(make, shape.get(make, (6,))))
        assert "BatchNormalization" in kinds(once), make.__name__


def test_batch_normalisation_of_large_means_stays():
    model = model_of(lambda x: Dense(2)(BatchNormalization(name="norm")(x)))
    model.get_layer("norm").moving_mean.assign([1000.0] * 6)
    assert kinds(fold(model)) == ["BatchNormalization", "Dense"]


def test_what_is_frozen_is_not_merged_with_what_is_trained():
    model = model_of(lambda x: Dense(3, name="b")(Dense(3, name="a")(x)))
    model.get_layer("a").trainable = False
    assert len(kinds(folded(model))) == 2
    model.get_layer("b").trainable = False
    both = folded(model)
    assert len(kinds(both)) == 1
    assert not both.trainable_weights


@pytest.mark.parametrize("widths, left", [((9, 4), 1), ((2, 9), 2), ((6, 6), 1)])
def test_linear_layers_in_a_row_merge_where_that_costs_no_more(widths, left):
    first, second = widths
    model = model_of(lambda x: Dense(second, "tanh", name="kept")(Dense(first)(x)))
    once = folded(model)
    assert len(kinds(once)) == left
    assert structure(once).flops <= structure(model).flops
    assert "kept" in [layer.name for layer in once.layers]


def test_a_linear_layer_goes_into_all_that_read_it_or_none():
    def make(x, units):
        x = Dense(units)(x)
        return {"a": Tower((3,))(x), "b": Dense(9)(x), "c": Experts(2, 2)(x)}

    assert kinds(folded(model_of(lambda x: make(x, 20)))).count("Dense") == 1
    assert kinds(folded(model_of(lambda x: make(x, 2)))).count("Dense") == 2


def test_a_linear_layer_of_slots_goes_into_the_routing_behind_it():
    def make(x):
        x = Dense(9)(Experts(3, 4)(x))
        return keras.layers.Flatten()(SubNetworkRouting(2, 3)(x))

    assert kinds(folded(model_of(make))) == [
        "Experts",
        "PrunedTransformation",
        "Flatten",
    ]


def linear_routing(read, units=8, **arguments):
    def make(x):
        x = Experts(3, 6)(x)
        return read(SubNetworkRouting(2, units, name="routing", **arguments)(x))

    model = model_of(make)
    gate = model.get_layer("routing").gate
    gate.set_log_alpha([[4.0, -4.0, 1.0], [4.0, 4.0, 4.0]])
    return model


def test_towers_of_a_linear_routing_hand_their_first_layer_over():
    def read(x):
        a, b = keras.ops.unstack(x, 2, axis=1)
        return {"a": Tower((3, 2), name="a")(a), "b": Tower((3,), name="b")(b)}

    model = linear_routing(read, use_bias=True)
    once = folded(model)
    assert once.get_layer("routing").units == 3
    assert (once.get_layer("a").units, once.get_layer("b").units) == ((2,), ())
    assert structure(once).connections == 5
    assert structure(once).flops < structure(fold_without_merging(read)).flops


def fold_without_merging(read):
    """The fold of the network whose routing is not linear."""
    return fold(linear_routing(read, use_bias=True, activation="softsign"))


def test_a_tower_of_all_slots_hands_its_first_layer_over():
    once = folded(linear_routing(Tower((3,), name="tower")))
    assert once.get_layer("routing").units == 3
    assert once.get_layer("tower").units == ()


@pytest.mark.parametrize("units", [3, (3, 2)])
def test_experts_of_a_linear_routing_hand_their_first_layer_over(units):
    def read(x):
        return keras.layers.Flatten()(Experts(2, units, slots=[1, 0])(x))

    once = folded(linear_routing(read))
    assert once.get_layer("routing").units == 3
    assert once.get_layer("routing").num_outputs == 2
    assert kinds(once).count("Experts") == (1 if units == 3 else 2)


@pytest.mark.parametrize("layer", [Dense(3, "relu"), BatchNormalization()])
def test_what_reads_every_slot_alike_goes_into_the_linear_routing(layer):
    layer = type(layer).from_config(layer.get_config())
    once = folded(linear_routing(lambda x: keras.layers.Flatten()(layer(x))))
    assert kinds(once) == ["Experts", "PrunedTransformation", "Flatten"]


def test_a_linear_routing_stays_where_that_is_cheaper_or_does_not_fit():
    def unlike(x):
        return {"a": Tower((3,))(x[:, 0]), "b": Tower((2,))(x[:, 1])}

    def read_twice(x):
        return {"a": Tower((3,))(x[:, 0]), "b": x[:, 1]}

    def wide(x):
        return {"a": Tower((50,))(x[:, 0]), "b": Tower((50,))(x[:, 1])}

    def heads(x):
        return {"a": Dense(1, "sigmoid")(x[:, 0]), "b": Dense(1, "sigmoid")(x[:, 1])}

    def shared(x):
        return keras.layers.Flatten()(Experts(3, 3, slots=[1, 0, 1])(x))

    for read in (unlike, read_twice, wide, heads, shared):
        routing = folded(linear_routing(read)).get_layer("routing")
        assert routing.units == 8, read.__name__


def test_merging_that_rounds_too_much_is_left_out():
    def make(x):
        return Dense(2, name="b")(Dense(6, name="a")(x))

    model = model_of(make)
    a, b = np.random.default_rng(0).normal(size=(2, 6, 6)).astype("f4")
    model.get_layer("a").set_weights([1e4 * a, np.zeros(6)])
    kernel = 1e4 * np.linalg.inv(a.astype("f8"))[:, :2]
    model.get_layer("b").set_weights([kernel, np.zeros(2)])
    assert len(kinds(fold(model, tolerance=1e-12))) == 2
    assert len(kinds(fold(model, tolerance=1e-2))) == 1


def test_a_merged_model_trains_on_saves_and_leaves_the_original(tmp_path):
    def read(x):
        a, b = keras.ops.unstack(x, 2, axis=1)
        return {"a": Tower((3,), normalization="batch")(a), "b": Tower((3,))(b)}

    model = linear_routing(read)
    before = [np.array(weight) for weight in model.weights]
    once = folded(model)
    x = {"x": np.random.default_rng(0).normal(size=(64, 6)).astype("f4")}
    once.save(tmp_path / "folded.keras")
    reloaded = keras.saving.load_model(tmp_path / "folded.keras")
    for name, value in once(x, training=False).items():
        np.testing.assert_array_equal(reloaded(x, training=False)[name], value)
    once.compile(keras.optimizers.Adam(0.01), "mse")
    y = {name: np.ones((64, 1)) for name in "ab"}
    history = once.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(weight, old)
