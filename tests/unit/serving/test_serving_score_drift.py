"""Drift of scores: against direct computations, ties, constants, rounding."""

import numpy as np
import pytest
from scipy import stats

from tfmtl.serving.pair import Pair
from tfmtl.serving.score_drift import drift, rank_correlation, stability_index


@pytest.fixture
def scores():
    """Scores of 500 rows with ties, and others near them."""
    generator = np.random.default_rng(0)
    old = np.round(generator.beta(2, 5, 500), 2)
    return old, np.clip(old + np.round(generator.normal(0, 0.05, 500), 2), 0, 1)


def psi_bin_by_bin(old, new):
    """The formula of the docstring, one bin after the other."""
    edges = sorted(
        {sorted(old)[int(np.ceil(k * len(old) / 10)) - 1] for k in range(1, 10)}
    )
    bounds = [-np.inf, *edges, np.inf]
    total = 0.0
    for low, high in zip(bounds, bounds[1:], strict=False):
        p, q = (
            (sum(low < s <= high for s in values) + 0.5)
            / (len(values) + len(edges) / 2 + 0.5)
            for values in (old, new)
        )
        total += (q - p) * np.log(q / p)
    return total


def test_differences(scores):
    old, new = scores
    found = drift(old, new)
    assert found.mean == Pair(pytest.approx(old.mean()), pytest.approx(new.mean()))
    assert found.mean.change == pytest.approx((new - old).mean())
    assert found.mean_difference == pytest.approx(np.abs(new - old).mean())
    assert found.max_difference == pytest.approx(np.abs(new - old).max())


def test_rank_correlation_with_ties_is_scipys(scores):
    old, new = scores
    expected = stats.spearmanr(old, new).statistic
    assert drift(old, new).rank_correlation == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.3, 5.0])
def test_stability_index_bin_by_bin(scores, shift):
    old, new = scores
    expected = psi_bin_by_bin(old, new + shift)
    assert stability_index(old, new + shift) == pytest.approx(expected)


def test_stability_index_does_not_depend_on_a_scale(scores):
    old, new = (np.rint(100 * values) for values in scores)
    expected = stability_index(old, new)
    assert expected > 0.01
    assert stability_index(np.exp(old / 30), np.exp(new / 30)) == expected


def test_version_beside_itself_has_no_drift(scores):
    for values in (scores[0], np.full(7, 0.25), np.array([3.0])):
        found = drift(values, values)
        assert (found.mean_difference, found.max_difference, found.psi) == (0, 0, 0)
        assert found.rank_correlation == 1


def test_constant_scores():
    constant, varied = np.full(4, 0.5), np.array([0.1, 0.2, 0.3, 0.9])
    assert rank_correlation(constant, np.full(4, 0.7)) == 1
    assert rank_correlation(constant, varied) == 0
    assert rank_correlation(varied, constant) == 0
    assert stability_index(constant, constant + 1) > 1


def test_rounding_is_no_drift():
    generator = np.random.default_rng(0)
    old = np.repeat(generator.uniform(size=5), 200)
    found = drift(old, old * (1 + generator.uniform(-1e-6, 1e-6, old.shape)))
    assert 0 < found.max_difference < 1e-6
    assert found.psi == 0
    assert found.rank_correlation == 1
