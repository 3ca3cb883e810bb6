"""Padded lists of groups, and NDCG and MAP against NumPy and scikit-learn."""

import importlib

import keras_rs
import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from tfmtl.metrics import (
    GroupMAP,
    GroupNDCG,
    by_group,
    mean_average_precision,
    ndcg,
)


def rows(seed, n=300, groups=40, relevance=2):
    """Labels of which some are missing, scores without ties, groups."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, relevance, n).astype("f4")
    s = generator.permutation(n).astype("f4") / n - 0.5
    g = np.minimum(generator.geometric(0.08, n), groups)
    y[generator.random(n) < 0.2] = np.nan
    return y, s, g


def lists(y, s, g):
    """One group after the other: its labels by falling score."""
    known = ~np.isnan(y)
    for group in np.unique(g[known]):
        inside = known & (g == group)
        yield y[inside][np.argsort(-s[inside])]


def slow_ndcg(y, s, g, k):
    def dcg(ranked):
        ranked = ranked[:k]
        return ((2**ranked - 1) / np.log2(np.arange(len(ranked)) + 2)).sum()

    best = [(dcg(x), dcg(np.sort(x)[::-1])) for x in lists(y, s, g)]
    return np.mean([found / ideal if ideal else 0 for found, ideal in best])


def slow_map(y, s, g, k):
    def average_precision(ranked):
        precision = np.cumsum(ranked) / (np.arange(len(ranked)) + 1)
        return (precision * ranked)[:k].sum() / max(ranked.sum(), 1)

    return np.mean([average_precision(x) for x in lists(y, s, g)])


def test_rows_of_a_group_in_their_order():
    padded = by_group(
        [1, 0, np.nan, 3, 2], [0.5, -0.1, np.nan, 0.9, 0.4], ["b", "a", "c", "b", "b"]
    )
    np.testing.assert_array_equal(padded.labels, [[0, 0, 0], [1, 3, 2]])
    np.testing.assert_array_equal(padded.scores, [[-0.1, 0, 0], [0.5, 0.9, 0.4]])
    np.testing.assert_array_equal(padded.mask, [[1, 0, 0], [1, 1, 1]])
    assert padded.mask.dtype == bool


@pytest.mark.parametrize("named", [False, True])
def test_every_labelled_row_is_there_once(named):
    y, s, g = rows(0)
    groups = np.array([f"{x:03}" for x in g]) if named else g
    padded = by_group(y, s, groups)
    known = ~np.isnan(y)
    assert padded.mask.sum() == known.sum()
    np.testing.assert_array_equal(
        np.sort(padded.scores[padded.mask]), np.sort(s[known])
    )
    for k, ranked in enumerate(lists(y, s, g)):
        mask = padded.mask[k]
        order = np.argsort(-padded.scores[k][mask])
        np.testing.assert_array_equal(padded.labels[k][mask][order], ranked)


@pytest.mark.parametrize("k", [1, 3, 1000, None])
@pytest.mark.parametrize("seed", range(2))
def test_ndcg(seed, k):
    y, s, g = rows(seed, relevance=4)
    np.testing.assert_allclose(ndcg(y, s, g, k), slow_ndcg(y, s, g, k), rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 1000, None])
@pytest.mark.parametrize("seed", range(2))
def test_mean_average_precision(seed, k):
    y, s, g = rows(seed)
    got = mean_average_precision(y, s, g, k)
    np.testing.assert_allclose(got, slow_map(y, s, g, k), rtol=1e-5)


KINDS = [(ndcg, slow_ndcg, GroupNDCG), (mean_average_precision, slow_map, GroupMAP)]


@pytest.mark.parametrize("metric, slow, kind", KINDS)
@pytest.mark.parametrize("k", [2, None])
def test_weights_of_lists(metric, slow, kind, k):
    y, s, g = rows(6, relevance=2)
    of_group = np.random.default_rng(0).uniform(0, 3, g.max() + 1)
    of_group[::5] = 0
    w = of_group[g]
    groups = [group for group in np.unique(g[~np.isnan(y)]) if of_group[group]]
    values = [slow(y[g == group], s[g == group], g[g == group], k) for group in groups]
    assert 0 in values  # a list without a positive label has its own weight too
    expected = np.average(values, weights=of_group[groups])
    np.testing.assert_allclose(metric(y, s, g, k, w), expected, rtol=1e-5)
    np.testing.assert_allclose(metric(y, s, g, k, 0 * w + 7), metric(y, s, g, k))


def test_weight_of_a_list_is_the_mean_of_its_rows():
    y, s, g = [1, 0, 0, 1], [0.9, 0.1, 0.8, 0.7], ["a", "a", "b", "b"]
    found = mean_average_precision(y, s, g, sample_weight=[1.0, 3.0, 1.0, 1.0])
    np.testing.assert_allclose(found, (2 * 1.0 + 1 * 0.5) / 3)


@pytest.mark.parametrize("metric, slow, kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_stream_equals_one_shot(metric, slow, kind, weighted):
    y, s, g = rows(7)
    w = np.random.default_rng(0).uniform(0, 2, 300)[g] if weighted else None
    stream = kind(k=3)
    assert np.isnan(stream.result())
    for part in np.array_split(np.random.default_rng(1).permutation(300), 7):
        stream.update_state(y[part], s[part], g[part], None if w is None else w[part])
    np.testing.assert_allclose(stream.result(), metric(y, s, g, 3, w), rtol=1e-6)
    stream.reset_state()
    assert np.isnan(stream.result())


@pytest.mark.parametrize("kind", [GroupNDCG, GroupMAP])
def test_stream_of_names_and_numbers(kind):
    stream = kind()
    stream.update_state([1, 0], [0.9, 0.8], ["a", "b"])
    with pytest.raises(ValueError, match="`groups` should be integers in every batch"):
        stream.update_state([1, 0], [0.9, 0.8], [1, 2])
    with pytest.raises(ValueError, match="`k` should be a positive integer. Received"):
        kind(k=0)


def test_ndcg_equals_scikit_learn_on_full_lists():
    generator = np.random.default_rng(3)
    y = generator.integers(0, 2, (20, 8))
    y[:, 0] = 1
    s = generator.permuted(np.tile(np.arange(8.0), (20, 1)), axis=1)
    g = np.repeat(np.arange(20), 8)
    expected = ndcg_score(y, s, k=5)
    np.testing.assert_allclose(ndcg(y.ravel(), s.ravel(), g, 5), expected, rtol=1e-5)


def test_lists_fit_the_metrics_of_keras_rs():
    padded = by_group([1, 0, 1], [0.5, 0.9, 0.2], ["a", "a", "b"])
    metric = keras_rs.metrics.MeanReciprocalRank()
    metric.update_state({"labels": padded.labels, "mask": padded.mask}, padded.scores)
    assert float(metric.result()) == 0.75


def test_padding_does_not_count_whatever_the_scores():
    y, s, g = rows(4)
    for scores in (s + 1000, s - 1000):
        np.testing.assert_allclose(ndcg(y, scores, g, 5), ndcg(y, s, g, 5), rtol=1e-3)


@pytest.mark.parametrize("metric", [ndcg, mean_average_precision])
def test_ties_are_repeatable(metric):
    y, s, g = rows(5)
    assert metric(y, np.round(s, 1), g, 3) == metric(y, np.round(s, 1), g, 3)


@pytest.mark.parametrize("metric", [ndcg, mean_average_precision])
def test_nan_without_rows(metric):
    assert np.isnan(metric([np.nan], [0.1], ["a"]))
    assert by_group([], [], np.array([], int)).mask.shape == (0, 0)


@pytest.mark.parametrize("metric", [ndcg, mean_average_precision])
def test_says_that_keras_rs_is_missing(metric, monkeypatch):
    def nothing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", nothing)
    with pytest.raises(ImportError) as error:
        metric([1], [0.1], ["a"])
    assert str(error.value) == "List metrics need keras-rs: `pip install keras-rs`."


def test_lengths_are_checked():
    with pytest.raises(ValueError, match="Columns should have one entry per row."):
        by_group([1, 0], [0.1, 0.2], ["a"])
