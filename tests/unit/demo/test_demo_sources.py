"""Training rows that are held out to choose settings on."""

from dataclasses import replace

import numpy as np
import pytest

from tfmtl import demo


def source(days=None):
    """Ten rows, numbered."""
    rows = {"x": np.arange(10.0)[:, None], "user": np.arange(10)[:, None] // 4}
    labels = {"task_1": np.arange(10.0)[:, None] % 2}
    made = demo.synthetic(10)
    return replace(made, train=(rows, labels), lists="user", days=days)


def numbers(rows):
    features, labels = rows
    found = features["x"][:, 0]
    np.testing.assert_array_equal(labels["task_1"][:, 0], found % 2)
    return found.tolist()


def test_any_rows_without_days():
    held_out = demo.held_out(source(), 0.3)
    train, test = numbers(held_out.train), numbers(held_out.test)
    assert len(test) == 3 and sorted(train + test) == list(range(10))
    assert numbers(demo.held_out(source(), 0.3).test) == test
    assert numbers(demo.held_out(source(), 0.3, seed=1).test) != test


@pytest.mark.parametrize("share, first", [(1e-9, 9), (0.1, 9), (0.2, 6), (0.4, 6)])
def test_the_last_days(share, first):
    days = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3, 4])
    held_out = demo.held_out(source(days), share)
    assert numbers(held_out.train) == list(range(first))
    assert numbers(held_out.test) == list(range(first, 10))
    assert held_out.days.tolist() == days[:first].tolist()


def test_quality_within_the_lists_of_the_held_out_rows():
    held_out = demo.held_out(source(np.arange(10)), 0.4)
    scores = {"task_1": np.array([[0.1], [0.9], [0.2], [0.1]])}
    found = demo.quality(scores, held_out)["task_1"]
    assert (found.auc, found.group_auc) == (0.625, 0.5)


def test_no_day_is_left():
    with pytest.raises(ValueError) as error:
        demo.held_out(source(np.ones(10, int)), 0.1)
    assert str(error.value) == (
        "`share` should leave a day to train on. Received: share=0.1 of days=[1]"
    )
