"""Tasks: heads, losses, weights, refusals."""

import keras
import numpy as np
import pytest

from tfmtl.tasks import Binary, Regression, compile_arguments


def test_arguments_by_task_name():
    arguments = compile_arguments([Binary("a", weight=2.0), Regression("b")])
    assert arguments["loss_weights"] == {"a": 2.0, "b": 1.0}
    assert isinstance(arguments["loss"]["a"], keras.losses.BinaryCrossentropy)
    assert isinstance(arguments["loss"]["b"], keras.losses.MeanSquaredError)
    names = {
        task: [metric.name for metric in metrics]
        for task, metrics in arguments["metrics"].items()
    }
    assert names == {"a": ["auc"], "b": ["rmse"]}


@pytest.mark.parametrize("task", [Binary("a"), Regression("a")])
def test_loss_is_a_mean_over_examples(task):
    y, p = np.array([[1.0], [0.0], [1.0]]), np.array([[0.9], [0.4], [0.3]])
    once = float(task.loss()(y, p))
    twice = float(task.loss()(np.tile(y, (2, 1)), np.tile(p, (2, 1))))
    np.testing.assert_allclose(twice, once, rtol=1e-6)


def test_losses_and_metrics_are_new_each_time():
    task = Binary("a")
    assert task.metrics()[0] is not task.metrics()[0]
    assert task.loss() is not task.loss()


@pytest.mark.parametrize("names", [[], ["a", "b", "a"]])
def test_none_or_twice(names):
    with pytest.raises(ValueError) as error:
        compile_arguments([Binary(name) for name in names])
    assert str(error.value) == (
        f"`tasks` should be one or more tasks of different names. Received: "
        f"names={names}"
    )
