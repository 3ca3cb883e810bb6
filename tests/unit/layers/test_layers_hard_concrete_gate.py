"""The gate: noise, exact ends, the penalty, the clamp, and learning in `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import layers


def gate_of(log_alpha=None, shape=(2, 3), **kwargs):
    gate = layers.HardConcreteGate(shape, **kwargs)
    gate.build()
    if log_alpha is not None:
        gate.set_log_alpha(log_alpha)
    return gate


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


@keras.saving.register_keras_serializable(package="tfmtl_tests")
class GatedColumns(keras.layers.Layer):
    """Multiplies each input column by its gate; counts how often it is traced."""

    def __init__(self, times=1, **gate):
        super().__init__()
        self.times = times
        self.gate_arguments = gate
        self.traced = 0

    def build(self, input_shape):
        self.gate = layers.HardConcreteGate(input_shape[1:], **self.gate_arguments)
        self.gate.build()
        self.built = True

    def call(self, inputs, training=None):
        self.traced += 1
        for _ in range(self.times):
            inputs = inputs * self.gate(training=training)
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


def columns_model(width, **kwargs):
    x = keras.Input((width,))
    columns = GatedColumns(**kwargs)
    y = keras.layers.Dense(1, use_bias=False)(columns(x))
    return keras.Model(x, y), columns


def test_stochastic_in_training_deterministic_otherwise():
    gate = gate_of(0.0)
    assert not np.array_equal(values(gate(training=True)), values(gate(training=True)))
    np.testing.assert_array_equal(values(gate(training=False)), values(gate()))
    np.testing.assert_allclose(values(gate()), 0.5, atol=1e-6)


def test_noise_is_new_in_every_step_of_a_compiled_function():
    gate = gate_of(0.0, shape=(20,))
    draw = tf.function(lambda: gate(training=True))
    assert not np.array_equal(values(draw()), values(draw()))


def test_seed_repeats_the_noise():
    draws = [values(gate_of(0.0, seed=5)(training=True)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)


def test_exact_ends_are_reached():
    gate = gate_of(0.0, shape=(10_000,), seed=0)
    z = values(gate(training=True))
    assert (z == 0).any() and (z == 1).any() and ((z > 0) & (z < 1)).any()
    assert (z >= 0).all() and (z <= 1).all()
    np.testing.assert_array_equal(values(gate_of(-2.4)()), 0)
    np.testing.assert_array_equal(values(gate_of(2.4)()), 1)


def test_draws_agree_with_the_penalty():
    gate = gate_of(0.3, shape=(100_000,), seed=0)
    share = (values(gate(training=True)) != 0).mean()
    np.testing.assert_allclose(share, values(gate.open_probability())[0], atol=4e-3)


def test_nearly_open_at_the_start():
    gate = gate_of(shape=(1000,))
    log_alpha = values(gate.log_alpha)
    np.testing.assert_allclose(log_alpha.mean(), 2.197, atol=2e-3)
    np.testing.assert_allclose(log_alpha.std(), 0.01, atol=2e-3)
    assert (values(gate.open_probability()) > 0.975).all()
    assert (values(gate()) > 0.95).all()


def test_rate_multiplier_does_not_change_the_start():
    for multiplier in (1.0, 30.0):
        gate = gate_of(shape=(50,), rate_multiplier=multiplier)
        np.testing.assert_allclose(values(gate.log_alpha), 2.197, atol=0.05)


def test_penalty_is_the_sum_over_gates_times_l0():
    gate = gate_of([[0.3, -1, 2], [4, -4, 0]], l0=0.25)
    [penalty] = gate.losses
    expected = 0.25 * values(gate.open_probability()).sum()
    np.testing.assert_allclose(float(penalty), expected, rtol=1e-6)


def test_penalty_without_l0_is_zero():
    assert float(gate_of().losses[0]) == 0


def test_penalty_counts_once_though_the_layer_is_called_twice():
    x = keras.Input((3,))
    columns = GatedColumns(times=3, l0=1.0)
    model = keras.Model(x, columns(x) + columns(2 * x))
    model(np.ones((2, 3), "f4"), training=True)
    assert len(model.losses) == 1
    expected = values(columns.gate.open_probability()).sum()
    np.testing.assert_allclose(float(model.losses[0]), expected, rtol=1e-6)


def test_penalty_does_not_depend_on_the_batch():
    model, _ = columns_model(3, l0=1.0)
    penalties = []
    for batch in (1, 100):
        model(np.ones((batch, 3), "f4"), training=True)
        penalties.append(float(model.losses[0]))
    assert penalties[0] == penalties[1]


def test_frozen_gate_adds_nothing():
    gate = gate_of(l0=1.0)
    gate.trainable = False
    assert gate.losses == []


@pytest.mark.parametrize("rate_multiplier", [1.0, 30.0])
def test_gradient_of_the_penalty(rate_multiplier):
    start = np.array([-4, -1, 0.3, 2.2], "f4")
    gate = gate_of(start, shape=(4,), l0=0.5, rate_multiplier=rate_multiplier)
    with tf.GradientTape() as tape:
        [penalty] = gate.losses
    gradient = values(tape.gradient(penalty, gate.theta.value))
    for k in range(4):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[k] += sign * 0.05
            gate.set_log_alpha(moved)
            ends.append(float(gate.losses[0]))
        slope = rate_multiplier * (ends[0] - ends[1]) / 0.1
        np.testing.assert_allclose(gradient[k], slope, rtol=5e-3)


@pytest.mark.parametrize("rate_multiplier", [1.0, 30.0])
@pytest.mark.parametrize("direction", [1, -1])
def test_clamped_after_an_optimizer_step(rate_multiplier, direction):
    gate = gate_of(0.0, rate_multiplier=rate_multiplier)
    optimizer = keras.optimizers.SGD(1e6)
    optimizer.apply([-direction * keras.ops.ones((2, 3))], [gate.theta])
    np.testing.assert_allclose(values(gate.log_alpha), direction * 4.605, rtol=1e-6)


def test_set_log_alpha_clamps_and_broadcasts():
    gate = gate_of(99)
    np.testing.assert_allclose(values(gate.log_alpha), 4.605, rtol=1e-6)
    gate.set_log_alpha([1, 2, 3])
    np.testing.assert_allclose(values(gate.log_alpha), [[1, 2, 3]] * 2, rtol=1e-6)


def test_weights_are_float32_under_mixed_precision():
    gate = gate_of(0.3, dtype="mixed_float16", l0=1.0)
    assert gate.theta.dtype == gate.l0.dtype == "float32"
    assert keras.backend.standardize_dtype(gate(training=True).dtype) == "float16"
    expected = values(gate.open_probability()).sum()
    np.testing.assert_allclose(float(gate.losses[0]), expected, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_l0_changes_the_loss_without_retracing(jit_compile):
    model, columns = columns_model(4, l0=0.0, seed=0)
    model.layers[-1].set_weights([np.zeros((4, 1), "f4")])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    data = np.ones((8, 4), "f4"), np.zeros((8, 1), "f4")
    first = model.fit(*data, verbose=0).history["loss"][0]
    traced = columns.traced
    columns.gate.set_l0(2.0)
    second = model.fit(*data, verbose=0).history["loss"][0]
    assert columns.traced == traced
    assert first == 0
    expected = 2 * values(columns.gate.open_probability()).sum()
    np.testing.assert_allclose(second, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def noise_and_signal():
    """Twenty columns, of which the first five carry the target."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4096, 20)).astype("f4")
    y = x[:, :5] @ np.array([1.0, -1.0, 1.5, -1.5, 2.0], "f4")
    return x, y[:, None]


def trained_gates(data, rate_multiplier):
    keras.utils.set_random_seed(0)
    model, columns = columns_model(20, l0=5e-2, rate_multiplier=rate_multiplier)
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.fit(*data, batch_size=64, epochs=19, verbose=0)
    assert int(model.optimizer.iterations) == 1216
    return values(columns.gate(training=False))


def test_stock_fit_closes_noise_gates_and_keeps_signal_gates(noise_and_signal):
    z = trained_gates(noise_and_signal, rate_multiplier=30.0)
    assert (z[:5] > 0.5).all()
    assert (z[5:] == 0).all()


def test_without_the_multiplier_none_closes(noise_and_signal):
    assert (trained_gates(noise_and_signal, rate_multiplier=1.0) > 0).all()


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"l0": -1e-3}, "`l0` should be at least 0. Received: l0=-0.001"),
        ({"beta": 0.0}, "`beta` should be greater than 0. Received: beta=0.0"),
        ({"gamma": 0.0}, "`gamma` should be less than 0. Received: gamma=0.0"),
        ({"zeta": 1.0}, "`zeta` should be greater than 1. Received: zeta=1.0"),
        (
            {"rate_multiplier": 0},
            "`rate_multiplier` should be greater than 0. Received: rate_multiplier=0",
        ),
        (
            {"shape": 3},
            "`shape` should be sizes. Received: shape=3",
        ),
        (
            {"beta": "a"},
            "`beta` should be greater than 0. Received: beta='a'",
        ),
        (
            {"shape": (2, 0)},
            "`shape` should be a positive integer. Received: shape=0",
        ),
    ],
)
def test_refused_arguments(arguments, text):
    with pytest.raises(ValueError) as error:
        layers.HardConcreteGate(**{"shape": (2,), **arguments})
    assert str(error.value) == text
