"""Experts: independent initial weights of the right scale; refusals."""

import itertools

import keras
import numpy as np
import pytest

from tfmtl import layers
from tfmtl.folding import fold


def kernel_of(layer, shape):
    layer.build(shape)
    kernel = getattr(layer, "kernel", None)
    return keras.ops.convert_to_numpy(layer.kernels[0] if kernel is None else kernel)


INITIALIZERS = [
    "glorot_uniform",
    keras.initializers.HeNormal(seed=0),
    keras.initializers.GlorotUniform(seed=keras.random.SeedGenerator(0)),
]


def cosine(a, b):
    return abs((a * b).sum()) / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_experts_start_unlike_each_other(initializer):
    layer = layers.Experts(5, 32, kernel_initializer=initializer)
    kernel = kernel_of(layer, (None, 16))
    for a, b in itertools.combinations(kernel, 2):
        assert cosine(a, b) < 0.2
    assert all(np.linalg.matrix_rank(expert) > 1 for expert in kernel)


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_routing_outputs_start_unlike_each_other(initializer):
    layer = layers.SubNetworkRouting(4, 16, kernel_initializer=initializer)
    kernel = kernel_of(layer, (None, 3, 16))
    blocks = kernel.transpose(0, 2, 1, 3).reshape(12, 16, 16)
    for a, b in itertools.combinations(blocks, 2):
        assert cosine(a, b) < 0.3


def test_layers_of_neighbouring_seeds_share_no_expert():
    kernels = [
        kernel_of(
            layers.Experts(
                3, 8, kernel_initializer=keras.initializers.HeNormal(seed=seed)
            ),
            (None, 8),
        )
        for seed in (1, 2, 3)
    ]
    for a, b in itertools.combinations(np.concatenate(kernels), 2):
        assert not np.allclose(a, b)


def test_seed_gives_the_same_weights_again():
    def make():
        initializer = keras.initializers.GlorotUniform(seed=7)
        return kernel_of(
            layers.Experts(3, 4, kernel_initializer=initializer), (None, 5)
        )

    np.testing.assert_array_equal(make(), make())


def test_caller_s_initializer_is_left_alone():
    initializer = keras.initializers.GlorotUniform(seed=7)
    kernel_of(layers.Experts(3, 4, kernel_initializer=initializer), (None, 5))
    assert initializer.get_config()["seed"] == 7


@pytest.mark.parametrize("seed", [None, 3])
def test_scale_is_that_of_one_expert(seed):
    initializer = keras.initializers.GlorotUniform(seed=seed)
    layer = layers.Experts(8, 64, kernel_initializer=initializer)
    kernel = kernel_of(layer, (None, 128))
    np.testing.assert_allclose(
        kernel.std(axis=(1, 2)), np.sqrt(2 / (128 + 64)), rtol=0.05
    )


def test_scale_of_a_routing_is_that_of_the_dense_layer():
    kernel = kernel_of(layers.SubNetworkRouting(3, 64), (None, 4, 32))
    np.testing.assert_allclose(
        kernel.std(axis=(0, 1, 3)), np.sqrt(2 / (4 * 32 + 64)), rtol=0.05
    )


def test_function_as_initializer():
    def ones(shape, dtype=None):
        return keras.ops.ones(shape, dtype)

    kernel = kernel_of(layers.Experts(2, 4, kernel_initializer=ones), (None, 3))
    assert (kernel == 1).all()


def test_regularizer_adds_to_the_loss():
    layer = layers.Experts(2, 3, kernel_regularizer=keras.regularizers.L2(0.5))
    kernel = kernel_of(layer, (None, 4))
    np.testing.assert_allclose(
        float(layer.losses[0]), 0.5 * (kernel**2).sum(), rtol=1e-6
    )


def test_expert_of_a_stack_reads_its_own_slot():
    layer = layers.Experts(3, 4, activation=None)
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("f4")
    before = keras.ops.convert_to_numpy(layer(x))
    x[:, 1] += 1
    changed = keras.ops.convert_to_numpy(layer(x)) != before
    assert changed.any(axis=(0, 2)).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"num_experts": 0, "units": 4},
            "`num_experts` should be a positive integer. Received: num_experts=0",
        ),
        (
            {"num_experts": 2, "units": -3},
            "`units` should be a positive integer. Received: units=-3",
        ),
        (
            {"num_experts": True, "units": 4},
            "`num_experts` should be a positive integer. Received: num_experts=True",
        ),
        (
            {"num_experts": 2, "units": 4.0},
            "`units` should be a positive integer. Received: units=4.0",
        ),
    ],
)
def test_refused_arguments(arguments, text):
    with pytest.raises(ValueError) as error:
        layers.Experts(**arguments)
    assert str(error.value) == text


@pytest.mark.parametrize(
    "shape, text",
    [
        (
            (None, 3, 5),
            "An input of Experts with slots should have one for each expert, 2, "
            "unless `slots` says which expert reads which. "
            "Received: shape=(None, 3, 5)",
        ),
        (
            (None, None, 5),
            "Experts should be called on a tensor of shape (batch, slots, width) "
            "with known slots and width. Received: shape=(None, None, 5)",
        ),
        (
            (None, 2, 5, 6),
            "Experts should be called on a tensor of shape (batch, slots, width) "
            "with known slots and width. Received: shape=(None, 2, 5, 6)",
        ),
    ],
)
def test_refused_shapes(shape, text):
    with pytest.raises(ValueError) as error:
        layers.Experts(2, 4).build(shape)
    assert str(error.value) == text


@pytest.mark.parametrize(
    "layer",
    [
        layers.Experts(2, 4, normalization="batch"),
        layers.Tower((4,), normalization="batch"),
    ],
)
def test_frozen_statistics_stay_frozen_in_a_copy(layer):
    x = keras.Input((3,))
    model = keras.Model(x, layer(x))
    layer.trainable = False
    rows = np.random.default_rng(0).normal(1.0, size=(8, 3)).astype("f4")
    for copy in (model, keras.models.clone_model(model), fold(model)):
        before = copy.get_weights()
        copy(rows, training=True)
        for old, new in zip(before, copy.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
