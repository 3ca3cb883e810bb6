"""Weights that fall from epoch to epoch."""

import keras
import numpy as np
import pytest

from tfmtl import models
from tfmtl.tasks import Binary, DecayingWeights, Regression

GAMMA = {"a": 0.5, "b": 1.25}
WEIGHTS = {"a": 2.0, "b": 1.0, "c": 3.0}


def compiled(**arguments):
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    tasks = [Binary("a", weight=2.0), Regression("b"), Regression("c", weight=3.0)]
    outputs = {
        task.name: keras.layers.Dense(1, task.head_activation, name=task.name)(x)
        for task in tasks
    }
    model = models.MultiTaskModel({"x": x}, outputs, tasks=tasks)
    model.compile(keras.optimizers.SGD(0.1), metrics={}, **arguments)
    return model


def fit(model, epochs, **arguments):
    generator = np.random.default_rng(0)
    x = {"x": generator.normal(size=(10, 3)).astype("f4")}
    y = {name: generator.integers(0, 2, 10).astype("f4") for name in WEIGHTS}
    given = {"verbose": 0, "batch_size": 10, **arguments}
    return model.fit(x, y, epochs=epochs, **given).history


def weights(model):
    return {name: float(w) for name, w in model.task_weights.items()}


class Watch(keras.callbacks.Callback):
    """Notes the weights that an epoch trains with."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def on_train_batch_end(self, batch, logs=None):
        self.seen[self.model.optimizer.iterations.numpy()] = weights(self.model)


@pytest.mark.parametrize("start", [0, 2])
def test_weights_of_every_epoch(start):
    model, watch = compiled(), Watch()
    callbacks = [DecayingWeights(GAMMA), watch]
    history = fit(model, 5, callbacks=callbacks, initial_epoch=start)
    seen = list(watch.seen.values())
    assert len(seen) == 5 - start
    for epoch, found in enumerate(seen, start):
        expected = {"a": 2 * 0.5**epoch, "b": 1.25**epoch, "c": 3.0}
        assert found == pytest.approx(expected, rel=1e-6)
        k = epoch - start
        total = sum(found[name] * history[f"{name}_loss"][k] for name in found)
        np.testing.assert_allclose(history["loss"][k], total, rtol=1e-5)
    assert weights(model) == WEIGHTS


def test_training_in_two_parts_is_training_at_once():
    at_once, in_two = compiled(), compiled()
    expected = fit(at_once, 4, callbacks=[DecayingWeights(GAMMA)])["loss"]
    first = fit(in_two, 2, callbacks=[DecayingWeights(GAMMA)])["loss"]
    arguments = {"callbacks": [DecayingWeights(GAMMA)], "initial_epoch": 2}
    rest = fit(in_two, 4, **arguments)["loss"]
    np.testing.assert_allclose(first + rest, expected, rtol=1e-6)
    plain = fit(compiled(), 4)["loss"]
    assert plain[0] == pytest.approx(expected[0], rel=1e-6)
    assert abs(plain[-1] - expected[-1]) > 0.1


def test_start_is_the_weight_of_compile():
    model, watch = compiled(loss_weights={"a": 8.0}), Watch()
    fit(model, 2, callbacks=[DecayingWeights(GAMMA), watch])
    assert [seen["a"] for seen in watch.seen.values()] == [8.0, 4.0]
    assert weights(model) == {**WEIGHTS, "a": 8.0}


def test_start_after_an_interrupt():
    model = compiled(loss_weights={"a": 8.0})

    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, 2, callbacks=[DecayingWeights(GAMMA), stop], initial_epoch=1)
    assert weights(model)["a"] == 4.0  # as the interrupt left it
    watch = Watch()
    fit(model, 2, callbacks=[DecayingWeights(GAMMA), watch])
    assert [seen["a"] for seen in watch.seen.values()] == [8.0, 4.0]
    assert weights(model) == {**WEIGHTS, "a": 8.0}


def message(function, *arguments, **named):
    with pytest.raises(ValueError) as error:
        function(*arguments, **named)
    return str(error.value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_factor_not_above_0(value):
    assert message(DecayingWeights, {"a": value}) == (
        f"`gamma` should be factors above 0. Received: gamma={{'a': {value}}}"
    )


def test_task_that_the_model_lacks():
    decay = DecayingWeights({"a": 0.5, "d": 0.5})
    assert message(fit, compiled(), 1, callbacks=[decay]) == (
        "`gamma` should be for tasks of the model, ['a', 'b', 'c']. "
        "Received: ['a', 'd']"
    )


def test_model_with_losses_of_one_s_own():
    model = compiled()
    model.compile("sgd", {name: "mse" for name in WEIGHTS})
    decay = DecayingWeights({"a": 0.5})
    assert message(fit, model, 1, callbacks=[decay]) == (
        "`gamma` should be for tasks of the model, []. Received: ['a']"
    )
