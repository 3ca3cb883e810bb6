"""Quality of two versions: against scikit-learn, resampling, and what has no value."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tfmtl.serving.pair import UNDEFINED, Pair
from tfmtl.serving.quality import quality


def clicks(rows, seed=0):
    """Labels and the scores of two models, with ties."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(-1, 1.5, rows)
    labels = (generator.random(rows) < 1 / (1 + np.exp(-logit))).astype("float32")
    noisy = (logit + generator.normal(0, noise, rows) for noise in (0.5, 1.0))
    old, new = (np.round(1 / (1 + np.exp(-z)), 2).astype("float32") for z in noisy)
    return labels, old, new


def test_binary_labels_by_scikit_learn():
    labels, old, new = clicks(400)
    found = quality(labels, old, new)
    assert found.labelled == 400
    assert found.positives == labels.sum()
    for version, scores in (("old", old), ("new", new)):
        area, ratio, loss = (
            getattr(pair, version)
            for pair in (found.auc, found.calibration, found.log_loss)
        )
        assert area == pytest.approx(roc_auc_score(labels, scores))
        assert ratio == pytest.approx(scores.sum() / labels.sum())
        clipped = np.clip(scores.astype("f8"), 1e-7, 1 - 1e-7)
        assert loss == pytest.approx(log_loss(labels, clipped))
    assert found.rmse == UNDEFINED
    assert found.loss is found.log_loss


def test_error_of_the_change_of_auc_is_that_of_many_samples():
    found = [quality(*clicks(400, seed)) for seed in range(300)]
    spread = np.std([one.auc.change for one in found])
    told = np.mean([one.auc_error for one in found])
    assert told == pytest.approx(spread, rel=0.15)


def test_error_of_the_change_of_auc_pair_by_pair():
    labels, old, new = clicks(60)
    wins = [
        (s[labels == 1][:, None] > s[labels == 0])
        + (s[labels == 1][:, None] == s[labels == 0]) / 2
        for s in (old, new)
    ]
    change = wins[1] - wins[0]
    variance = sum(
        np.var(change.mean(axis=axis), ddof=1) / change.shape[1 - axis]
        for axis in (0, 1)
    )
    assert quality(labels, old, new).auc_error == pytest.approx(np.sqrt(variance))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label):
    labels, old, new = np.full(3, label), np.array([0.1, 0.2, 0.9]), np.full(3, 0.5)
    found = quality(labels, old, new)
    assert found.auc == UNDEFINED
    assert found.auc_error is None
    assert found.positives == 3 * label
    assert (found.calibration == UNDEFINED) == (label == 0)
    assert found.log_loss.new == pytest.approx(np.log(2))


def test_one_positive_has_no_error():
    found = quality(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.9]), np.full(3, 0.5))
    assert found.auc == Pair(1.0, 0.5)
    assert found.auc_error is None


def test_constant_scores():
    labels = np.array([0, 1, 1, 0])
    found = quality(labels, np.full(4, 0.5), np.full(4, 0.25))
    assert found.auc == Pair(0.5, 0.5)
    assert found.auc_error == 0
    assert found.calibration == Pair(1.0, 0.5)


def test_numbers():
    labels = np.array([0.0, 3.0, 5.0])
    old, new = np.array([0.0, 3.0, 1.0]), np.array([1.0, 4.0, 6.0])
    found = quality(labels, old, new)
    assert found.rmse == Pair(pytest.approx(np.sqrt(16 / 3)), pytest.approx(1.0))
    assert found.calibration == Pair(0.5, 11 / 8)
    assert found.loss is found.rmse
    assert found.positives is None
    assert found.auc == found.log_loss == UNDEFINED


def test_negative_numbers_have_no_calibration():
    labels, scores = np.array([-2.0, 3.0]), np.array([1.0, 2.0])
    assert quality(labels, scores, scores).calibration == UNDEFINED
    assert quality(labels + 2, -scores, scores).calibration == UNDEFINED


def test_scores_that_are_no_probabilities_have_an_auc_only():
    labels = np.array([0, 1, 1, 0])
    found = quality(labels, np.array([-3.0, 4.0, 1.0, 2.0]), np.full(4, 0.5))
    assert found.auc == Pair(0.75, 0.5)
    assert found.calibration == found.log_loss == found.rmse == UNDEFINED
    assert found.loss == UNDEFINED
