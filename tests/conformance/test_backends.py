"""Every public layer on every backend of Keras: TensorFlow's numbers."""

import numpy as np
import pytest
from cases import CASES, L0, WITHOUT_GRADIENT

pytestmark = pytest.mark.backends

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
each_differentiable_case = pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.id not in WITHOUT_GRADIENT],
    ids=lambda case: case.id,
)


@pytest.fixture(scope="module")
def tensorflow(elsewhere):
    return elsewhere("tensorflow")


@pytest.fixture(scope="module", params=["jax", "torch"])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def answered(backend, elsewhere):
    return elsewhere(backend)


def gradients(answers):
    return {k: values for k, values in answers.items() if k.startswith("gradient")}


@each_case
def test_same_numbers(case, backend, answered, tensorflow):
    got, expected = answered(case)["inference"], tensorflow(case)["inference"]
    narrowed = backend == "jax" and expected.dtype == "int64"  # its widest integer
    assert got.dtype == ("int32" if narrowed else expected.dtype)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@each_case
def test_same_regularisation(case, answered, tensorflow):
    got, expected = answered(case)["penalty"], tensorflow(case)["penalty"]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@each_differentiable_case
def test_same_gradients(case, answered, tensorflow):
    got, expected = gradients(answered(case)), gradients(tensorflow(case))
    assert got.keys() == expected.keys()
    assert got
    for k, values in got.items():
        np.testing.assert_allclose(values, expected[k], rtol=1e-5, atol=1e-5)


@each_case
def test_finite_in_training(case, answered):
    answers = answered(case)
    assert answers["training"].shape == answers["inference"].shape
    assert np.isfinite(answers["training"]).all()


def test_network_trains_with_its_penalty(answered):
    found = answered("trained")
    assert len(found["losses"]) == 3
    assert np.isfinite(found["losses"]).all()
    [penalty] = found["penalties"]
    assert penalty > 0
    np.testing.assert_allclose(penalty, L0 * found["open"], rtol=1e-6)
    np.testing.assert_allclose(found["evaluated"], found["mse"] + penalty, rtol=1e-5)


def test_network_trains_to_a_target(answered):
    assert answered("trained")["aimed"].mean() == 0.5
