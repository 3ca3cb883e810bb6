"""Synthetic tasks: their weights, their labels, and what two calls share."""

import math
import re

import numpy as np
import pytest

from tfmtl.data import SyntheticData, make_tasks, task_weights


@pytest.mark.parametrize("correlation", [-1.0, -0.3, 0.0, 0.5, 0.9, 1.0])
def test_two_tasks_have_the_cosine(correlation: float):
    weights = task_weights(50, num_tasks=2, correlation=correlation)
    expected = [[1, correlation], [correlation, 1]]
    np.testing.assert_allclose(weights @ weights.T, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("num_tasks", "correlation"), [(1, 0.5), (3, -0.5), (4, 0.7), (5, -0.25), (6, 1.0)]
)
def test_many_tasks_have_the_cosine_pairwise(num_tasks: int, correlation: float):
    weights = task_weights(num_tasks, num_tasks=num_tasks, correlation=correlation)
    expected = np.full((num_tasks, num_tasks), correlation)
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(weights @ weights.T, expected, atol=1e-12)


def test_two_tasks_are_the_papers():
    u1, u2 = task_weights(20, correlation=0.0, task_seed=3)
    w1, w2 = task_weights(20, correlation=0.6, task_seed=3)
    np.testing.assert_allclose(w1, u1)
    np.testing.assert_allclose(w2, 0.6 * u1 + math.sqrt(1 - 0.6**2) * u2)


def test_shapes_and_types():
    data = make_tasks(30, num_features=7, num_tasks=3, correlation=0.2)
    assert isinstance(data, SyntheticData)
    assert list(data.features) == ["x"]
    assert data.features["x"].shape == (30, 7)
    assert data.features["x"].dtype == np.float32
    assert list(data.labels) == ["task_1", "task_2", "task_3"]
    for label in data.labels.values():
        assert label.shape == (30, 1)
        assert label.dtype == np.float32
        assert set(np.unique(label)) <= {0.0, 1.0}


def test_regression_follows_the_formula():
    x, y = make_tasks(5000, num_features=10, kind="regression", task_seed=4, seed=5)
    weights = task_weights(10, task_seed=4)
    z = x["x"].astype(np.float64) @ weights[1]
    noise = y["task_2"][:, 0] - z
    noise -= sum(np.sin(i * z + i**2) for i in range(1, 11))
    assert abs(noise.mean()) < 0.01
    np.testing.assert_allclose(noise.std(), 0.1, rtol=0.05)


def test_same_seeds_same_data():
    first, second = make_tasks(50, seed=3), make_tasks(50, seed=3)
    np.testing.assert_array_equal(first.features["x"], second.features["x"])
    np.testing.assert_array_equal(first.labels["task_2"], second.labels["task_2"])


def test_another_seed_draws_other_examples():
    first, second = make_tasks(50, seed=1), make_tasks(50, seed=2)
    assert not np.any(first.features["x"] == second.features["x"])


def test_another_task_seed_makes_other_tasks_of_the_same_examples():
    first, second = make_tasks(50, task_seed=1), make_tasks(50, task_seed=2)
    np.testing.assert_array_equal(first.features["x"], second.features["x"])
    assert np.any(first.labels["task_1"] != second.labels["task_1"])


def test_train_and_test_share_the_concept():
    weights = task_weights(20, task_seed=6)
    grid = np.linspace(-4, 4, 401)
    curve = grid + sum(np.sin(i * grid + i**2) for i in range(1, 11))
    for seed in (1, 2):
        regression = make_tasks(
            2000, num_features=20, kind="regression", task_seed=6, seed=seed
        )
        binary = make_tasks(2000, num_features=20, task_seed=6, seed=seed)
        y = regression.labels["task_1"][:, 0]
        z = regression.features["x"] @ weights[0]
        assert np.corrcoef(y, np.interp(z, grid, curve))[0, 1] > 0.99
        # One fixed threshold parts the labels, whatever was drawn.
        positive = binary.labels["task_1"][:, 0] == 1
        assert y[~positive].max() <= 0.157469 + 1e-6 < y[positive].min() + 2e-6


def test_label_rate_is_a_half():
    for label in make_tasks(200_000, num_features=5, num_tasks=3).labels.values():
        assert abs(label.mean() - 0.5) < 0.006


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_label_correlation_grows_with_the_cosine(kind):
    measured = []
    for correlation in (0.0, 0.5, 0.9, 1.0):
        labels = make_tasks(
            20_000, num_features=10, correlation=correlation, kind=kind
        ).labels
        pair = labels["task_1"][:, 0], labels["task_2"][:, 0]
        measured.append(np.corrcoef(*pair)[0, 1])
    assert measured == sorted(measured)
    assert abs(measured[0]) < 0.05
    assert measured[-1] > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"num_examples": 0},
            "`num_examples` should be a positive integer. Received: num_examples=0",
        ),
        (
            {"num_tasks": 1.5},
            "`num_tasks` should be a positive integer. Received: num_tasks=1.5",
        ),
        (
            {"num_features": -1},
            "`num_features` should be a positive integer. Received: num_features=-1",
        ),
        (
            {"num_features": 2, "num_tasks": 3},
            "`num_features` should be at least `num_tasks`. "
            "Received: num_features=2, num_tasks=3",
        ),
        (
            {"correlation": 1.1},
            "`correlation` should be between -1 and 1 for 2 tasks. "
            "Received: correlation=1.1",
        ),
        (
            {"correlation": -0.6, "num_tasks": 3},
            "`correlation` should be between -0.5 and 1 for 3 tasks. "
            "Received: correlation=-0.6",
        ),
        (
            {"correlation": float("nan")},
            "`correlation` should be between -1 and 1 for 2 tasks. "
            "Received: correlation=nan",
        ),
        (
            {"kind": "ordinal"},
            '`kind` should be "binary" or "regression". Received: kind=\'ordinal\'',
        ),
    ],
)
def test_errors_say_what_came(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_tasks(**({"num_examples": 10} | arguments))
