"""Losses of towers that are far off: finite, with the exact gradient, in a graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import layers, models
from tfmtl.tasks import (
    Binary,
    Count,
    LogNormal,
    MultiClass,
    MultiLabel,
    Ordinal,
    WeightedLogistic,
)

FAR = np.array([-1e4, -50.0, 0.0, 50.0, 1e4], "f4")
WITHIN = np.array([-30.0, -12.0, 0.0, 12.0, 30.0], "f4")


def sigmoid(x):
    return np.exp(-softplus(-np.asarray(x, "f8")))


def softplus(x):
    return np.logaddexp(0, np.asarray(x, "f8"))


def heads(tasks):
    """A model that is fed with what its towers would compute."""
    inputs, outputs = {}, {}
    for task in tasks:
        raw = keras.Input((task.output_units,), name=f"raw_{task.name}")
        p = layers.Tower(
            (),
            task.output_units,
            head_activation=task.head_activation,
            kernel_initializer=keras.initializers.Constant(
                np.eye(task.output_units).tolist()
            ),
            name=f"{task.name}_tower",
        )(raw)
        if task.after is not None:
            joint = layers.JointProbability(name=f"{task.name}_joint")
            p = joint([outputs[task.after], p])
        inputs[raw.name], outputs[task.name] = raw, p
    model = models.MultiTaskModel(inputs, outputs, tasks=tasks)
    model.compile("sgd", metrics={})
    return model


def loss_and_gradients(model, inputs, labels, jit=False):
    """Of a batch in which each example counts as if it were alone."""

    @tf.function(jit_compile=jit)
    def run(inputs, labels):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs, training=True)
            loss = model.compute_loss(inputs, labels, outputs)
        return loss, tape.gradient(loss, inputs)

    count = len(next(iter(inputs.values())))
    loss, gradients = run(
        {name: tf.constant(x, "float32") for name, x in inputs.items()},
        {name: tf.constant(y, "float32") for name, y in labels.items()},
    )
    return loss.numpy(), {name: count * g.numpy() for name, g in gradients.items()}


def assert_exact(task, raw, labels, losses, gradients, jit=False):
    raw, labels = np.asarray(raw, "f4"), np.asarray(labels, "f4")
    found = loss_and_gradients(heads([task]), {"raw_t": raw}, {"t": labels}, jit)
    np.testing.assert_allclose(found[0], np.mean(losses), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(
        found[1]["raw_t"], np.reshape(gradients, raw.shape), rtol=2e-6, atol=1e-7
    )


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "XLA"])
class TestFarOff:
    @pytest.mark.parametrize("y", [0, 1])
    def test_binary(self, y, jit):
        losses = softplus(FAR) - y * FAR
        labels = np.full((5, 1), y)
        assert_exact(Binary("t"), FAR[:, None], labels, losses, sigmoid(FAR) - y, jit)

    def test_multi_label(self, jit):
        raw = np.stack([FAR, FAR[::-1]], axis=1)
        y = np.array([[0, 1]] * 5)
        losses, gradients = softplus(raw) - y * raw, (sigmoid(raw) - y) / 2
        assert_exact(MultiLabel("t"), raw, y, losses, gradients, jit)

    @pytest.mark.parametrize("y", [0, 1, 2])
    def test_multi_class(self, y, jit):
        raw = np.stack([FAR, np.zeros(5), FAR[::-1]], axis=1)
        logs = raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)
        gradients = np.exp(logs) - np.eye(3)[y]
        labels = np.full((5, 1), y)
        task = MultiClass("t", num_classes=3)
        assert_exact(task, raw, labels, -logs[:, y], gradients, jit)

    @pytest.mark.parametrize("y", [0, 1, 2])
    def test_ordinal(self, y, jit):
        first, second = (x.ravel() for x in np.meshgrid(FAR, FAR))
        logits = np.stack([first, first - softplus(second)])
        exceeds = np.array([[y > 0], [y > 1]])
        losses = (softplus(logits) - exceeds * logits).mean(axis=0)
        errors = (sigmoid(logits) - exceeds) / 2
        gradients = np.stack([errors.sum(axis=0), -errors[1] * sigmoid(second)], axis=1)
        raw, labels = np.stack([first, second], axis=1), np.full((25, 1), y)
        assert_exact(Ordinal("t", num_levels=3), raw, labels, losses, gradients, jit)

    @pytest.mark.parametrize("y", [0, 1])
    def test_product_of_a_funnel(self, y, jit):
        raw = dict(zip("abt", np.meshgrid(FAR, FAR, FAR), strict=True))
        a, b, t = (raw[name].ravel().astype("f8") for name in raw)
        terms = [-a, -b, -t, -a - b, -a - t, -b - t, -a - b - t]
        logit = -np.logaddexp.reduce(terms)  # 1/p - 1 is the sum of their exponentials
        tasks = [Binary("a"), Binary("b", after="a"), Binary("t", after="b")]
        inputs = {f"raw_{name}": x.reshape(-1, 1) for name, x in raw.items()}
        found = loss_and_gradients(heads(tasks), inputs, {"t": np.full(125, y)}, jit)
        losses = softplus(logit) - y * logit
        np.testing.assert_allclose(found[0], losses.mean(), rtol=2e-6, atol=1e-7)
        for name, x in zip("abt", (a, b, t), strict=True):
            slope = np.exp(softplus(logit) - softplus(x))  # sigmoid(-x) / (1 - p)
            got, expected = found[1][f"raw_{name}"][:, 0], (sigmoid(logit) - y) * slope
            # a logit of 1e4 is exact to 1e-3 in float32
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-7)

    @pytest.mark.parametrize("y", [0.0, 7.5])
    def test_log_normal(self, y, jit):
        errors = softplus(WITHIN) - 0.5**2 / 2 - np.log1p(y)
        gradients = errors / 0.5**2 * sigmoid(WITHIN)
        losses, labels = errors**2 / (2 * 0.5**2), np.full((5, 1), y)
        task = LogNormal("t", sigma=0.5)
        assert_exact(task, WITHIN[:, None], labels, losses, gradients, jit)

    @pytest.mark.parametrize("y", [0.0, 7.5])
    def test_weighted_logistic(self, y, jit):
        losses = y * softplus(-WITHIN) if y else softplus(WITHIN)
        gradients = -y * sigmoid(-WITHIN) if y else sigmoid(WITHIN)
        labels = np.full((5, 1), y)
        task = WeightedLogistic("t")
        assert_exact(task, WITHIN[:, None], labels, losses, gradients, jit)

    @pytest.mark.parametrize("y", [0, 7])
    def test_count(self, y, jit):
        means = np.exp(WITHIN.astype("f8"))
        losses, labels = means - y * WITHIN, np.full((5, 1), y)
        assert_exact(Count("t"), WITHIN[:, None], labels, losses, means - y, jit)


@pytest.mark.parametrize("kind", [LogNormal, WeightedLogistic, Count])
@pytest.mark.parametrize("y", [0.0, 7.0])
def test_positive_beyond_its_limits(kind, y):
    raw, labels = FAR[[0, 1, 3, 4], None], np.full((4, 1), y)
    loss, gradients = loss_and_gradients(
        heads([kind("t")]), {"raw_t": raw}, {"t": labels}
    )
    assert np.isfinite(loss)
    assert (gradients["raw_t"] == 0).all()


@pytest.mark.parametrize("kind", [Binary, LogNormal, WeightedLogistic, Count])
@pytest.mark.parametrize("far", [-1e4, -50.0, 50.0, 1e4])
def test_far_off_example_without_label(kind, far):
    raw, labels = np.array([[far], [0.5]], "f4"), np.array([[np.nan], [1.0]], "f4")
    model = heads([kind("t")])
    loss, gradients = loss_and_gradients(model, {"raw_t": raw}, {"t": labels})
    alone = loss_and_gradients(model, {"raw_t": raw[1:]}, {"t": labels[1:]})
    np.testing.assert_allclose(loss, alone[0], rtol=1e-6)
    assert gradients["raw_t"][0] == 0
