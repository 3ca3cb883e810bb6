"""Gradient surgery and loss weighting against their twins in NumPy."""

import keras
import numpy as np
import pytest
import twins_balancing as twins

from tfmtl import balancing
from tfmtl.balancing import grad_vac, solvers

TASKS = [2, 3, 4, 6, 16]
KINDS = [
    "random",
    "agreeing",
    "conflicting",
    "small",
    "large",
    "unlike",
    "most unlike",
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
        g *= 10 ** rng.uniform(-4, 4, (tasks, 1))
    elif kind == "most unlike":
        g *= 10 ** rng.uniform(-8, 8, (tasks, 1))
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


def assert_close(update, expected, gradients, floor=1e-8):
    """Within 1e-5 of the update, or `floor` of the gradients where they cancel."""
    scale = np.linalg.norm(gradients, axis=1).max()
    error = np.linalg.norm(update - expected)
    assert error <= 1e-5 * np.linalg.norm(expected) + floor * scale


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
    singular = name == "IMTLG" and kind in ("dependent", "opposite")  # has a ridge
    assert_close(update, twin(gradients), gradients, 1e-6 if singular else 1e-8)


@each_size
@each_kind
def test_mgda_is_nearest_to_0_of_the_hull(kind, tasks):
    """For all of it lies beyond the plane through d at right angles to d."""
    gradients = gradients_of(kind, tasks)
    update, _ = update_of(balancing.MGDA(), gradients)
    gram = keras.ops.convert_to_tensor(gradients @ gradients.T)
    weights = keras.ops.convert_to_numpy(balancing.MGDA().weights(gram)[0])
    gradients = twins.present(gradients)
    d = update / len(gradients)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(len(gradients), rel=1e-9)
    largest = (gradients**2).sum(axis=1).max()
    assert (gradients @ d).min() >= (1 - 1e-5) * d @ d - 1e-9 * largest


@each_size
@pytest.mark.parametrize("widest", [2, 4, 6])
def test_aligned_mtl_of_scales_apart(widest, tasks):
    """Within 1e-5 of the update, which is as small as the smallest of them."""
    rng = np.random.default_rng([tasks, widest])
    gradients = rng.normal(size=(tasks, tasks + 3))
    gradients *= 10 ** rng.uniform(-widest, widest, (tasks, 1))
    update, _ = update_of(balancing.AlignedMTL(), gradients)
    assert_close(update, twins.aligned_mtl(gradients), gradients, floor=0.0)


@each_size
def test_aligned_mtl_of_nearly_equal_gradients(tasks):
    """Right down to the rounding of gradients in float32; below, as of equal ones."""
    rng = np.random.default_rng(tasks)
    one, apart = rng.normal(size=tasks + 3), rng.normal(size=(tasks, tasks + 3))
    for distance in (1e-2, 1e-3, 1e-4):
        gradients = one + distance * apart
        update, _ = update_of(balancing.AlignedMTL(), gradients)
        expected = twins.aligned_mtl(gradients)
        error = np.linalg.norm(update - expected)
        assert error <= 1e-5 * np.linalg.norm(expected)
    update, _ = update_of(balancing.AlignedMTL(), one + 1e-7 * apart)
    np.testing.assert_allclose(update, tasks * one, rtol=1e-5, atol=1e-5)


@each_size
def test_nash_mtl_of_opposite_gradients_is_that_of_the_nearest_that_are_not(tasks):
    gradients = gradients_of("opposite", tasks)
    gram = gradients @ gradients.T
    weights, _ = balancing.NashMTL(40).weights(keras.ops.convert_to_tensor(gram))
    units = twins.unit(gradients)
    cosines = units @ units.T + solvers.ridge("float64") * np.eye(tasks)
    lengths = np.linalg.norm(gradients, axis=1) / np.sqrt(np.linalg.norm(gram))
    y = keras.ops.convert_to_numpy(weights) * lengths
    assert y.min() > 0
    np.testing.assert_allclose(cosines @ y * y, 1, rtol=1e-5)


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


@each_size
def test_grad_vac_of_opposite_gradients(tasks, monkeypatch):
    """Which meet last: one that met its opposite is 0 and at no angle to a third."""
    others = [[*range(i), *range(i + 1, tasks)] for i in range(tasks)]
    others[-1] = others[-1][::-1]
    orders = keras.ops.convert_to_tensor(others)
    monkeypatch.setattr(grad_vac, "random_orders", lambda tasks, seed: orders)
    method, targets = balancing.GradVac(decay=0.3), np.zeros((tasks, tasks))
    state = method.initial_state(tasks, "float64")
    for step in range(5):
        gradients = gradients_of("opposite", tasks, step)
        update, state = update_of(method, gradients, state)
        expected, targets = twins.grad_vac(gradients, others, targets, 0.3)
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
