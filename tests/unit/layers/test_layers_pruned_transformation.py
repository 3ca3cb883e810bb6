"""Gaps in the kernels of a `PrunedTransformation`."""

import keras
import numpy as np
import pytest

from tfmtl.layers import PrunedTransformation

GROUPS = [([0, 2], [0, 1]), ([1], [2])]
READS = [[0, 2], [2], [1]]


def built(**arguments):
    keras.utils.set_random_seed(0)
    layer = PrunedTransformation(GROUPS, 5, **arguments)
    layer.build((None, 3, 4))
    return layer


def dense_of(*connections):
    kernel = np.zeros((3, 4, 3, 5), "f4")
    for output, slot in connections:
        kernel[slot, :, output] = 1.0
    return kernel


def of(kernel):
    every = np.arange(3), np.arange(3)
    layer, _ = PrunedTransformation.of(kernel, *every, np.zeros((3, 4)), bias=None)
    return layer


def test_gaps_are_zero_from_the_start_in_inference_and_in_training():
    layer = built(reads=READS)
    kernel = layer.kernels[0].numpy().reshape(2, 4, 2, 5)
    assert not kernel[0, :, 1].any()
    assert kernel[0, :, 0].all() and kernel[1].all()
    np.testing.assert_array_equal(layer.slot_reads(), [[1, 0, 1], [0, 0, 1], [0, 1, 0]])
    u = np.random.default_rng(0).normal(size=(6, 3, 4)).astype("f4")
    np.testing.assert_array_equal(layer(u, training=True), layer(u))


def test_only_a_kernel_with_gaps_is_constrained():
    layer = built(reads=READS)
    assert [w.constraint is None for w in layer.kernels] == [False, True]
    assert all(w.constraint is None for w in built().kernels)


def test_gaps_lose_what_an_optimizer_gives_them():
    layer = built(reads=READS)
    kernel = layer.kernels[0]
    opened = kernel.numpy() != 0
    kernel.assign(np.where(opened, 1.0, np.nan))
    np.testing.assert_array_equal(kernel.constraint(kernel), opened.astype("f4"))


def test_the_configuration_says_which_gaps_there_are():
    layer = built(reads=READS)
    assert layer.get_config()["reads"] == READS
    again = PrunedTransformation.from_config(layer.get_config())
    assert again.reads == READS
    assert built().get_config()["reads"] is None
    assert built(reads=[[0, 2], [2, 0], [1]]).get_config()["reads"] is None


def test_a_dense_kernel_gives_the_gaps_of_its_zeros():
    layer = of(dense_of((0, 0), (0, 1), (1, 1), (2, 2)))
    assert layer.groups == [([0, 1, 2], [0, 1, 2])]
    assert layer.reads == [[0, 1], [1], [2]]
    assert of(np.ones((3, 4, 3, 5), "f4")).get_config()["reads"] is None


def test_what_is_made_of_a_layer_has_its_gaps():
    layer = of(dense_of((0, 0), (0, 1), (1, 1), (2, 2)))
    regrouped, order = layer.for_batch(1, "gpu")
    assert [layer.reads[k] for k in order] == regrouped.reads
    smaller, _ = layer.fold(np.array([1, 2]), np.array([1, 2]), np.zeros((3, 4)))
    assert smaller.reads == [[0], [1]]
    assert layer.behind(np.ones((6, 4)), np.zeros(4)).reads == layer.reads
    kernels, biases = np.ones((2, 5, 3)), np.zeros((2, 3))
    before = layer.before([1, 0], kernels, biases, keras.activations.linear)
    assert before.reads == [[1], [0, 1]]


@pytest.mark.parametrize("reads", [[[0], [2]], [[0], [1], [1]], [[0], [2], [1, 0]]])
def test_refused_reads(reads):
    with pytest.raises(ValueError) as error:
        built(reads=reads)
    assert str(error.value) == (
        "`reads` should have 3 lists of slots, each of those that the output's group "
        f"reads. Received: reads={reads}"
    )
