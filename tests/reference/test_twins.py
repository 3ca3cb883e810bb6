"""Every operation and layer against its twin in NumPy."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
import twins

from tfmtl import layers, models, ops, tasks
from tfmtl.ops.grouping import group_outputs
from tfmtl.ops.pairs import pack_pairs

CONSTANTS = [(2 / 3, -0.1, 1.1), (0.5, -1.0, 2.0), (0.9, -0.3, 1.5)]
SIZES = [  # batch, lower slots, width, upper slots, units
    (1, 1, 1, 1, 1),
    (1, 3, 2, 1, 4),
    (2, 1, 5, 3, 1),
    (4, 4, 3, 2, 5),
    (5, 6, 4, 7, 3),
]


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def openings(seed, *shape):
    """Gates with exact zeros and ones among them."""
    return np.clip(0.5 + numbers(seed, *shape), 0, 1)


def assert_close(got, expected, tolerance=1e-6):
    got = keras.ops.convert_to_numpy(got)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def randomized(layer, input_shape, seed=0):
    layer.build(input_shape)
    layer.set_weights(
        [numbers(seed + k, *w.shape) for k, w in enumerate(layer.weights)]
    )
    return layer, layer.get_weights()


def as_printed(kernel):
    """The package's `(j, d, i, h)` as the paper's W_ij, `(i, j, h, d)`."""
    return kernel.transpose(2, 0, 3, 1)


@pytest.mark.parametrize("beta, gamma, zeta", CONSTANTS)
@pytest.mark.parametrize("shape", [(1,), (3, 5)])
class TestHardConcrete:
    def test_sample(self, shape, beta, gamma, zeta):
        log_alpha = 2 * numbers(0, *shape)
        u = np.random.default_rng(1).uniform(0.01, 0.99, shape).astype("f4")
        got = ops.hard_concrete_sample(log_alpha, u, beta, gamma, zeta)
        assert_close(got, twins.hard_concrete_sample(log_alpha, u, beta, gamma, zeta))

    def test_evaluation(self, shape, beta, gamma, zeta):
        log_alpha = 3 * numbers(0, *shape)
        got = ops.hard_concrete(log_alpha, gamma, zeta)
        assert_close(got, twins.hard_concrete(log_alpha, gamma, zeta))

    def test_probability_not_zero(self, shape, beta, gamma, zeta):
        log_alpha = 3 * numbers(0, *shape)
        got = ops.open_probability(log_alpha, beta, gamma, zeta)
        assert_close(got, twins.probability_not_zero(log_alpha, beta, gamma, zeta))

    def test_probability_one(self, shape, beta, gamma, zeta):
        log_alpha = 3 * numbers(0, *shape)
        got = ops.fully_open_probability(log_alpha, beta, gamma, zeta)
        assert_close(got, twins.probability_one(log_alpha, beta, gamma, zeta))

    def test_closed_below(self, shape, beta, gamma, zeta):
        threshold = ops.closed_below(gamma, zeta)
        around = np.array([threshold - 1e-6, threshold + 1e-6])
        below, above = twins.hard_concrete(around, gamma, zeta)
        assert below == 0 < above


@pytest.mark.parametrize("batch, j, d, i, h", SIZES)
class TestRoutingOperations:
    def test_transformation(self, batch, j, d, i, h):
        u, w, z = numbers(0, batch, j, d), numbers(1, j, d, i, h), openings(2, i, j)
        got = ops.route_transformation(u, w, z)
        assert_close(got, twins.snr_trans(u, as_printed(w), z))

    def test_average(self, batch, j, d, i, h):
        u, z = numbers(0, batch, j, d), openings(2, i, j)
        assert_close(ops.route_average(u, z), twins.snr_aver(u, z))

    def test_experts_of_one_input(self, batch, j, d, i, h):
        x, w = numbers(0, batch, d), numbers(1, i, d, h)
        got = ops.experts(x, w)
        assert_close(got, twins.experts(x, w, np.zeros((i, h)), twins.identity))

    def test_experts_of_stacked_inputs(self, batch, j, d, i, h):
        x, w = numbers(0, batch, i, d), numbers(1, i, d, h)
        got = ops.experts(x, w)
        assert_close(got, twins.experts(x, w, np.zeros((i, h)), twins.identity))


@pytest.mark.parametrize("batch, j, d, i, h", SIZES)
class TestLayers:
    @pytest.mark.parametrize("stacked", [False, True])
    def test_experts(self, batch, j, d, i, h, stacked):
        x = numbers(0, batch, i, d) if stacked else numbers(0, batch, d)
        layer, (kernel, bias) = randomized(layers.Experts(i, h), x.shape)
        assert_close(layer(x), twins.experts(x, kernel, bias, twins.relu))

    def test_transformation_routing(self, batch, j, d, i, h):
        u = numbers(0, batch, j, d)
        layer = layers.SubNetworkRouting(i, h, use_bias=True)
        layer.build(u.shape)
        log_alpha = 3 * numbers(1, i, j)
        layer.gate.set_log_alpha(log_alpha)
        kernel, bias = numbers(2, j, d, i, h), numbers(3, i, h)
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
        z = twins.hard_concrete(np.clip(log_alpha, -4.605, 4.605), -0.1, 1.1)
        assert_close(layer(u), twins.snr_trans(u, as_printed(kernel), z) + bias)

    def test_average_routing(self, batch, j, d, i, h):
        u = numbers(0, batch, j, d)
        layer = layers.SubNetworkRouting(i, kind="average", use_bias=True)
        layer.build(u.shape)
        log_alpha = numbers(1, i, j)
        layer.gate.set_log_alpha(log_alpha)
        bias = numbers(3, i, d)
        layer.bias.assign(bias)
        z = twins.hard_concrete(log_alpha, -0.1, 1.1)
        assert_close(layer(u), twins.snr_aver(u, z) + bias)

    def test_static_mixture(self, batch, j, d, i, h):
        u = numbers(0, batch, j, d)
        z, bias = openings(1, i, j), numbers(2, i, d)
        layer = layers.StaticMixture.of(z, d, bias)
        assert_close(layer(u), twins.snr_aver(u, z) + bias)

    def test_pruned_transformation(self, batch, j, d, i, h):
        u = numbers(0, batch, j, d)
        opened = np.random.default_rng(1).random((i, j)) < 0.4
        opened[np.arange(i), np.arange(i) % j] = True
        groups = [(np.flatnonzero(opened[k]).tolist(), [k]) for k in range(i)]
        layer, kernels = randomized(layers.PrunedTransformation(groups, h), u.shape)
        w = np.zeros((i, j, h, d))
        for k, (reads, _) in enumerate(groups):
            for position, slot in enumerate(reads):
                w[k, slot] = kernels[k][position * d : (position + 1) * d].T
        assert_close(layer(u), twins.snr_trans(u, w, opened))

    def test_folded_transformation(self, batch, j, d, i, h):
        u, kernel, bias = (
            numbers(0, batch, j, d),
            numbers(1, j, d, i, h),
            numbers(3, i, h),
        )
        z = openings(2, i, j)
        z[np.arange(i), np.arange(i) % j] = 1
        layer, order = layers.PrunedTransformation.of(
            kernel * z.T[:, None, :, None],
            np.arange(i),
            np.arange(j),
            np.zeros((j, d), "f4"),
            bias=bias,
            activation=None,
        )
        assert sorted(order) == list(range(i))
        expected = twins.snr_trans(u, as_printed(kernel), z) + bias
        assert_close(layer(u), expected[:, order])

    def test_tower(self, batch, j, d, i, h):
        x = numbers(0, batch, d)
        layer = layers.Tower((h, j), i, head_activation="sigmoid")
        layer, weights = randomized(layer, x.shape)
        hidden, head = [weights[0:2], weights[2:4]], weights[4:6]
        expected = twins.tower(x, hidden, head, twins.relu, twins.sigmoid)
        assert_close(layer(x), expected)

    def test_standardize(self, batch, j, d, i, h):
        x = 3 * numbers(0, batch, d)
        x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
        x[np.random.default_rng(2).random(x.shape) < 0.2] = -np.inf
        mean, std = numbers(3, d), np.abs(numbers(4, d)) + 0.5
        log = np.arange(d) % 2 == 0
        layer = layers.Standardize(mean, std, log)
        assert_close(layer(x), twins.standardize(x, mean, std, log))

    def test_bucketize(self, batch, j, d, i, h):
        boundaries = [np.unique(numbers(k, k)).tolist() for k in range(d)]
        x = numbers(9, batch, d)
        x[:, -1] = (boundaries[-1] or [0.0])[0]
        x[-1, 0] = np.nan
        x[0, -1] = np.inf
        layer = layers.Bucketize(boundaries)
        assert_close(layer(x), twins.bucketize(x, boundaries))

    def test_field_embedding(self, batch, j, d, i, h):
        sizes = list(range(1, j + 1))
        ids = np.random.default_rng(0).integers(-3, j + 3, (batch, j))
        layer, [table] = randomized(layers.FieldEmbedding(sizes, h), ids.shape)
        tables = np.split(table, np.cumsum(sizes)[:-1])
        assert_close(layer(ids), twins.field_embedding(ids, tables))

    def test_gather_slots(self, batch, j, d, i, h):
        x = numbers(0, batch, j, d)
        indices = [j - 1, -1, 0, -1]
        layer, [constants] = randomized(layers.GatherSlots(indices), x.shape)
        rows = [
            [example[j - 1], constants[0], example[0], constants[1]] for example in x
        ]
        assert_close(layer(x), np.array(rows))

    def test_broadcast_constant(self, batch, j, d, i, h):
        x = numbers(0, batch, d)
        layer, [value] = randomized(layers.BroadcastConstant((i, h)), x.shape)
        assert_close(layer(x), np.array([value] * batch))


def some_reads(outputs, inputs):
    """Pairs at random; the first output reads a single input."""
    reads = np.random.default_rng(0).random((outputs, inputs)) < 0.5
    reads[:, -1] = True
    reads[0, :-1] = False
    return reads


def per_output(packed, reads):
    """The last axis of packed values, cut into those of each output with a choice."""
    counts = reads.sum(axis=1)
    return np.split(packed, np.cumsum(np.where(counts > 1, counts, 0))[:-1], axis=-1)


def as_stated(value):
    return value


def normalize_of(kind, weights):
    """The normalisation with these weights as a function of one example."""
    if kind is None:
        return as_stated
    twin = getattr(twins, f"{kind}_normalization")
    return lambda x: twin(x, *weights)


def positive_variances(layer):
    for weight in layer.weights:
        if weight.name == "moving_variance":
            weight.assign(keras.ops.abs(weight) + 0.5)


def own_normalization(layer, k, e):
    """Weights of the normalisation of expert e's hidden layer k, from 0 on."""
    named = {own.name: own.get_weights() for own in layer.normalizations}
    return named.get(f"normalization_{k + 1}_{e}")


# A normalisation divides by a deviation of down to sqrt(0.001), which makes the
# rounding of float32 sums up to 32 times as large.
NORMALIZATIONS = [(None, 1e-6), ("batch", 1e-5), ("layer", 1e-5)]


@pytest.mark.parametrize("batch, j, d, i, h", SIZES)
class TestMixtureOperations:
    @pytest.mark.parametrize("per_example", [False, True])
    def test_gate_weights(self, batch, j, d, i, h, per_example):
        logits = numbers(0, batch, i, j)
        z = openings(1, *(batch, i, j) if per_example else (i, j))
        got = ops.gate_weights(logits, z)
        expected = twins.gate_weights(logits, np.broadcast_to(z, logits.shape))
        assert_close(got, expected)

    def test_gate_weights_of_a_closed_row(self, batch, j, d, i, h):
        logits, z = numbers(0, batch, i, j), openings(1, i, j)
        z[i - 1] = 0
        got = keras.ops.convert_to_numpy(ops.gate_weights(logits, z))
        expected = twins.gate_weights(logits, np.broadcast_to(z, logits.shape))
        assert_close(got, expected)
        assert (got[:, i - 1] == 0).all()

    def test_gate_weights_of_open_pairs_are_the_softmax(self, batch, j, d, i, h):
        logits = numbers(0, batch, i, j)
        exponentials = np.exp(logits.astype("f8"))
        expected = exponentials / exponentials.sum(axis=-1, keepdims=True)
        assert_close(ops.gate_weights(logits, np.ones((i, j), "f4")), expected)

    def test_mixture(self, batch, j, d, i, h):
        weights, experts = numbers(0, batch, i, j), numbers(1, batch, j, d)
        assert_close(ops.mixture(weights, experts), twins.mixture(weights, experts))

    @pytest.mark.parametrize("chosen", [False, True])
    def test_spread_pairs(self, batch, j, d, i, h, chosen):
        reads = some_reads(i, j) if chosen else np.ones((i, j), bool)
        packed = numbers(0, batch, int(reads.sum()))
        got = ops.spread_pairs(packed, reads)
        assert_close(got, np.array([twins.spread_pairs(row, reads) for row in packed]))

    @pytest.mark.parametrize("chosen", [False, True])
    def test_pack_pairs(self, batch, j, d, i, h, chosen):
        reads = some_reads(i, j) if chosen else np.ones((i, j), bool)
        matrix = numbers(0, batch, i, j)
        packed = pack_pairs(matrix, reads)
        assert_close(packed, matrix[:, reads])
        assert_close(ops.spread_pairs(packed, reads), matrix * reads)


@pytest.mark.parametrize("batch, j, d, i, h", SIZES)
class TestMixtureLayers:
    @pytest.mark.parametrize("spare", [None, 0, 1])  # selectors beyond the outputs
    @pytest.mark.parametrize("chosen", [False, True])
    @pytest.mark.parametrize("use_bias", [False, True])
    def test_softmax_gate(self, batch, j, d, i, h, spare, chosen, use_bias):
        reads = some_reads(i, j) if chosen else np.ones((i, j), bool)
        x = numbers(9, batch, d) if spare is None else numbers(9, batch, i + spare, d)
        layer = layers.SoftmaxGate(i, j, reads.tolist(), use_bias)
        layer, weights = randomized(layer, x.shape)
        kernel = weights[0] if weights else np.zeros((d, 0))
        biases = weights[1] if use_bias and weights else np.zeros(kernel.shape[1])
        expected = twins.softmax_gate(
            x,
            per_output(kernel, reads),
            per_output(biases, reads),
            reads,
            reads.astype(float),
        )
        assert_close(layer(x), expected)

    @pytest.mark.parametrize("stacked", [False, True])
    def test_softmax_gate_with_closed_pairs(self, batch, j, d, i, h, stacked):
        reads = some_reads(i, j)
        x = numbers(9, batch, i, d) if stacked else numbers(9, batch, d)
        layer = layers.SoftmaxGate(i, j, reads.tolist(), True, hard_concrete={})
        layer.build(x.shape)
        counts = reads.sum(axis=1)
        count = counts[counts > 1].sum()
        kernel, bias = numbers(0, d, count), numbers(1, count)
        log_alpha = np.clip(3 * numbers(2, count), -4.605, 4.605)
        if count:
            log_alpha[-counts[counts > 1][-1] :] -= 4.605 + log_alpha.max()  # a row
            layer.kernel.assign(kernel)
            layer.bias.assign(bias)
            layer.gate.set_log_alpha(log_alpha)
        log_alpha = np.clip(log_alpha, -4.605, 4.605)
        z = twins.pair_gates(log_alpha, reads)
        expected = twins.softmax_gate(
            x, per_output(kernel, reads), per_output(bias, reads), reads, z
        )
        got = keras.ops.convert_to_numpy(layer(x, training=False))
        assert_close(got, expected)
        assert (got[:, z == 0] == 0).all()

    def test_mixture(self, batch, j, d, i, h):
        experts, weights = numbers(0, batch, j, d), numbers(1, batch, i, j)
        got = layers.Mixture()([experts, weights])
        assert_close(got, twins.mixture(weights, experts))

    @pytest.mark.parametrize("activation", ["linear", "relu"])
    def test_static_mixture_of_some_slots(self, batch, j, d, i, h, activation):
        reads = some_reads(i, j)
        reads[i - 1, -1] = i == 1  # where there are several, the last may read none
        u = numbers(9, batch, j, d)
        layer = layers.StaticMixture(i, reads.tolist(), activation, True)
        layer, (packed, bias) = randomized(layer, u.shape)
        sums = twins.snr_aver(u, twins.spread_pairs(packed, reads)) + bias
        expected = np.maximum(sums, 0) if activation == "relu" else sums
        assert_close(layer(u), expected)

    @pytest.mark.parametrize("stacked", [False, True])
    @pytest.mark.parametrize("kind, tolerance", NORMALIZATIONS)
    def test_experts_of_several_layers(
        self, batch, j, d, i, h, stacked, kind, tolerance
    ):
        slots = [(2 * e) % j for e in range(i)]
        x = numbers(99, batch, j, d) if stacked else numbers(99, batch, d)
        layer = layers.Experts(
            i, (h, j), normalization=kind, slots=slots if stacked else None
        )
        randomized(layer, x.shape)
        positive_variances(layer)
        hidden = [
            [
                (
                    keras.ops.convert_to_numpy(layer.kernels[k])[e],
                    keras.ops.convert_to_numpy(layer.biases[k])[e],
                    normalize_of(kind, own_normalization(layer, k, e)),
                )
                for k in range(2)
            ]
            for e in range(i)
        ]
        expected = twins.deep_experts(x, hidden, slots, twins.relu)
        assert_close(layer(x, training=False), expected, tolerance)

    @pytest.mark.parametrize("kind, tolerance", NORMALIZATIONS)
    def test_tower_with_normalization(self, batch, j, d, i, h, kind, tolerance):
        x = numbers(9, batch, d)
        layer = layers.Tower((h, j), i, normalization=kind)
        randomized(layer, x.shape)
        positive_variances(layer)
        named = {own.name: own.get_weights() for own in [*layer.hidden, layer.head]}
        hidden = [
            (*named[f"hidden_{k}"], normalize_of(kind, named.get(f"normalization_{k}")))
            for k in (1, 2)
        ]
        kernel, bias = named["head"]
        expected = [
            twins.dense(twins.mlp(row, hidden, twins.relu), kernel, bias, as_stated)
            for row in x
        ]
        assert_close(layer(x, training=False), np.array(expected), tolerance)

    def test_position_bias(self, batch, j, d, i, h):
        positions = np.random.default_rng(0).integers(-2, j + 2, (batch, 1))
        layer, [biases] = randomized(layers.PositionBias(j), positions.shape)
        expected = twins.position_bias(positions, biases)
        assert_close(layer(positions, training=False), expected)


def random_connections(seed):
    generator = np.random.default_rng(seed)
    outputs, inputs = generator.integers(1, 9, 2)
    connections = generator.random((outputs, inputs)) < generator.uniform(0.1, 0.9)
    connections[np.arange(outputs), generator.integers(0, inputs, outputs)] = True
    return connections


@pytest.mark.parametrize("width", [1, 64, 1024])
@pytest.mark.parametrize("seed", range(20))
class TestGrouping:
    def test_each_output_is_in_one_group(self, seed, width):
        connections = random_connections(seed)
        groups = group_outputs(connections, width, width)
        outputs = [output for _, computed in groups for output in computed]
        assert sorted(outputs) == list(range(len(connections)))

    def test_groups_read_what_their_outputs_read(self, seed, width):
        connections = random_connections(seed)
        for reads, outputs in group_outputs(connections, width, width):
            needed = np.flatnonzero(connections[outputs].any(axis=0))
            assert reads == needed.tolist()

    def test_equal_rows_share_a_group(self, seed, width):
        connections = np.repeat(random_connections(seed), 2, axis=0)
        for _, outputs in group_outputs(connections, width, width):
            assert {k ^ 1 for k in outputs} == set(outputs)

    def test_groups_and_their_members_are_in_order(self, seed, width):
        groups = group_outputs(random_connections(seed), width, width)
        firsts = [outputs[0] for _, outputs in groups]
        assert firsts == sorted(firsts)
        assert all(outputs == sorted(outputs) for _, outputs in groups)


@pytest.mark.parametrize("seed", range(10))
def test_tiny_routing_is_one_group(seed):
    assert len(group_outputs(random_connections(seed), 2, 2)) == 1


@pytest.mark.parametrize("seed", range(10))
def test_huge_routing_has_no_zeros(seed):
    connections = random_connections(seed)
    groups = group_outputs(connections, 1 << 14, 1 << 14)
    for reads, outputs in groups:
        assert all(np.flatnonzero(connections[k]).tolist() == reads for k in outputs)


def test_output_without_connection():
    with pytest.raises(ValueError) as error:
        group_outputs(np.array([[True, False], [False, False]]), 4, 4)
    assert str(error.value) == (
        "`open_connections` should have an open connection in every row. "
        "Received: rows without one=[1]"
    )


def of(loss, **arguments):
    return lambda y, x: loss(y, x, **arguments)


def whole(generator, n, highest):
    return generator.integers(0, highest, (n, 1)).astype("f4")


def amounts(generator, n):
    return np.maximum(0, generator.normal(1, 3, (n, 1))).astype("f4").round(2)


KINDS = {  # the task, the loss of one label, and labels
    "binary": (
        tasks.Binary("t"),
        twins.log_loss,
        lambda g, n: whole(g, n, 2),
    ),
    "squared": (tasks.Regression("t"), twins.squared_error, amounts),
    "huber": (
        tasks.Regression("t", delta=0.75),
        of(twins.huber_error, delta=0.75),
        amounts,
    ),
    "log-normal": (
        tasks.LogNormal("t", sigma=1.25),
        of(twins.log_normal_error, sigma=1.25),
        amounts,
    ),
    "weighted": (tasks.WeightedLogistic("t"), twins.weighted_log_loss, amounts),
    "count": (tasks.Count("t"), twins.poisson_loss, lambda g, n: whole(g, n, 6)),
    "class": (
        tasks.MultiClass("t", num_classes=4),
        twins.class_loss,
        lambda g, n: whole(g, n, 4),
    ),
    "multi-label": (
        tasks.MultiLabel("t", num_labels=3),
        twins.log_loss,
        lambda g, n: g.integers(0, 2, (n, 3)).astype("f4"),
    ),
    "ordinal": (
        tasks.Ordinal("t", num_levels=4),
        twins.ordinal_loss,
        lambda g, n: whole(g, n, 4),
    ),
    "two levels": (
        tasks.Ordinal("t", num_levels=2),
        twins.ordinal_loss,
        lambda g, n: whole(g, n, 2),
    ),
}
SEVERAL = ("class", "ordinal", "two levels")  # raw numbers for one label


def heads(own_tasks):
    """A model of towers that are the heads alone, fed with what they would compute."""
    inputs, outputs = {}, {}
    for task in own_tasks:
        raw = keras.Input((task.output_units,), name=f"raw_{task.name}")
        identity = np.eye(task.output_units).tolist()
        p = layers.Tower(
            (),
            task.output_units,
            head_activation=task.head_activation,
            kernel_initializer=keras.initializers.Constant(identity),
            name=f"{task.name}_tower",
        )(raw)
        if task.after is not None:
            joint = layers.JointProbability(name=f"{task.name}_joint")
            p = joint([outputs[task.after], p])
        inputs[raw.name], outputs[task.name] = raw, p
    return models.MultiTaskModel(inputs, outputs, tasks=own_tasks)


def loss_and_gradients(model, inputs, labels, weights):
    """In a graph, as `fit` has it."""

    @tf.function
    def run(inputs, labels, weights):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs, training=True)
            loss = model.compute_loss(inputs, labels, outputs, weights)
        return loss, tape.gradient(loss, inputs)

    inputs, labels, weights = keras.tree.map_structure(
        lambda x: tf.constant(x, "float32"), (inputs, labels, weights)
    )
    return run(inputs, labels, weights)


def hidden(how, task, labels, missing):
    """Missing labels in one of the ways to say so: task, labels to give."""
    if how == "nan":
        return task, {"t": np.where(missing, np.nan, labels)}
    if how == "sentinel":
        return replace(task, missing=-9.0), {"t": np.where(missing, -9.0, labels)}
    seen = np.where(missing[:, :1], [[0.0], [-1.0], [np.nan]] * 8, 2.5)
    return replace(task, where="seen"), {"t": labels, "seen": seen}


def examples(kind, how):
    """A task, labels to give, raws, weights, and by the twin loss and gradient."""
    task, loss, draw = KINDS[kind]
    generator = np.random.default_rng(list(KINDS).index(kind))
    labels = draw(generator, 24)
    raw = generator.normal(scale=2, size=(24, task.output_units)).astype("f4")
    weights = generator.uniform(0, 2, 24).astype("f4")
    weights[5] = 0
    missing = generator.random(labels.shape) < 0.4
    if how == "where":
        missing[:] = missing[:, :1]
    task, given = hidden(how, task, labels, missing)
    labels = np.where(missing, np.nan, labels)

    def mean(raw):
        each = raw[:, None] if kind in SEVERAL else raw
        return twins.labelled_mean(loss, labels, each, weights)

    slope = twins.slope(mean, raw.astype("f8"))
    return task, given, raw, weights, mean(raw.astype("f8")), slope


@pytest.mark.parametrize("how", ["nan", "sentinel", "where"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_of_a_kind(kind, how):
    task, given, raw, weights, expected, slope = examples(kind, how)
    model = heads([task])
    model.compile("sgd", metrics={})
    loss, gradients = loss_and_gradients(model, {"raw_t": raw}, given, weights)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    np.testing.assert_allclose(gradients["raw_t"], slope, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_step_of_a_kind_in_fit(kind):
    task, given, raw, weights, expected, slope = examples(kind, "nan")
    model = heads([task])
    model.compile(keras.optimizers.SGD(1.0), metrics={})
    batches = tf.data.Dataset.from_tensors(({"raw_t": raw}, given, weights))
    history = model.fit(batches, verbose=0, shuffle=False).history
    np.testing.assert_allclose(history["loss"], expected, rtol=2e-6)
    np.testing.assert_allclose(history["t_loss"], expected, rtol=2e-6)
    bias = model.get_layer("t_tower").head.bias.numpy()
    np.testing.assert_allclose(-bias, slope.sum(axis=0), rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [2, 3])
def test_funnel_loss(steps):
    names = ["a", "b", "c"][:steps]
    before = [None, *names[:-1]]
    own = [tasks.Binary(name, after=b) for name, b in zip(names, before, strict=True)]
    generator = np.random.default_rng(0)
    raw = generator.normal(scale=2, size=(steps, 24)).astype("f4")
    taken = np.cumprod(generator.integers(0, 2, (steps, 24)), axis=0).astype("f4")
    taken[generator.random(taken.shape) < 0.3] = np.nan
    weights = generator.uniform(0, 2, 24).astype("f4")
    filled, shares = twins.funnel_labels(taken)
    counts = weights.astype("f8") * shares
    expected = weights.astype("f8") * twins.funnel_expected(filled, shares)
    expected[0, np.isnan(filled[0])] = 0

    def mean(raw):
        total = 0.0
        for k in range(steps):
            of_step, labels = raw[: k + 1].T[:, None], filled[k][:, None]
            loss = twins.labelled_mean(twins.funnel_loss, labels, of_step, counts[k])
            known = counts[k, ~np.isnan(filled[k])]
            total += loss * known.sum() / expected[k].sum()
        return total

    model = heads(own)
    model.compile("sgd", metrics={})
    inputs = {f"raw_{name}": x[:, None] for name, x in zip(names, raw, strict=True)}
    labels = dict(zip(names, taken, strict=True))
    loss, gradients = loss_and_gradients(model, inputs, labels, weights)
    np.testing.assert_allclose(loss, mean(raw.astype("f8")), rtol=2e-6)
    got = np.stack([gradients[name][:, 0] for name in inputs])
    slope = twins.slope(mean, raw.astype("f8"))
    np.testing.assert_allclose(got, slope, rtol=2e-5, atol=1e-7)


def probabilities(seed, *shape):
    return np.random.default_rng(seed).random(shape).astype("f4")


def test_joint_probability():
    first, second = probabilities(0, 9, 1), probabilities(1, 9, 1)
    expected = twins.joint_probability(first, second)
    assert_close(ops.joint_probability(first, second), expected)
    assert_close(layers.JointProbability()([first, second]), expected)


@pytest.mark.parametrize("kind, offset", [("sum", 0), ("product", 0), ("product", 0.5)])
def test_score_fusion(kind, offset):
    predictions = {task: probabilities(k, 9, 1) for k, task in enumerate("abc")}
    weights = {"c": 2.0, "a": -0.5}
    expected = twins.score_fusion(predictions, weights, kind, offset)
    assert_close(layers.ScoreFusion(weights, kind, offset)(predictions), expected)


@pytest.mark.parametrize("power, expected", [(0.0, 0.5), (2.0, 0.0)])
def test_product_of_a_probability_that_is_0(power, expected):
    fusion = layers.ScoreFusion({"a": 1.0, "b": power}, "product")
    score = fusion({"a": np.array([[0.5]], "f4"), "b": np.array([[0.0]], "f4")})
    assert_close(score, np.array([[expected]]))
