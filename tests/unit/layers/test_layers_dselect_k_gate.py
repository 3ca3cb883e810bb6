"""The DSelect-k gate: sparsity, sums, the penalties, and what is left of a part."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl.layers.dselect_k_gate import DSelectKGate

UNEVEN = [  # 3, 1, 2 and 5 experts
    [True, False, True, False, True],
    [False, False, False, True, False],
    [False, True, False, False, True],
    [True, True, True, True, True],
]

each_kind = pytest.mark.parametrize("per_example", [False, True])


def numbers(seed, *shape, scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype("f4")


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def gate_of(*args, width=6, slots=None, scale=None, **kwargs):
    """A gate that is built, with random weights where a scale is given."""
    gate = DSelectKGate(*args, **kwargs)
    gate.build((None, width) if slots is None else (None, slots, width))
    if scale is not None:
        weights = enumerate(gate.weights)
        gate.set_weights([numbers(k, *w.shape, scale=scale) for k, w in weights])
    return gate


def penalty(gate, x):
    gate(x, training=True)
    return float(sum(gate.losses))


@each_kind
@pytest.mark.parametrize("k", [1, 2, 3])
def test_at_most_k_experts_once_the_digits_are_binary(per_example, k):
    gate = gate_of(5, 8, k, per_example, scale=1e4)
    weights = values(gate(numbers(9, 50, 6)))
    assert ((weights != 0).sum(axis=2) <= k).all()
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-6)


def test_k_experts_are_reached():
    gate = gate_of(5, 8, 3, scale=100.0)
    gate.alpha.assign(np.zeros((3, 5)))
    gate.alpha_kernel.assign(np.zeros((6, 3, 5)))
    weights = values(gate(numbers(9, 50, 6)))
    assert ((weights > 0.3).sum(axis=2) == 3).any()


@each_kind
@pytest.mark.parametrize("experts", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_weights_sum_to_one_for_a_power_of_two(per_example, experts, scale):
    gate = gate_of(3, experts, 2, per_example, scale=scale)
    weights = values(gate(numbers(9, 20, 6)))
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-6)


@each_kind
def test_weights_sum_to_less_otherwise(per_example):
    gate = gate_of(3, 5, 2, per_example, scale=1.0)
    weights = values(gate(numbers(9, 20, 6)))
    assert (weights >= 0).all() and (weights.sum(axis=2) <= 1 + 1e-6).all()
    assert (weights.sum(axis=2) < 0.99).any()


def test_nothing_but_unused_numbers_is_zero_and_finite():
    gate = gate_of(1, 3, 1, per_example=False)
    gate.z.assign([[1.0, 1.0]])  # number 3 of experts 0 to 2
    with tf.GradientTape() as tape:
        weights = gate(np.ones((2, 6), "f4"), training=True)
        [loss] = gate.losses
    np.testing.assert_array_equal(values(weights), 0)
    assert float(loss) == pytest.approx(1e6)
    assert np.isfinite(values(tape.gradient(loss, gate.z.value))).all()


def test_static_gate_is_the_same_for_all_examples():
    gate = gate_of(2, 4, per_example=False, scale=1.0)
    weights = values(gate(numbers(0, 7, 6)))
    assert (weights == weights[0]).all()
    assert [w.name for w in gate.weights] == ["z", "alpha"]


def test_static_gate_gives_exact_zeros():
    gate = gate_of(1, 4, 2, per_example=False, gamma=0.5)
    gate.z.assign([[0.25, 0.1], [-0.25, 0.25]])  # 2 or 3, and 1
    weights = values(gate(np.ones((1, 6), "f4")))[0, 0]
    assert (weights != 0).tolist() == [False, True, True, True]
    gate.z.assign([[0.25, 0.3], [-0.25, 0.25]])  # 3, and 1
    assert gate.open_pairs().tolist() == [[False, True, False, True]]


def test_numbers_follow_the_order_of_what_an_output_reads():
    gate = gate_of(4, 5, 1, per_example=False, reads=UNEVEN)
    gate.z.assign([[-9.0, 9.0, 9.0, 9.0, -9.0, -9.0]])  # 01 of 3, 1 of 2, 100 of 5
    expected = np.zeros((4, 5))
    expected[[0, 1, 2, 3], [2, 3, 4, 4]] = 1
    np.testing.assert_array_equal(values(gate(np.ones((1, 6), "f4")))[0], expected)


@each_kind
@pytest.mark.parametrize("slots", [None, 4])
def test_unequal_counts(per_example, slots):
    gate = gate_of(4, 5, 2, per_example, reads=UNEVEN, slots=slots, scale=0.5)
    x = numbers(9, 20, 6) if slots is None else numbers(9, 20, slots, 6)
    weights = values(gate(x))
    assert (weights[:, ~np.array(UNEVEN)] == 0).all()
    np.testing.assert_array_equal(weights[:, 1, 3], 1)
    np.testing.assert_allclose(weights[:, 2].sum(axis=1), 1, rtol=1e-6)


@each_kind
def test_single_expert_has_weight_one_and_no_parameters(per_example):
    gate = gate_of(3, 1, 2, per_example)
    weights = values(gate(numbers(0, 5, 6), training=True))
    np.testing.assert_array_equal(weights, np.ones((5, 3, 1)))
    assert gate.weights == [] and gate.losses == [] and gate.flops() == 0
    assert not gate.slot_reads().any() and gate.open_pairs().all()


def test_more_selectors_than_experts_choose_the_same():
    gate = gate_of(2, 2, 5, scale=100.0)
    weights = values(gate(numbers(9, 10, 6)))
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-6)


def test_each_output_reads_its_own_selector():
    gate = gate_of(3, 4, slots=3, scale=0.3)
    x = numbers(9, 5, 3, 6)
    before = values(gate(x))
    x[:, 1] += 1
    changed = (values(gate(x)) != before).any(axis=(0, 2))
    assert changed.tolist() == [False, True, False]


@each_kind
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("slots", [None, 4])
def test_gradient_reaches_every_weight_at_the_start(per_example, k, slots):
    gate = gate_of(4, 5, k, per_example, reads=UNEVEN, slots=slots)
    x = numbers(0, 8, 6) if slots is None else numbers(0, 8, slots, 6)
    aim = numbers(1, 8, 4, 5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((gate(x) - aim) ** 2)
    weights = [w.value for w in gate.trainable_weights]
    assert len(weights) == (1 + (k > 1)) * (1 + per_example)
    for gradient in tape.gradient(loss, weights):
        assert (values(gradient) != 0).all()


@each_kind
@pytest.mark.parametrize("slots", [None, 4])
def test_an_output_has_no_more_digits_than_it_needs(per_example, slots):
    gate = gate_of(4, 5, 3, per_example, reads=UNEVEN, slots=slots)
    shapes = {w.name: w.shape for w in gate.weights}
    own = {"z": (3, 2 + 1 + 3), "alpha": (3, 3)}
    kernels = {f"{name}_kernel": (6, *shape) for name, shape in own.items()}
    assert shapes == {**own, **(kernels if per_example else {})}


def test_initial_values():
    gate = gate_of(50, 8, 4, gamma=2.0, width=20)
    for weight in gate.weights:
        limit = 0.02 if weight.name.startswith("z") else 0.05
        size = np.abs(values(weight))
        assert 0.95 * limit < size.max() <= limit
    x = numbers(0, 10, 20)
    np.testing.assert_allclose(values(gate(x)), 1 / 8, atol=0.2)


@each_kind
@pytest.mark.parametrize("slots", [None, 3])
def test_entropy_penalty(per_example, slots):
    gate = gate_of(3, 4, 2, per_example, entropy=0.5, slots=slots)
    for weight in gate.weights:
        weight.assign(np.zeros(weight.shape))
    x = np.ones((7, 6) if slots is None else (7, slots, 6), "f4")
    # three outputs with two selectors each, all of them even
    np.testing.assert_allclose(penalty(gate, x), 0.5 * 6 * np.log(4), rtol=1e-5)
    gate.z.assign(np.full(gate.z.shape, 9.0))
    np.testing.assert_allclose(penalty(gate, x), 0, atol=1e-5)


@each_kind
def test_penalty_where_the_count_is_no_power_of_two(per_example):
    gate = gate_of(4, 5, 2, per_example, reads=UNEVEN)
    for weight in gate.weights:
        weight.assign(np.zeros(weight.shape))
    # two selectors each of three in four and of five in eight
    expected = 2 * (4 / 3 + 8 / 5)
    np.testing.assert_allclose(
        penalty(gate, np.ones((7, 6), "f4")), expected, rtol=1e-6
    )


def test_penalties_are_means_over_examples():
    gate = gate_of(2, 3, entropy=0.5, scale=0.3)
    x = numbers(9, 10, 6)
    each = [penalty(gate, x[k : k + 1]) for k in range(10)]
    np.testing.assert_allclose(penalty(gate, x), np.mean(each), rtol=1e-5)
    assert penalty(gate, x[:0]) == 0


def test_penalties_are_for_training_of_the_gate():
    gate = gate_of(2, 3, entropy=0.5)
    gate(np.ones((2, 6), "f4"))
    assert gate.losses == []
    gate(np.ones((2, 6), "f4"), training=True)
    assert len(gate.losses) == 1
    gate.trainable = False
    gate(np.ones((2, 6), "f4"), training=True)
    assert gate.losses == []


def test_no_penalty_without_reason():
    gate = gate_of(2, 4)
    gate(np.ones((2, 6), "f4"), training=True)
    assert gate.losses == []


def fitted(gate, aim, epochs=1, **kwargs):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, gate(inputs))
    model.compile(keras.optimizers.Adam(0.05), "mse", **kwargs)
    aims = np.broadcast_to(np.array(aim, "f4"), (32, *np.shape(aim)))
    return model.fit(numbers(0, 32, 6), aims, epochs=epochs, verbose=0).history["loss"]


@each_kind
@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_adds_the_penalties(per_example, jit_compile):
    gate = gate_of(2, 3, 2, per_example, entropy=0.5, scale=0.2)
    x, aim = numbers(0, 32, 6), np.zeros((2, 3))
    expected = (values(gate(x)) ** 2).mean() + penalty(gate, x)
    [loss] = fitted(gate, aim, jit_compile=jit_compile)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@each_kind
def test_entropy_makes_the_digits_binary(per_example):
    keras.utils.set_random_seed(0)
    gate = DSelectKGate(3, 8, 2, per_example, entropy=1.0)
    before, *_, after = fitted(gate, np.full((3, 8), 0.125), epochs=30)
    assert after < 0.3 * before
    if not per_example:
        assert (gate.open_pairs().sum(axis=1) <= 2).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_computed_in_float32(policy):
    gate = gate_of(3, 5, 2, scale=0.3, entropy=0.5, dtype=policy)
    assert {w.dtype for w in gate.weights} == {"float32"}
    x = numbers(9, 20, 6)
    weights = gate(x, training=True)
    assert weights.dtype.name == gate.compute_dtype
    assert gate.losses[0].dtype == "float32"
    exact = gate_of(3, 5, 2, scale=0.3, entropy=0.5)
    np.testing.assert_allclose(
        values(weights).astype("f4"), values(exact(x)), atol=0.02
    )


@each_kind
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_unknown_batch_size_compiled_by_xla(per_example, batch):
    gate = gate_of(4, 5, 2, per_example, reads=UNEVEN, scale=0.5)
    x = numbers(9, batch, 6)
    expected = values(gate(x))
    assert expected.shape == (batch, 4, 5)
    spec = [tf.TensorSpec((None, 6))]
    for jit_compile in (False, True):
        compiled = tf.function(gate, input_signature=spec, jit_compile=jit_compile)
        np.testing.assert_allclose(values(compiled(x)), expected, atol=1e-6)


def assert_folds(gate, x, outputs, inputs, columns):
    outputs, columns = np.array(outputs), np.array(columns)
    inputs = np.array(inputs, int)
    folded, order = gate.fold(outputs, inputs, np.zeros((1, 6), "f4"), columns)
    given = x if x.ndim == 2 or not len(inputs) else x[:, inputs]
    expected = values(gate(x))[:, order][:, :, columns]
    np.testing.assert_array_equal(values(folded(given)), expected)
    assert sorted(order) == sorted(outputs)
    rebuilt = DSelectKGate.from_config(folded.get_config())
    rebuilt.build((None, *given.shape[1:]))
    rebuilt.set_weights(folded.get_weights())
    np.testing.assert_array_equal(values(rebuilt(given)), expected)
    return folded


@each_kind
@pytest.mark.parametrize(
    "outputs, columns",
    [
        ([0, 1, 2, 3], [0, 1, 2, 3, 4]),
        ([3, 0], [0, 1, 2, 3, 4]),
        ([2], [1, 4]),
        ([2, 1], [1, 3, 4]),
        ([0], [0, 2, 3, 4]),
        ([1], [3]),
        ([0, 2, 1], [0, 1, 2, 3, 4]),
    ],
)
def test_fold_with_one_selector(per_example, outputs, columns):
    gate = gate_of(4, 5, 3, per_example, reads=UNEVEN, scale=0.4, trainable=False)
    x = numbers(9, 9, 6)
    folded = assert_folds(gate, x, outputs, [0], columns)
    assert not folded.trainable
    assert folded.connections() == np.array(UNEVEN)[outputs].sum()


@pytest.mark.parametrize(
    "outputs, inputs, columns",
    [
        ([0, 2, 3], [0, 2, 3], [0, 1, 2, 3, 4]),
        ([0, 2], [2, 0], [0, 1, 2, 4]),
        ([2], [2], [1, 4]),
        ([1, 2, 3], [3, 1, 2], [0, 1, 2, 3, 4]),
    ],
)
def test_fold_with_one_selector_each(outputs, inputs, columns):
    gate = gate_of(4, 5, 2, reads=UNEVEN, slots=4, scale=0.4)
    assert_folds(gate, numbers(9, 9, 4, 6), outputs, inputs, columns)


def test_fold_keeps_its_penalties_in_proportion():
    gate = gate_of(4, 5, 2, reads=UNEVEN, scale=0.3, entropy=0.25)
    x = numbers(9, 9, 6)
    parts = [
        gate.fold(np.array([k]), np.array([0]), np.zeros((1, 6)), np.arange(5))[0]
        for k in range(4)
    ]
    total = sum(penalty(part, x) for part in parts)
    np.testing.assert_allclose(total, penalty(gate, x), rtol=1e-5)


@pytest.mark.parametrize("columns", [[1], [4, 1]])
def test_fold_refuses_to_renumber(columns):
    gate = gate_of(4, 5, reads=UNEVEN)
    with pytest.raises(ValueError) as error:
        gate.fold(np.array([2]), np.array([0]), np.zeros((1, 6)), np.array(columns))
    assert str(error.value) == (
        "`columns` should hold, in order, every expert that the outputs may choose. "
        f"Received: columns={columns}"
    )


def test_slots_and_pairs():
    gate = gate_of(4, 5, reads=UNEVEN)
    np.testing.assert_array_equal(gate.open_pairs(), UNEVEN)
    assert gate.slot_reads().tolist() == [[True], [False], [True], [True]]
    gate = gate_of(4, 5, reads=UNEVEN, slots=4)
    np.testing.assert_array_equal(gate.slot_reads(), np.diag([1, 0, 1, 1]))
    assert not gate_of(4, 5, per_example=False, slots=4).slot_reads().any()
    assert gate_of(4, 5, per_example=False).slot_reads().shape == (4, 1)


def test_size():
    gate = gate_of(4, 5, 2, reads=UNEVEN)
    assert gate.connections() == 11
    # three outputs with a choice, two selectors of three digits and a logit each;
    # the product is made for three digits also where an output has fewer
    assert gate.flops() == 2 * 3 * 6 * 2 * (3 + 1)
    assert gate_of(4, 5, 2, per_example=False).flops() == 0


def test_config():
    gate = DSelectKGate(4, 5, 3, False, 0.5, 0.25, np.array(UNEVEN), name="own")
    config = gate.get_config()
    assert config["reads"] == UNEVEN
    assert DSelectKGate(4, 5).get_config()["reads"] is None
    assert DSelectKGate.from_config(config).get_config() == config


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"num_outputs": 0},
            "`num_outputs` should be a positive integer. Received: num_outputs=0",
        ),
        (
            {"num_experts": 2.0},
            "`num_experts` should be a positive integer. Received: num_experts=2.0",
        ),
        ({"k": 0}, "`k` should be a positive integer. Received: k=0"),
        ({"gamma": 0.0}, "`gamma` should be greater than 0. Received: gamma=0.0"),
        ({"gamma": "a"}, "`gamma` should be greater than 0. Received: gamma='a'"),
        ({"gamma": None}, "`gamma` should be greater than 0. Received: gamma=None"),
        ({"entropy": -1.0}, "`entropy` should be at least 0. Received: entropy=-1.0"),
        ({"entropy": "a"}, "`entropy` should be at least 0. Received: entropy='a'"),
    ],
)
def test_refused_arguments(arguments, text):
    with pytest.raises(ValueError) as error:
        DSelectKGate(**{"num_outputs": 2, "num_experts": 4, **arguments})
    assert str(error.value) == text


@pytest.mark.parametrize("shape", [(None, 1, 6), (None, None), (None, 2, 3, 6)])
def test_refused_selector(shape):
    with pytest.raises(ValueError, match="DSelectKGate should be called on a selector"):
        DSelectKGate(2, 4).build(shape)
