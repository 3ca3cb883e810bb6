"""What rules of loss weighting promise, each alone and all alike."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing

RULES = [
    balancing.StaticWeights(),
    balancing.UncertaintyWeighting(),
    balancing.DWA(),
    balancing.GradNorm(),
    balancing.FAMO(),
    balancing.RandomWeighting(),
]


def name_of(rule):
    return type(rule).__name__


each_rule = pytest.mark.parametrize("rule", RULES, ids=name_of)


def tensor(values, dtype="float32"):
    return keras.ops.convert_to_tensor(np.asarray(values, dtype))


def step(rule, state, losses, gram=None, after=None):
    losses = np.asarray(losses)
    gram = np.diag(np.ones(len(losses))) if gram is None else gram
    after = 0.9 * losses if after is None else after
    return rule.update(state, tensor(losses), tensor(gram), tensor(after))


def many_steps(rule, state, losses, gram, steps):
    """As many equal steps, compiled."""
    update = tf.function(rule.update)
    for _ in range(steps):
        state = update(state, tensor(losses), tensor(gram))
    return state


def weights_of(rule, state, losses, seed=0):
    return keras.ops.convert_to_numpy(rule.weights(state, tensor(losses), seed))


def unread(rule, losses, gram, after):
    """The arguments of `update` that the rule says it needs, and no other."""
    return (
        losses,
        gram if rule.needs_gram else None,
        after if rule.needs_losses_after else None,
    )


@each_rule
@pytest.mark.parametrize("tasks", [1, 2, 8])
def test_like_tasks_have_weight_one(rule, tasks):
    if name_of(rule) == "RandomWeighting":
        pytest.skip("draws")
    state = rule.initial_state(tasks)
    for _ in range(3):
        weights = weights_of(rule, state, [0.7] * tasks)
        if name_of(rule) != "UncertaintyWeighting":  # whose sum is free
            np.testing.assert_allclose(weights, 1, rtol=1e-6)
        assert np.ptp(weights) < 1e-6
        state = rule.epoch_end(step(rule, state, [0.7] * tasks))


@each_rule
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -1.0])
def test_absent_and_broken_losses_teach_nothing(rule, bad):
    if name_of(rule) == "UncertaintyWeighting" and bad == -1.0:
        pytest.skip("takes losses below 0")
    state = rule.initial_state(3)
    for losses in ([1.0, 2.0, 3.0], [0.5, 2.0, 2.0]):
        state = rule.epoch_end(step(rule, state, losses))
    after = rule.epoch_end(step(rule, state, [0.5, bad, 2.0]))
    for key in state:
        assert np.isfinite(after[key]).all()
        assert after[key][1] == state[key][1]
    after = rule.epoch_end(step(rule, state, [bad] * 3))
    for key in state:
        np.testing.assert_array_equal(after[key], state[key])
    assert np.isfinite(weights_of(rule, state, [0.5, bad, 2.0])).all()


@each_rule
def test_update_reads_what_the_rule_says(rule):
    losses, gram, after = tensor([1.0, 2.0]), tensor(np.eye(2)), tensor([0.9, 1.9])
    state = rule.initial_state(2)
    all_given = rule.update(state, losses, gram, after)
    needed = rule.update(state, *unread(rule, losses, gram, after))
    for key in state:
        np.testing.assert_array_equal(all_given[key], needed[key])
    ends = rule.epoch_end(needed)
    changed = any((ends[key] != needed[key]).numpy().any() for key in state)
    assert changed == rule.needs_epochs


@each_rule
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_is_eager(rule, dtype, jit_compile):
    rng = np.random.default_rng(0)

    def one_step(state, losses, gram, after):
        weights = rule.weights(state, losses, 1)
        return weights, rule.epoch_end(rule.update(state, losses, gram, after))

    compiled = tf.function(one_step, jit_compile=jit_compile)
    state = rule.initial_state(4, dtype)
    for _ in range(4):
        losses = rng.uniform(0.5, 2, 4)
        root = rng.normal(size=(4, 5))
        arrays = (losses, root @ root.T, 0.9 * losses * rng.uniform(0.9, 1, 4))
        arguments = [tensor(array, dtype) for array in arrays]
        weights, after = one_step(state, *arguments)
        compiled_weights, state = compiled(state, *arguments)
        if name_of(rule) != "RandomWeighting":  # XLA draws in its own way
            np.testing.assert_allclose(weights, compiled_weights, rtol=1e-5)
        assert compiled_weights.dtype == dtype and compiled_weights.shape == (4,)
        assert set(state) == set(after)
        for key in state:
            np.testing.assert_allclose(state[key], after[key], rtol=1e-4, atol=1e-7)
            assert state[key].dtype == dtype and state[key].shape == (4,)


def test_uncertainty_ends_where_weighted_losses_are_a_half():
    rule = balancing.UncertaintyWeighting((False, True), learning_rate=0.05)
    losses, state = [0.2, 6.0], rule.initial_state(2)
    assert weights_of(rule, state, losses).tolist() == [1.0, 0.5]
    state = many_steps(rule, state, losses, np.eye(2), 1000)
    np.testing.assert_allclose(weights_of(rule, state, losses) * losses, 0.5, rtol=1e-3)


def test_uncertainty_takes_losses_below_zero():
    rule = balancing.UncertaintyWeighting(learning_rate=0.1)
    state = step(rule, rule.initial_state(2), [-1.0, 1.0])
    assert (weights_of(rule, state, [-1.0, 1.0]) > 0).all()
    assert state["values"][0] < 0 < state["values"][1]


def test_dwa_weighs_the_last_two_epochs():
    rule, state = balancing.DWA(), balancing.DWA().initial_state(2)
    epochs = ([[9.0, 9.0]], [[1.0, 2.0], [3.0, 2.0]], [[1.0, 0.0], [1.0, 1.0]])
    for epoch in epochs:
        for losses in epoch:
            state = step(rule, state, losses)
        state = rule.epoch_end(state)
    powers = np.exp(np.array([1 / 2, 1 / 2]) / 2)
    expected = 2 * powers / powers.sum()
    np.testing.assert_allclose(weights_of(rule, state, [1, 1]), expected, rtol=1e-6)
    np.testing.assert_allclose(state["before"], [2.0, 2.0])
    np.testing.assert_allclose(state["last"], [1.0, 1.0])


def test_grad_norm_makes_gradients_equally_long():
    rule, state = balancing.GradNorm(alpha=0.0), balancing.GradNorm().initial_state(3)
    gram = np.diag([1.0, 4.0, 25.0])
    state = many_steps(rule, state, [1.0, 1.0, 1.0], gram, 800)
    lengths = weights_of(rule, state, [1.0, 1.0, 1.0]) * np.sqrt(np.diag(gram))
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.1)


def test_grad_norm_pulls_the_slow_task():
    rule, state = balancing.GradNorm(), balancing.GradNorm().initial_state(2)
    for losses in ([1.0, 1.0], *[[0.9, 0.5]] * 20):
        state = step(rule, state, losses)
    slow, fast = weights_of(rule, state, [0.9, 0.5])
    assert slow > 1.2 and fast < 0.8


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_grad_norm_knows_no_units(unit):
    rule = balancing.GradNorm()
    found = []
    for factor in (1.0, unit):
        state = rule.initial_state(2)
        for losses in ([1.0, 1.0], [0.9, 0.5], [0.8, 0.4]):
            gram = factor**2 * np.diag([1.0, 3.0])
            state = step(rule, state, factor * np.array(losses), gram)
        found.append(weights_of(rule, state, [1.0, 1.0]))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_famo_moves_weight_to_the_task_that_falls_slowly():
    rule, state = balancing.FAMO(), balancing.FAMO().initial_state(2)
    for _ in range(20):
        state = step(rule, state, [1.0, 1.0], after=[0.99, 0.5])
    slow, fast = weights_of(rule, state, [1.0, 1.0])
    assert slow > 1.2 and slow + fast == pytest.approx(2)


def test_famo_divides_by_the_losses():
    rule = balancing.FAMO()
    weights = weights_of(rule, rule.initial_state(3), [1.0, 2.0, 0.0])
    np.testing.assert_allclose(weights, [4 / 3, 2 / 3, 0], rtol=1e-6)


def test_random_weights_are_fresh_and_one_on_average():
    rule, seed = balancing.RandomWeighting(), keras.random.SeedGenerator(0)
    draws = np.stack([weights_of(rule, {}, [1.0, 1.0, 0.0], seed) for _ in range(500)])
    np.testing.assert_allclose(draws.sum(axis=1), 3, rtol=1e-5)
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.1)
    assert len(np.unique(draws[:, 0])) > 450


@pytest.mark.parametrize(
    "rule",
    [
        *RULES,
        balancing.StaticWeights((1.0, 2.0)),
        balancing.UncertaintyWeighting((True, False), 0.1),
        balancing.DWA(3.0),
        balancing.GradNorm(0.5, 0.1),
        balancing.FAMO(0.1, 0.2),
    ],
    ids=repr,
)
def test_configuration(rule):
    config = keras.saving.serialize_keras_object(rule)
    assert keras.saving.deserialize_keras_object(config) == rule
    assert config["registered_name"] == f"tfmtl>{name_of(rule)}"


@pytest.mark.parametrize(
    "make, text",
    [
        (
            lambda: balancing.StaticWeights((1.0,)).initial_state(2),
            "`values` should be one for each of 2 tasks. Received: values=(1.0,)",
        ),
        (
            lambda: balancing.UncertaintyWeighting((True,)).initial_state(2),
            "`regression` should be one for each of 2 tasks. "
            "Received: regression=(True,)",
        ),
        (
            lambda: balancing.UncertaintyWeighting(learning_rate=0),
            "`learning_rate` should be above 0. Received: learning_rate=0",
        ),
        (
            lambda: balancing.DWA(0),
            "`temperature` should be above 0. Received: temperature=0",
        ),
        (
            lambda: balancing.GradNorm(-1),
            "`alpha` should be at least 0. Received: alpha=-1",
        ),
        (
            lambda: balancing.FAMO(decay=-1),
            "`decay` should be at least 0. Received: decay=-1",
        ),
    ],
)
def test_arguments_are_checked(make, text):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == text
