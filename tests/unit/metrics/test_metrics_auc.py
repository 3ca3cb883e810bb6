"""AUC and GAUC against scikit-learn and a loop over groups; the streaming GAUC."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tfmtl.metrics import GroupAUC, LogitAUC, auc, group_auc


def slow_group_auc(y, s, g, w=None):
    """One group after the other, by scikit-learn."""
    w = np.ones(len(y)) if w is None else w
    total = weight = 0.0
    for group in set(g.tolist()):
        rows = (g == group) & ~np.isnan(y) & (w > 0)
        if len(set(y[rows].tolist())) == 2:
            area = roc_auc_score(y[rows], s[rows], sample_weight=w[rows])
            total += w[rows].sum() * area
            weight += w[rows].sum()
    return total / weight


def pairs(y, s):
    """The definition: over all pairs."""
    differences = s[y == 1][:, None] - s[y == 0]
    return np.mean((differences > 0) + (differences == 0) / 2)


def rows(seed, n=400, groups=60, decimals=1):
    """Labels of which some are missing, tied scores, groups, weights with zeros."""
    generator = np.random.default_rng(seed)
    y = (generator.random(n) < 0.3).astype("f4")
    s = np.round(generator.normal(size=n) + y, decimals).astype("f4")
    g = np.minimum(generator.geometric(0.05, n), groups)
    w = np.where(generator.random(n) < 0.1, 0, generator.random(n))
    y[generator.random(n) < 0.2] = np.nan
    return y, s, g, w


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(3))
def test_auc_equals_scikit_learn(seed, decimals):
    y, s, _, w = rows(seed, decimals=decimals)
    known = ~np.isnan(y)
    expected = roc_auc_score(y[known], s[known])
    np.testing.assert_allclose(auc(y, s), expected, rtol=1e-12)
    np.testing.assert_allclose(auc(y, -s), 1 - expected, rtol=1e-12)
    np.testing.assert_allclose(auc(y[known], s[known]), pairs(y[known], s[known]))
    expected = roc_auc_score(y[known], s[known], sample_weight=w[known])
    np.testing.assert_allclose(auc(y, s, w), expected, rtol=1e-12)


@pytest.mark.parametrize("scores", [[2, 2, 2], [-np.inf, -np.inf, -np.inf]])
def test_equal_scores_are_one_half(scores):
    assert auc([0, 1, 1], scores) == group_auc([0, 1, 1], scores, [7, 7, 7]) == 0.5


def test_infinite_scores_have_an_order():
    assert auc([0, 1, 0, 1], [-np.inf, 0.0, 5.0, np.inf]) == 0.75


@pytest.mark.parametrize(
    "labels", [[], [1.0], [1, 1], [0, 0], [np.nan, np.nan], [1, None]]
)
def test_nan_without_both_classes(labels):
    scores, groups = np.arange(len(labels)), np.arange(len(labels))
    assert np.isnan(auc(labels, scores))
    assert np.isnan(group_auc(labels, scores, groups))
    assert np.isnan(group_auc([0, 1], [0.1, 0.2], ["a", "b"]))
    assert np.isnan(auc([0, 1], [0.1, 0.2], [0.0, 1.0]))


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(3))
def test_group_auc_equals_a_loop(seed, decimals):
    y, s, g, w = rows(seed, decimals=decimals)
    np.testing.assert_allclose(group_auc(y, s, g), slow_group_auc(y, s, g))
    np.testing.assert_allclose(group_auc(y, s, g, w), slow_group_auc(y, s, g, w))


def test_one_group_is_the_auc():
    y, s, g, w = rows(4)
    assert group_auc(y, s, np.zeros_like(g), w) == auc(y, s, w)


def test_whole_weights_are_repeated_rows():
    y, s, g, _ = rows(5)
    times = np.random.default_rng(0).integers(0, 4, len(y))
    repeated = group_auc(*(np.repeat(x, times) for x in (y, s, g)))
    np.testing.assert_allclose(group_auc(y, s, g, times), repeated, rtol=1e-12)


def test_order_within_groups_only():
    y, s, g, w = rows(6)
    shifted = group_auc(y, s + 100.0 * g, g, w)
    np.testing.assert_allclose(shifted, group_auc(y, s.astype("f8"), g, w), rtol=1e-9)


def test_order_of_rows_does_not_matter():
    y, s, g, w = rows(7)
    p = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_allclose(
        group_auc(y[p], s[p], g[p], w[p]), group_auc(y, s, g, w), rtol=1e-12
    )


def test_missing_labels_and_weight_0_may_have_any_score():
    got = auc([0, 1, np.nan, 1], [0.1, 0.2, np.nan, np.nan], [1, 1, 1, 0])
    assert got == 1


KINDS = {
    "int32": lambda g: g.astype("i4"),
    "hashes": lambda g: g.astype("u8") * np.uint64(0x9E3779B97F4A7C15),
    "strings": lambda g: np.array([f"user {x}" for x in g]),
    "objects": lambda g: np.array([f"user {x}" for x in g], object),
    "bytes": lambda g: np.array([f"user {x}".encode() for x in g]),
    "tensor": lambda g: tf.constant([f"user {x}" for x in g]),
    "column": lambda g: g[:, None],
    "list": lambda g: [f"user {x}" for x in g],
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_kinds_of_groups(kind):
    y, s, g, w = rows(8)
    expected = slow_group_auc(y, s, g, w)
    np.testing.assert_allclose(group_auc(y, s, kind(g), w), expected)
    stream = GroupAUC()
    for part in np.array_split(np.arange(len(y)), 5):
        stream.update_state(y[part], s[part], kind(g[part]), w[part])
    np.testing.assert_allclose(stream.result(), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_stream_equals_one_shot_in_any_order(weighted):
    y, s, g, w = rows(9)
    w = w if weighted else None
    parts = np.split(np.random.default_rng(1).permutation(len(y)), [1, 2, 50, 51])
    for order in (parts, parts[::-1]):
        stream = GroupAUC()
        for part in order:
            stream.update_state(y[part], s[part], g[part], w[part] if weighted else w)
        np.testing.assert_allclose(stream.result(), group_auc(y, s, g, w), rtol=1e-12)


def test_stream_of_weighted_and_unweighted_batches():
    y, s, g, w = rows(10)
    stream = GroupAUC()
    stream.update_state(y[:100], s[:100], g[:100])
    stream.update_state(y[100:], s[100:], g[100:], w[100:])
    w[:100] = 1
    np.testing.assert_allclose(stream.result(), group_auc(y, s, g, w), rtol=1e-12)


def test_stream_takes_tensors_and_forgets_on_reset():
    y, s, g, _ = rows(11)
    stream = GroupAUC()
    assert np.isnan(stream.result())
    stream.update_state([1, 0], [0.1, 0.2], ["a", "a"])
    stream.update_state([np.nan], [0.1], ["b"])
    assert stream.result() == 0
    stream.reset_state()
    assert np.isnan(stream.result())
    stream.update_state(
        tf.constant(y[:, None]), tf.constant(s[:, None]), tf.constant(g)
    )
    np.testing.assert_allclose(stream.result(), slow_group_auc(y, s, g))


def test_stream_keeps_copies():
    scores, weights = np.array([0.1, 0.2]), np.array([1.0, 2.0])
    stream = GroupAUC()
    stream.update_state([0, 1], scores, np.array([3, 3]), weights)
    scores[:], weights[:] = 0, 0
    assert stream.result() == 1


def test_stream_of_names_and_numbers_is_refused():
    stream = GroupAUC()
    stream.update_state([1, 0], [0.1, 0.2], ["a", "a"])
    with pytest.raises(ValueError) as error:
        stream.update_state([1, 0], [0.1, 0.2], [0, 0])
    assert str(error.value) == (
        "`groups` should be integers in every batch, or strings in every batch. "
        "Received: dtype=int64 after strings"
    )
    stream.reset_state()
    stream.update_state([1, 0], [0.1, 0.2], [0, 0])
    with pytest.raises(ValueError, match="Received: dtype=<U1 after integers"):
        stream.update_state([1, 0], [0.1, 0.2], ["a", "a"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ([0, 1], [0.1], ["a", "b"]),
            "Columns should have one entry per row. "
            "Received: lengths={'labels': 2, 'scores': 1, 'groups': 2}",
        ),
        (
            ([0, 1], [0.1, 0.2], ["a", "b"], [1]),
            "Columns should have one entry per row. Received: lengths={'labels': 2, "
            "'scores': 2, 'groups': 2, 'sample_weight': 1}",
        ),
        (
            (np.zeros((2, 3)), [0.1, 0.2], ["a", "b"]),
            "Columns should have shape (rows,) or (rows, 1). Received: shape=(2, 3)",
        ),
        (
            ([0, 1], [0.1, 0.2], [0.5, 1.5]),
            "`groups` should be integers or strings. Received: dtype=float64",
        ),
        (
            ([0, 2, -1], [0.1, 0.2, 0.3], [1, 1, 1]),
            "`labels` should be 0 or 1, or NaN where missing. "
            "Received: labels=[-1.0, 2.0]",
        ),
        (
            ([0, 1, np.nan], [0.1, np.nan, np.nan], [1, 1, 1]),
            "`scores` should be numbers wherever there is a label. "
            "Received: 1 times NaN",
        ),
        (
            ([0, 1, 0], [0.1, None, None], [1, 1, 1]),
            "`scores` should be numbers wherever there is a label. "
            "Received: 2 times NaN",
        ),
        (
            ([0, 1], [0.1, 0.2], [1, 1], [1.0, -1.0]),
            "`sample_weight` should be finite and at least 0. "
            "Received: sample_weight=[1.0, -1.0]",
        ),
    ],
)
@pytest.mark.parametrize("entry", [group_auc, lambda *x: GroupAUC().update_state(*x)])
def test_what_does_not_fit_is_refused(entry, arguments, message):
    with pytest.raises(ValueError) as error:
        entry(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("rate", [0.5, 1e-3])
def test_auc_by_thresholds_of_the_logit(rate):
    generator = np.random.default_rng(0)
    logits = generator.normal(np.log(rate / (1 - rate)), 2.0, (50_000, 1))
    p = 1 / (1 + np.exp(-logits))
    y, w = generator.random(p.shape) < p, generator.uniform(0, 2, len(p))
    metric = LogitAUC.from_config(LogitAUC(num_thresholds=2000).get_config())
    for part in np.array_split(np.arange(len(p)), 3):
        metric.update_state(y[part], p[part], w[part])
    np.testing.assert_allclose(metric.result(), auc(y, p, w), atol=1e-3)
    assert (metric.num_thresholds, metric.name) == (2000, "auc")


def test_auc_of_sure_predictions():
    metric = LogitAUC()
    metric.update_state([[0.0], [1.0], [0.0]], [[0.0], [1.0], [0.5]])
    assert float(metric.result()) == 1.0
