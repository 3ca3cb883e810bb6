"""The hard-concrete distribution: closed forms against draws and differences."""

import keras
import numpy as np
import pytest

from tfmtl import ops

DEFAULTS = (2 / 3, -0.1, 1.1)
CONSTANTS = [DEFAULTS, (0.5, -1.0, 2.0), (0.9, -0.1, 1.5)]


def draws(log_alpha, beta, gamma, zeta, count=400_000):
    uniform = np.random.default_rng(0).uniform(1e-6, 1 - 1e-6, count).astype("f4")
    z = ops.hard_concrete_sample(np.float32(log_alpha), uniform, beta, gamma, zeta)
    return keras.ops.convert_to_numpy(z)


@pytest.mark.parametrize("beta, gamma, zeta", CONSTANTS)
@pytest.mark.parametrize("log_alpha", [-3.0, 0.0, 0.3, 2.0])
def test_probabilities_agree_with_draws(log_alpha, beta, gamma, zeta):
    z = draws(log_alpha, beta, gamma, zeta)
    location = np.array(log_alpha, "f4")
    not_zero = float(ops.open_probability(location, beta, gamma, zeta))
    one = float(ops.fully_open_probability(location, beta, gamma, zeta))
    np.testing.assert_allclose((z != 0).mean(), not_zero, atol=3e-3)
    np.testing.assert_allclose((z == 1).mean(), one, atol=3e-3)


def test_check_value():
    probability = float(ops.open_probability(np.array(0.3, "f4"), *DEFAULTS))
    np.testing.assert_allclose(probability, 0.8697, atol=5e-5)


def test_closed_gate_samples_open_in_five_percent_of_steps():
    probability = float(ops.open_probability(np.array(-4.605, "f4"), *DEFAULTS))
    np.testing.assert_allclose(probability, 0.047, atol=1e-3)


def test_exact_zero_and_one_beyond_the_thresholds():
    threshold = ops.closed_below(-0.1, 1.1)
    np.testing.assert_allclose(threshold, -2.398, atol=5e-4)
    around = np.array([-9, threshold - 1e-4, threshold + 1e-2, 0, 2.39, 2.4, 9], "f4")
    z = keras.ops.convert_to_numpy(ops.hard_concrete(around, -0.1, 1.1))
    assert (z[:2] == 0).all() and (z[5:] == 1).all()
    assert ((z[2:5] > 0) & (z[2:5] < 1)).all()


def test_temperature_divides_noise_and_location():
    uniform, log_alpha, beta = 0.3, 1.2, 0.25
    z = float(
        ops.hard_concrete_sample(
            np.array(log_alpha, "f4"), np.array(uniform, "f4"), beta, -2.0, 3.0
        )
    )
    s = 1 / (1 + np.exp(-(np.log(uniform / (1 - uniform)) + log_alpha) / beta))
    np.testing.assert_allclose(z, np.clip(5 * s - 2, 0, 1), atol=1e-6)


def test_extreme_locations_stay_finite():
    log_alpha = np.array([-1e4, 1e4], "f4")
    uniform = np.array([1e-6, 1 - 1e-6], "f4")
    z = ops.hard_concrete_sample(log_alpha, uniform, *DEFAULTS)
    assert keras.ops.convert_to_numpy(z).tolist() == [0.0, 1.0]
