"""The softmax gate: the size of its products."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfmtl import layers

READS = [  # 3, 1 and 2 experts of 4
    [True, False, True, True],
    [False, True, False, False],
    [False, True, True, False],
]


def products(layer, shape):
    """Floating-point operations of the matrix products of a call, per example."""
    traced = tf.function(layer).get_concrete_function(tf.TensorSpec((1, *shape)))
    found = [op for op in traced.graph.get_operations() if op.type == "MatMul"]
    return sum(
        2 * math.prod(op.inputs[0].shape) * op.inputs[1].shape[-1] for op in found
    )


@pytest.mark.parametrize("shape", [(5,), (3, 5), (4, 5)])
@pytest.mark.parametrize("reads", [None, READS])
def test_operations_are_those_of_the_call(reads, shape):
    layer = layers.SoftmaxGate(3, 4, reads)
    layer.build((None, *shape))
    assert layer.flops() == products(layer, shape) == 2 * 5 * 3 * 4


def test_no_choice_no_operations():
    layer = layers.SoftmaxGate(2, 2, np.eye(2))
    layer.build((None, 5))
    assert layer.flops() == products(layer, (5,)) == 0
