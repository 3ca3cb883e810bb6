"""The multi-task gain."""

import numpy as np
import pytest

from tfmtl.metrics import multi_task_gain


def test_equals_the_formula():
    generator = np.random.default_rng(0)
    tasks = [f"task {k}" for k in range(6)]
    multi, single = generator.random((2, 6)) + 0.1
    lower = np.array([0, 1, 0, 0, 1, 1])
    gain = multi_task_gain(
        dict(zip(tasks, multi, strict=True)),
        dict(zip(tasks[::-1], single[::-1], strict=True)),
        lower_is_better={task for task, low in zip(tasks, lower, strict=True) if low},
    )
    expected = (-1.0) ** lower * (multi - single) / single
    assert list(gain.by_task) == tasks
    np.testing.assert_allclose(list(gain.by_task.values()), expected)
    np.testing.assert_allclose(gain.mean, expected.mean())


def test_same_models_gain_nothing():
    assert multi_task_gain({"a": 0.7}, {"a": 0.7}) == ({"a": 0.0}, 0.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ({"a": 1, "b": 1}, {"b": 1, "c": 1}),
            "`multi` and `single` should hold the same tasks, one or more. "
            "Received: multi=['a', 'b'], single=['b', 'c']",
        ),
        (
            ({}, {}),
            "`multi` and `single` should hold the same tasks, one or more. "
            "Received: multi=[], single=[]",
        ),
        (
            ({"a": 1}, {"a": 1}, ["b"]),
            "`lower_is_better` should hold tasks of ['a']. "
            "Received: lower_is_better=['b']",
        ),
        (
            ({"a": 1}, {"a": 1}, "a"),
            "`lower_is_better` should hold tasks of ['a']. "
            "Received: lower_is_better='a'",
        ),
        (
            ({"a": 1, "b": 1}, {"a": 0.0, "b": 2}),
            "`single` should be above 0. Received: {'a': 0.0}",
        ),
        (
            ({"a": 1}, {"a": float("nan")}),
            "`single` should be above 0. Received: {'a': nan}",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        multi_task_gain(*arguments)
    assert str(error.value) == message
