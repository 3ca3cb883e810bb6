"""Every public layer through every guarantee."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from registry import GATE, REGISTRY, set_weights

from tfmtl import layers
from tfmtl.folding import fold
from tfmtl.serving import export

each_layer = pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.id)


def answer(model, rows):
    return keras.ops.convert_to_numpy(model({"x": rows}, training=False)["y"])


def constructor(entry):
    if "__init__" not in vars(entry.cls):
        return []
    parameters = inspect.signature(entry.cls.__init__).parameters.values()
    return [p for p in parameters if p.name not in ("self", "kwargs")]


def plain(value):
    """A configuration value in a form that can be compared."""
    return keras.saving.serialize_keras_object(value)


def test_every_public_layer_is_registered():
    registered = {entry.cls.__name__ for entry in REGISTRY}
    assert registered == set(layers.__all__)


@pytest.mark.parametrize("name", layers.__all__)
def test_no_constructor_argument_is_left_at_its_default(name):
    entries = [entry for entry in REGISTRY if entry.cls.__name__ == name]
    for parameter in constructor(entries[0]):
        assert all(parameter.name in entry.arguments for entry in entries)
        values = [entry.arguments[parameter.name] for entry in entries]
        assert any(value != parameter.default for value in values), parameter.name


@each_layer
def test_every_constructor_argument_is_in_the_config(entry):
    config = entry.bare().get_config()
    assert {p.name for p in constructor(entry)} <= set(config)


@each_layer
def test_every_argument_survives_the_config(entry):
    layer = entry.bare(name="own_name", dtype="mixed_bfloat16", trainable=False)
    rebuilt = entry.cls.from_config(layer.get_config())
    assert rebuilt.name == "own_name"
    assert rebuilt.dtype_policy.name == "mixed_bfloat16"
    assert not rebuilt.trainable
    config = rebuilt.get_config()
    assert plain(config) == plain(layer.get_config())
    for name, value in entry.arguments.items():
        if isinstance(value, keras.initializers.Initializer | keras.Regularizer):
            assert config[name] == plain(value)
        elif name == "groups":
            assert [tuple(group) for group in config[name]] == value
        else:
            assert config[name] == value


@each_layer
def test_rebuilt_layer_gives_the_same_outputs(entry):
    model = entry.model()
    rebuilt = keras.Model.from_config(model.get_config())
    rebuilt.set_weights(model.get_weights())
    rows = entry.rows(5)
    np.testing.assert_array_equal(answer(rebuilt, rows), answer(model, rows))


@each_layer
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_batch_size_is_free(entry, batch):
    model, rows = entry.model(), entry.rows(9)
    got = answer(model, rows[:batch])
    np.testing.assert_allclose(got, answer(model, rows)[:batch], atol=1e-6)


@each_layer
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_symbolic_output_is_the_real_one(entry, policy):
    model = entry.model(dtype=policy)
    compute_dtype = keras.dtype_policies.get(policy).compute_dtype
    y = model({"x": entry.rows(3)}, training=False)["y"]
    assert y.dtype.name == model.output["y"].dtype
    assert y.dtype.name == (entry.output_dtype or compute_dtype)
    assert model.output["y"].shape == (None, *y.shape[1:])
    assert np.isfinite(keras.ops.convert_to_numpy(y).astype("f8")).all()


@each_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_close(entry, policy):
    rows = entry.rows(5)
    expected = answer(entry.model(), rows)
    got = answer(entry.model(dtype=policy), rows).astype("f4")
    np.testing.assert_allclose(got, expected, atol=0.06)


@each_layer
def test_compiled_by_xla(entry):
    model, rows = entry.model(), entry.rows(5)
    compiled = tf.function(lambda x: model({"x": x}, training=False), jit_compile=True)
    got = compiled(tf.constant(rows))["y"].numpy()
    np.testing.assert_allclose(got, answer(model, rows), atol=1e-6)


@each_layer
def test_training_step_compiled_by_xla(entry):
    model, rows = entry.model(), entry.rows(5)
    before, trained = model.get_weights(), model.trainable_variables
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(trained)

    @tf.function(jit_compile=True)
    def step(x):
        with tf.GradientTape() as tape:
            y = model({"x": x}, training=True)["y"]
            loss = tf.reduce_sum(tf.cast(y, "float32") ** 2) + sum(model.losses)
        if trained:
            optimizer.apply(tape.gradient(loss, [weight.value for weight in trained]))
        return loss

    assert np.isfinite(step(tf.constant(rows)).numpy())
    after = model.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    moved = any(map(np.any, map(np.not_equal, before, after)))
    assert moved == bool(trained)


@each_layer
@pytest.mark.parametrize("training", [False, True])
def test_gradient_reaches_every_trainable_weight(entry, training):
    model, rows = entry.model(), entry.rows(16)
    loss = 0.0
    with tf.GradientTape() as tape:
        for _ in range(8):
            y = tf.cast(model({"x": rows}, training=training)["y"], "float32")
            loss += tf.reduce_sum(y**2)
    weights = [weight.value for weight in model.trainable_weights]
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert gradient is not None, f"{weight.name} is not used"
        assert np.abs(tf.convert_to_tensor(gradient)).sum() > 0, weight.name


@pytest.mark.parametrize(  # of tables, no more than the rows that are read
    "entry",
    [entry for entry in REGISTRY if entry.input_dtype == "float32"],
    ids=lambda entry: entry.id,
)
def test_gradient_reaches_every_element(entry):
    model, rows = entry.model(), entry.rows(16)
    for weight in model.trainable_weights:
        if weight.name == "theta":  # nearly open, and not clipped
            weight.assign(np.full(weight.shape, 1 / GATE["rate_multiplier"]))
        else:  # none of DSelect-k's digits is certain
            weight.assign(0.2 * keras.ops.convert_to_numpy(weight))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model({"x": rows}, training=False)["y"] ** 2)
    weights = [weight.value for weight in model.trainable_weights]
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert (keras.ops.convert_to_numpy(gradient) != 0).all(), weight.name


@each_layer
def test_trainable_switches_every_weight(entry):
    model = entry.model()
    model.trainable = False
    for frozen in (model, keras.Model.from_config(model.get_config())):
        assert not frozen.trainable_weights
        assert not frozen.losses


@each_layer
def test_inference_is_deterministic(entry):
    model, rows = entry.model(), entry.rows(5)
    np.testing.assert_array_equal(answer(model, rows), answer(model, rows))
    predicted = model.predict({"x": rows}, verbose=0)["y"]
    np.testing.assert_allclose(predicted, answer(model, rows), atol=1e-6)


@each_layer
def test_fold_gives_the_same_outputs(entry):
    model, rows = entry.model(), entry.rows(5)
    folded = fold(model)
    np.testing.assert_allclose(answer(folded, rows), answer(model, rows), atol=1e-6)
    again = fold(folded)
    assert again.count_params() == folded.count_params()
    np.testing.assert_allclose(answer(again, rows), answer(model, rows), atol=1e-6)


def test_export_in_the_cpp_session(tmp_path):
    inputs, outputs = {}, {}
    for entry in REGISTRY:
        x = keras.Input(entry.input_shape, dtype=entry.input_dtype, name=entry.id)
        y = entry.called(x, name=f"layer_{entry.id}")
        inputs[entry.id] = x
        outputs[f"{entry.id}_output"] = keras.ops.cast(y, "float32")
    model = set_weights(keras.Model(inputs, outputs))
    golden = {entry.id: entry.rows(5) for entry in REGISTRY}
    assert export(model, tmp_path / "model", golden=golden).difference <= 1e-6


@pytest.fixture(scope="module")
def reloaded(elsewhere):
    return elsewhere("tensorflow")


@each_layer
def test_keras_file_in_a_fresh_process(entry, reloaded):
    expected, got = answer(entry.model(), entry.rows(5)), reloaded(entry)["inference"]
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
