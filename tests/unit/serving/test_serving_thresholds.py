"""Thresholds: each refuses with its text, meets what is allowed, can be off."""

from dataclasses import fields, replace

import pytest

from tfmtl.serving.pair import UNDEFINED, Pair
from tfmtl.serving.quality import Quality
from tfmtl.serving.score_drift import Drift
from tfmtl.serving.thresholds import Thresholds

SAME = Pair(0.7488, 0.7488)
DRIFT = Drift(Pair(0.04, 0.04), 0.001, 0.02, 0.01, 0.99)
QUALITY = Quality(1000, 40, SAME, 0.0011, Pair(1.0, 1.0), Pair(0.2, 0.2), UNDEFINED)
OFF = Thresholds(**{field.name: None for field in fields(Thresholds)})

CASES = {
    "max_auc_loss": (
        {"auc": Pair(0.7488, 0.7431)},
        "AUC 0.7431, 0.0057 below the old 0.7488 (standard error 0.0011); "
        "allowed is 0.0020",
        0.006,
    ),
    "max_calibration_loss": (
        {"calibration": Pair(1.055, 0.8)},
        "calibration 0.800, 0.145 further from 1 than the old 1.055; allowed is 0.050",
        0.15,
    ),
    "max_loss_increase": (
        {"log_loss": Pair(0.2, 0.21)},
        "log loss 0.2100, 5.0% above the old 0.2000; allowed is 2.0%",
        0.06,
    ),
    "max_psi": (
        {"psi": 0.312},
        "PSI of the scores 0.312; allowed is 0.250",
        0.32,
    ),
    "min_rank_correlation": (
        {"rank_correlation": 0.71},
        "rank correlation with the old scores 0.7100; asked is 0.8000",
        0.7,
    ),
}


def failures(thresholds, **changed):
    """What thresholds say of an unchanged version but for what is given."""
    drift = {name: value for name, value in changed.items() if name in vars(DRIFT)}
    rest = {name: value for name, value in changed.items() if name not in drift}
    return list(thresholds.failures(replace(QUALITY, **rest), replace(DRIFT, **drift)))


@pytest.mark.parametrize("name", CASES)
def test_each_refuses_and_can_be_wider_or_off(name):
    changed, text, wider = CASES[name]
    assert failures(Thresholds(), **changed) == [text]
    assert failures(replace(OFF, **{name: getattr(Thresholds(), name)}), **changed) == [
        text
    ]
    for limit in (wider, None):
        assert failures(Thresholds(**{name: limit}), **changed) == []


def test_what_is_off_unless_asked_for():
    assert failures(Thresholds(), max_difference=0.5) == []
    assert failures(Thresholds(max_score_change=0.25), max_difference=0.5) == [
        "a score changed by 0.5; allowed is 0.25"
    ]
    old_was_worse = {"calibration": Pair(1.5, 1.31)}
    assert failures(Thresholds(), **old_was_worse) == []
    assert failures(Thresholds(calibration=(0.9, 1.1)), **old_was_worse) == [
        "calibration 1.310; allowed is 0.900 to 1.100"
    ]
    assert failures(Thresholds(calibration=(1.31, 1.31)), **old_was_worse) == []


def test_numbers_have_an_rmse():
    numbers = {"positives": None, "auc": UNDEFINED, "log_loss": UNDEFINED}
    found = failures(Thresholds(), rmse=Pair(2.0, 2.5), **numbers)
    assert found == ["RMSE 2.5000, 25.0% above the old 2.0000; allowed is 2.0%"]
    [found] = failures(Thresholds(), rmse=Pair(0.0, 2.5), **numbers)
    assert found.startswith("RMSE 2.5000, inf% above the old 0.0000")


def test_better_and_undefined_are_met():
    better = {"auc": Pair(0.7, 0.8), "calibration": Pair(0.5, 1.2)}
    assert failures(Thresholds(), log_loss=Pair(0.3, 0.2), **better) == []
    undefined = dict.fromkeys(("auc", "calibration", "log_loss", "rmse"), UNDEFINED)
    assert failures(Thresholds(calibration=(1, 1)), **undefined) == []
    assert list(Thresholds().failures(None, DRIFT)) == []


def test_a_limit_itself_is_met():
    limits = Thresholds(max_auc_loss=0.25, max_psi=0.5, min_rank_correlation=0.5)
    at = {"auc": Pair(0.75, 0.5), "psi": 0.5, "rank_correlation": 0.5}
    assert failures(limits, **at) == []


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["max_auc_loss", "min_rank_correlation"])
def test_limits_that_are_none_are_refused(name, value):
    message = f"`{name}` should be a number from 0, or None. Received: {name}={value!r}"
    with pytest.raises(ValueError, match=message):
        Thresholds(**{name: value})


@pytest.mark.parametrize("value", [(1.1, 0.9), (0.9,), (-1, 1)])
def test_ranges_that_are_none_are_refused(value):
    with pytest.raises(ValueError, match="the lowest and the highest one. Received"):
        Thresholds(calibration=value)
