"""What methods of gradient surgery promise, each alone and all alike."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing
from tfmtl.balancing import grad_vac, pc_grad

METHODS = [
    balancing.EqualWeights(),
    balancing.PCGrad(),
    balancing.GradVac(),
    balancing.CAGrad(),
    balancing.MGDA(),
    balancing.IMTLG(),
    balancing.AlignedMTL(),
    balancing.NashMTL(),
    balancing.UPGrad(),
]
DRAW = ("PCGrad", "GradVac")


def name_of(method):
    return type(method).__name__


def only(*names):
    chosen = [method for method in METHODS if name_of(method) in names]
    return pytest.mark.parametrize("method", chosen, ids=name_of)


each_method = pytest.mark.parametrize("method", METHODS, ids=name_of)
each_size = pytest.mark.parametrize("tasks", [2, 3, 8, 16])


def random_gradients(tasks, seed=0):
    return np.random.default_rng([tasks, seed]).normal(size=(tasks, tasks + 4))


def agreeing_gradients(tasks):
    return np.abs(random_gradients(tasks))


def weights_of(method, gradients, state=None, seed=1, dtype="float64"):
    gradients = gradients.astype(dtype)
    gram = keras.ops.convert_to_tensor(gradients @ gradients.T)
    weights, _ = method.weights(gram, state, seed)
    assert keras.backend.standardize_dtype(weights.dtype) == dtype
    return keras.ops.convert_to_numpy(weights)


def update_of(method, gradients, **kwargs):
    return weights_of(method, gradients, **kwargs) @ gradients


def drawn_orders(tasks, seed):
    draws = np.random.default_rng(seed).random((tasks, tasks)) + 2 * np.eye(tasks)
    return keras.ops.convert_to_tensor(np.argsort(draws, axis=1)[:, :-1])


def hard_gradients(tasks):
    rng = np.random.default_rng(tasks)
    g = rng.normal(size=(tasks, 2 * tasks))
    scale = 10 ** rng.uniform(-8, 8, (tasks, 1))
    twice = np.concatenate([g[:1], -g[:1], *[g[:1]] * (tasks - 2)])
    nearly = g[:1] + 1e-4 * g
    yield from (g, 1e-8 * g, 1e8 * g, scale * g, 0 * g, twice, scale * twice, nearly)
    yield from (
        g[:, :1],
        g[:, :2],
        scale * g[:, :2],
        g * (np.arange(tasks) > 0)[:, None],
    )
    yield from (g - g.mean(axis=0), scale * nearly, nearly - nearly.mean(axis=0))


@each_method
@each_size
def test_equal_gradients_are_summed(method, tasks):
    gradients = np.repeat(random_gradients(tasks)[:1], tasks, axis=0)
    update = update_of(method, gradients)
    np.testing.assert_allclose(update, gradients.sum(axis=0), rtol=1e-9)


@each_method
def test_one_task_keeps_its_gradient(method):
    assert weights_of(method, random_gradients(1)) == pytest.approx([1.0], rel=1e-9)


@only("EqualWeights", "PCGrad", "GradVac", "UPGrad")
@each_size
def test_gradients_without_conflict_are_summed(method, tasks):
    weights = weights_of(method, agreeing_gradients(tasks))
    np.testing.assert_allclose(weights, np.ones(tasks), rtol=1e-12)


def test_equal_weights_are_exactly_one():
    for dtype in ("float32", "float64"):
        for seed in range(20):
            gradients = random_gradients(5, seed)
            weights = weights_of(balancing.EqualWeights(), gradients, dtype=dtype)
            assert weights.tolist() == [1.0] * 5


@only("UPGrad", "MGDA", "NashMTL", "IMTLG")
@each_size
def test_no_task_is_made_worse(method, tasks):
    for seed in range(5):
        gradients = random_gradients(tasks, seed)
        gradients = gradients - 0.5 * gradients.mean(axis=0)
        update = update_of(method, gradients)
        assert (gradients @ update).min() >= -1e-8


@each_size
def test_ca_grad_of_a_ball_around_zero_makes_no_task_worse(tasks):
    gradients = random_gradients(tasks)
    update = update_of(balancing.CAGrad(1.0), gradients)
    assert (gradients @ update).min() >= -1e-8


@each_size
def test_ca_grad_helps_the_worst_task(tasks):
    gradients = random_gradients(tasks)
    update = update_of(balancing.CAGrad(), gradients) * 1.5 / tasks
    mean = gradients.mean(axis=0)
    assert np.linalg.norm(update - mean) == pytest.approx(np.linalg.norm(mean) / 2)
    assert (gradients @ update).min() > (gradients @ mean).min()


def test_pc_grad_of_two_makes_neither_worse():
    for seed in range(20):
        gradients = random_gradients(2, seed)
        update = update_of(balancing.PCGrad(), gradients)
        assert (gradients @ update).min() >= -1e-12


def test_pc_grad_of_two_quadratics():
    """L_1 = ½‖x − a‖², L_2 = ½‖x − b‖²: a conflict where x is nearer than a to b."""
    a, b = np.array([0.0, 0.0]), np.array([2.0, 0.0])
    for x in np.random.default_rng(0).uniform(-1, 3, (50, 2)):
        to_a, to_b = x - a, x - b
        product = to_a @ to_b
        weights = weights_of(balancing.PCGrad(), np.stack([to_a, to_b]))
        inside = np.linalg.norm(x - (a + b) / 2) < 1
        assert inside == (product < 0)
        expected = [1 - product / (g @ g) if inside else 1.0 for g in (to_a, to_b)]
        np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_pc_grad_of_two_quadratics_descends_to_a_point_between():
    a, b, x = np.array([0.0, 0.0]), np.array([2.0, 0.0]), np.array([0.3, 0.9])
    for _ in range(200):
        x = x - 0.05 * update_of(balancing.PCGrad(), np.stack([x - a, x - b]))
    assert 0 < x[0] < 2 and x[1] == pytest.approx(0, abs=1e-3)


@each_size
def test_mgda_is_the_shortest_of_the_hull(tasks):
    for seed in range(3):
        gradients = random_gradients(tasks, seed) + 0.3
        weights = weights_of(balancing.MGDA(), gradients) / tasks
        shortest = weights @ gradients
        assert weights.sum() == pytest.approx(1) and weights.min() >= 0
        square = shortest @ shortest
        products = gradients @ shortest
        assert products.min() >= square * (1 - 1e-8)
        np.testing.assert_allclose(products[weights > 0], square, rtol=1e-6)


@each_size
def test_imtl_g_lies_equally_along_all(tasks):
    gradients = random_gradients(tasks)
    weights = weights_of(balancing.IMTLG(), gradients)
    along = gradients @ (weights @ gradients) / np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(along, along[0], rtol=1e-6)
    assert along[0] > 0 and np.abs(weights).sum() == pytest.approx(tasks)


@each_size
def test_nash_mtl_solves_the_bargain(tasks):
    gradients = 10 ** np.linspace(-3, 3, tasks)[:, None] * random_gradients(tasks)
    gram = gradients @ gradients.T
    alpha = weights_of(balancing.NashMTL(), gradients) / np.sqrt(np.linalg.norm(gram))
    assert alpha.min() > 0
    np.testing.assert_allclose(gram @ alpha * alpha, 1, rtol=1e-6)


@each_method
@each_size
def test_the_direction_depends_on_a_task_s_scale_unless_a_method_says_so(method, tasks):
    gradients = random_gradients(tasks)
    scale = 10 ** np.linspace(-4, 4, tasks)[:, None]
    one, other = update_of(method, gradients), update_of(method, scale * gradients)
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    off = np.abs(one - other).max()
    assert off < 1e-8 if method.ignores_scale else off > 1e-3


@each_method
@pytest.mark.parametrize("factor", [1e-8, 1e-3, 1e8])
def test_a_common_factor_changes_no_weight(method, factor):
    for tasks in (2, 5):
        gradients = random_gradients(tasks)
        one = weights_of(method, gradients)
        other = weights_of(method, factor * gradients)
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@each_method
def test_tasks_may_come_in_any_order(method):
    tasks = 2 if name_of(method) in DRAW else 6
    gradients = random_gradients(tasks)
    order = np.random.default_rng(0).permutation(tasks)
    one = weights_of(method, gradients)[order]
    other = weights_of(method, gradients[order])
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@each_method
def test_a_task_without_gradient_is_left_out(method):
    gradients = random_gradients(2)
    with_zero = np.stack([gradients[0], 0 * gradients[0], gradients[1]])
    weights = weights_of(method, with_zero)
    assert weights[1] == 0
    rest = weights_of(method, gradients)
    np.testing.assert_allclose(weights[[0, 2]], rest, rtol=1e-9)


@each_method
def test_no_gradient_at_all(method):
    assert weights_of(method, np.zeros((3, 4))).tolist() == [0.0, 0.0, 0.0]


@each_method
@each_size
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_are_finite(method, tasks, dtype):
    for gradients in hard_gradients(tasks):
        weights = weights_of(method, gradients, dtype=dtype)
        assert np.isfinite(weights).all()
        assert np.isfinite(weights @ gradients.astype(dtype)).all()


@each_method
@each_size
def test_float32_is_near_float64(method, tasks):
    gradients = random_gradients(tasks).astype("float32").astype("float64")
    single = update_of(method, gradients, dtype="float32")
    double = update_of(method, gradients)
    error = np.linalg.norm(single - double) / np.linalg.norm(double)
    assert error < 1e-3


@each_method
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_gradients_are_reported_and_not_remembered(method, bad):
    gram = np.eye(3)
    gram[0, 1] = gram[1, 0] = bad
    state = method.initial_state(3, "float64")
    weights, after = method.weights(keras.ops.convert_to_tensor(gram), state, 1)
    assert np.isnan(weights).all()
    for key in state:
        np.testing.assert_array_equal(state[key], after[key])


@each_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_is_eager(method, dtype, jit_compile, monkeypatch):
    for module in (grad_vac, pc_grad):  # XLA draws in its own way
        monkeypatch.setattr(module, "random_orders", drawn_orders)
    compiled = tf.function(
        lambda gram, state: method.weights(gram, state, 3), jit_compile=jit_compile
    )
    rtol = 1e-5 if dtype == "float64" else 2e-3
    for tasks in (1, 4):
        state = method.initial_state(tasks, dtype)
        for seed in range(4):
            gradients = random_gradients(tasks, seed).astype(dtype)
            gram = keras.ops.convert_to_tensor(gradients @ gradients.T)
            expected, after = method.weights(gram, state, 3)
            weights, state = compiled(gram, state)
            np.testing.assert_allclose(weights, expected, rtol=rtol, atol=rtol)
            assert weights.shape == (tasks,) and set(state) == set(after)
            for key in state:
                np.testing.assert_allclose(state[key], after[key], rtol, rtol)
                assert state[key].dtype == dtype


@only(*DRAW)
def test_every_step_draws(method):
    gradients = random_gradients(6) - random_gradients(6).mean(axis=0)
    gram = keras.ops.convert_to_tensor(gradients @ gradients.T)
    seed = keras.random.SeedGenerator(0)
    step = tf.function(lambda: method.weights(gram, seed=seed)[0])
    drawn = {tuple(step().numpy().round(6)) for _ in range(6)}
    assert len(drawn) > 1


def test_grad_vac_keeps_the_target_of_an_absent_task():
    method = balancing.GradVac()
    state = {"targets": keras.ops.full((3, 3), 0.5, "float64")}
    gram = keras.ops.convert_to_tensor(np.diag([1.0, 0.0, 2.0]))
    _, after = method.weights(gram, state, 0)
    expected = np.full((3, 3), 0.5)
    expected[0, 2] = expected[2, 0] = np.nan  # moves
    same = ~np.isnan(expected)
    np.testing.assert_array_equal(after["targets"].numpy()[same], 0.5)
    assert after["targets"][0, 2] < 0.5 and after["targets"][2, 0] < 0.5


def test_grad_vac_reaches_its_target():
    state = {"targets": keras.ops.full((2, 2), 0.6, "float64")}
    gradients = random_gradients(2)
    gradients[1] = 0.1 * gradients[1] - gradients[0]
    gram = keras.ops.convert_to_tensor(gradients @ gradients.T)
    weights, _ = balancing.GradVac().weights(gram, state, 0)
    one, two = gradients
    length = np.linalg.norm
    first = one + two * (float(weights[1]) - 1)
    second = two + one * (float(weights[0]) - 1)
    assert first @ two / length(first) / length(two) == pytest.approx(0.6)
    assert second @ one / length(second) / length(one) == pytest.approx(0.6)


@pytest.mark.parametrize("tasks", [1, 2, 3, 8])
def test_random_orders(tasks):
    orders = keras.ops.convert_to_numpy(balancing.random_orders(tasks, 0))
    assert orders.shape == (tasks, tasks - 1)
    for i, order in enumerate(orders):
        assert sorted(order) == [j for j in range(tasks) if j != i]


def test_random_orders_are_fresh_and_even():
    seed = keras.random.SeedGenerator(0)
    draws = [
        keras.ops.convert_to_numpy(balancing.random_orders(3, seed)) for _ in range(400)
    ]
    for i in range(3):
        first = np.mean(
            [draw[i, 0] == max(j for j in range(3) if j != i) for draw in draws]
        )
        assert 0.4 < first < 0.6
    assert len({draw[:, 0].tobytes() for draw in draws}) == 8


@pytest.mark.parametrize(
    "method",
    [*METHODS, balancing.GradVac(0.25), balancing.CAGrad(0.75), balancing.NashMTL(7)],
    ids=repr,
)
def test_configuration(method):
    config = keras.saving.serialize_keras_object(method)
    assert keras.saving.deserialize_keras_object(config) == method
    assert config["registered_name"] == f"tfmtl>{name_of(method)}"
    with pytest.raises(AttributeError):
        method.c = 1.0


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: balancing.CAGrad(-1), "`c` should be at least 0. Received: c=-1"),
        (
            lambda: balancing.GradVac(2),
            "`decay` should be in [0, 1]. Received: decay=2",
        ),
        (
            lambda: balancing.NashMTL(0),
            "`iterations` should be above 0. Received: iterations=0",
        ),
    ],
)
def test_arguments_are_checked(make, text):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == text
