"""Every operation and layer against its twin in NumPy."""

import keras
import numpy as np
import pytest
import twins

from tfmtl import layers, ops
from tfmtl.ops.grouping import group_outputs

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


def assert_close(got, expected):
    got = keras.ops.convert_to_numpy(got)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


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
