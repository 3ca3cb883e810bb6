"""Gradient surgery and loss weighting against their twins in NumPy."""

import keras
import numpy as np
import pytest
import twins_balancing as twins

from tfmtl import balancing

TASKS = [2, 3, 4, 6, 16]
KINDS = [
    "random",
    "agreeing",
    "conflicting",
    "small",
    "large",
    "unlike",
    "one zero",
    "identical",
    "opposite",
    "dependent",
]
each_size = pytest.mark.parametrize("tasks", TASKS)
each_kind = pytest.mark.parametrize("kind", KINDS)


def gradients_of(kind, tasks, seed=0):
    rng = np.random.default_rng([seed, tasks, KINDS.index(kind)])
    g = rng.normal(size=(tasks, tasks + 3))
    if kind == "agreeing":
        g += 2 * rng.normal(size=g.shape[1])
    elif kind == "conflicting":
        g -= 0.6 * g.mean(axis=0)
    elif kind == "small":
        g *= 1e-8
    elif kind == "large":
        g *= 1e8
    elif kind == "unlike":
        g *= 10 ** rng.uniform(-2, 2, (tasks, 1))
    elif kind == "one zero":
        g[0] = 0
    elif kind == "identical":
        g[:] = g[0]
    elif kind == "opposite":
        g[-1] = -2 * g[0]
    elif kind == "dependent":
        g = g[:, : tasks // 2 + 1] + 2 * rng.normal(size=tasks // 2 + 1)
    return g


def update_of(method, gradients, state=None, seed=None):
    """The update in float64, and the next state."""
    gram = keras.ops.convert_to_tensor(gradients @ gradients.T)
    weights, state = method.weights(gram, state, seed)
    weights = keras.ops.convert_to_numpy(weights)
    assert weights.dtype == "float64"
    return weights @ gradients, state


def assert_close(update, expected, gradients):
    """Within 1e-5 of the update, or 1e-8 of the gradients where they cancel."""
    scale = np.linalg.norm(gradients, axis=1).max()
    error = np.linalg.norm(update - expected)
    assert error <= 1e-5 * np.linalg.norm(expected) + 1e-8 * scale


@each_size
@each_kind
@pytest.mark.parametrize(
    "name", ["EqualWeights", "AlignedMTL", "IMTLG", "MGDA", "UPGrad"]
)
def test_update(name, kind, tasks):
    twin = {
        "EqualWeights": twins.equal,
        "AlignedMTL": twins.aligned_mtl,
        "IMTLG": twins.imtl_g,
        "MGDA": twins.mgda,
        "UPGrad": twins.up_grad,
    }[name]
    if name == "MGDA" and tasks > 6:
        pytest.skip("the twin goes through all faces of the hull")
    gradients = gradients_of(kind, tasks)
    update, _ = update_of(getattr(balancing, name)(), gradients)
    assert_close(update, twin(gradients), gradients)


@each_size
@each_kind
def test_nash_mtl(kind, tasks):
    if kind == "opposite":
        pytest.skip("has no solution")
    gradients = gradients_of(kind, tasks)
    update, _ = update_of(balancing.NashMTL(), gradients)
    assert_close(update, twins.nash_mtl(gradients), gradients)


@each_size
@each_kind
@pytest.mark.parametrize("c", [0.0, 0.5, 1.5])
def test_ca_grad_reaches_the_bound(c, kind, tasks):
    gradients = gradients_of(kind, tasks)
    update, _ = update_of(balancing.CAGrad(c), gradients)
    gradients = twins.present(gradients)
    update, mean = update * (1 + c) / len(gradients), gradients.mean(axis=0)
    away, radius = np.linalg.norm(update - mean), c * np.linalg.norm(mean)
    assert away <= radius * (1 + 1e-9) + 1e-12 * np.abs(gradients).max()
    scale = np.abs(gradients @ mean).max()
    off = (gradients @ update).min() - twins.ca_grad_value(gradients, c)
    assert abs(off) <= (2e-5 if kind == "opposite" else 1e-6) * scale


@each_size
@each_kind
def test_pc_grad(kind, tasks):
    for seed in range(3):
        gradients = gradients_of(kind, tasks, seed)
        orders = keras.ops.convert_to_numpy(balancing.random_orders(tasks, seed))
        update, _ = update_of(balancing.PCGrad(), gradients, seed=seed)
        live = gradients.any(axis=1)
        orders = [[j for j in order if live[j]] for order in orders]
        assert_close(update, twins.pc_grad(gradients, orders), gradients)


@each_size
@each_kind
def test_grad_vac(kind, tasks):
    method, targets = balancing.GradVac(decay=0.3), np.zeros((tasks, tasks))
    state = method.initial_state(tasks, "float64")
    for step in range(5):
        gradients = gradients_of(kind, tasks, step)
        if kind == "opposite":
            gradients[-1] += 1e-3 * gradients[1] + 1e-3
        orders = keras.ops.convert_to_numpy(balancing.random_orders(tasks, step))
        update, state = update_of(method, gradients, state, step)
        expected, targets = twins.grad_vac(gradients, orders, targets, 0.3)
        assert_close(update, expected, gradients)
        np.testing.assert_allclose(state["targets"], targets, rtol=1e-5, atol=1e-9)


def losses_of(step, tasks):
    """Losses that fall, of which one in ten is not there; and those after the step."""
    rng = np.random.default_rng([step, tasks])
    losses = np.exp(rng.normal(size=tasks) - 0.01 * step * np.arange(tasks))
    losses[rng.random(tasks) < 0.1] = 0
    losses[-1] = 1.0
    gradients = rng.normal(size=(tasks, 5)) * (losses > 0)[:, None]
    return losses, gradients @ gradients.T, losses * rng.uniform(0.9, 1.05, tasks)


@pytest.mark.parametrize("tasks", [2, 3, 8])
@pytest.mark.parametrize("name", ["UncertaintyWeighting", "DWA", "GradNorm", "FAMO"])
def test_loss_weighting(name, tasks):
    regression = [k % 2 == 1 for k in range(tasks)]
    rule, twin = {
        "UncertaintyWeighting": (
            balancing.UncertaintyWeighting(regression, 0.01),
            twins.Uncertainty(tasks, regression, 0.01),
        ),
        "DWA": (balancing.DWA(1.5), twins.DWA(tasks, 1.5)),
        "GradNorm": (balancing.GradNorm(0.7, 0.03), twins.GradNorm(tasks, 0.7, 0.03)),
        "FAMO": (balancing.FAMO(0.02, 0.1), twins.FAMO(tasks, 0.02, 0.1)),
    }[name]
    state = rule.initial_state(tasks, "float64")
    for step in range(60):
        arrays = losses_of(step, tasks)
        losses, gram, after = map(keras.ops.convert_to_tensor, arrays)
        weights = keras.ops.convert_to_numpy(rule.weights(state, losses))
        np.testing.assert_allclose(weights, twin.weights(arrays[0]), rtol=1e-5)
        state = rule.update(state, losses, gram, after)
        twin.update(*arrays)
        if step % 20 == 19:
            state = rule.epoch_end(state)
            if rule.needs_epochs:
                twin.epoch_end()
