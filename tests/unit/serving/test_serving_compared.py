"""Outputs of one column and of several: labels of their own, classes, levels."""

import numpy as np
import pytest

from tfmtl.serving.compared import compare_columns
from tfmtl.serving.quality import quality
from tfmtl.serving.score_drift import drift

GENERATOR = np.random.default_rng(0)
OLD, NEW = GENERATOR.random((2, 200, 3)).astype("float32")


def test_one_column_has_the_outputs_name():
    labels = np.where(OLD[:, :1] > 0.9, np.nan, OLD[:, 1:2] > 0.5)
    found = compare_columns("y", OLD[:, :1], NEW[:, :1], labels, False)
    assert list(found) == ["y"]
    known = ~np.isnan(labels[:, 0])
    assert found["y"].quality == quality(labels[known, 0], OLD[known, 0], NEW[known, 0])
    assert found["y"].drift == drift(OLD[:, 0], NEW[:, 0])


@pytest.mark.parametrize("classes", [True, False])
def test_labels_of_their_own(classes):
    labels = np.where(OLD > 0.9, np.nan, NEW > 0.5)
    found = compare_columns("y", OLD, NEW, labels, classes)
    assert list(found) == ["y[0]", "y[1]", "y[2]"]
    for k, compared in enumerate(found.values()):
        known = ~np.isnan(labels[:, k])
        expected = quality(labels[known, k], OLD[known, k], NEW[known, k])
        assert compared.quality == expected
        assert compared.drift == drift(OLD[:, k], NEW[:, k])


@pytest.mark.parametrize("classes", [True, False])
def test_a_label_of_all_columns(classes):
    one = np.arange(200.0) % (3 if classes else 4)
    labels = np.where(np.arange(200) % 5, one, np.nan)[:, None]
    found = compare_columns("y", OLD, NEW, labels, classes)
    for k, compared in enumerate(found.values()):
        own = labels == k if classes else labels > k
        own = np.where(np.isnan(labels), np.nan, own)
        [expected] = compare_columns(
            "y", OLD[:, [k]], NEW[:, [k]], own, classes
        ).values()
        assert compared == expected
        assert compared.quality.labelled == 160


@pytest.mark.parametrize(("classes", "last"), [(True, 2), (False, 3)])
@pytest.mark.parametrize("label", [4, -1, 0.5])
def test_labels_that_are_no_class_and_no_level(classes, last, label):
    labels = np.full((200, 1), np.nan)
    labels[7] = label
    message = f"'y' should be 0 to {last}, or one for each of .* Received: {label}"
    with pytest.raises(ValueError, match=message):
        compare_columns("y", OLD, NEW, labels, classes)


def test_labels_of_another_width():
    message = r"in one column, or in the output's 3. Received: shape=\(200, 2\)"
    with pytest.raises(ValueError, match=message):
        compare_columns("y", OLD, NEW, OLD[:, :2], False)
    with pytest.raises(ValueError, match="in one column, or in the output's 1."):
        compare_columns("y", OLD[:, :1], NEW[:, :1], OLD[:, :2], False)
