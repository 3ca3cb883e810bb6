"""Layouts of routings for a batch size: another order of work, the same outputs."""

import keras
import numpy as np
import pytest

from tfmtl.folding import fold
from tfmtl.layers import Experts, PrunedTransformation, SubNetworkRouting
from tfmtl.layers.gates import gates
from tfmtl.ops.grouping import group_outputs


def network(closed=0.5, width=64):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16,))
    x = Experts(8, width)(x)
    for level in (1, 2):
        x = SubNetworkRouting(8, width, activation="relu", name=f"level_{level}")(x)
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    generator = np.random.default_rng(0)
    for gate in gates(model):
        shut = generator.permutation(64) < round(closed * 64)
        gate.set_log_alpha(np.where(shut, -4.0, 4.0).reshape(8, 8))
    return model


def groups_of(model):
    layers = [x for x in model.layers if isinstance(x, PrunedTransformation)]
    return [len(layer.groups) for layer in layers]


@pytest.mark.parametrize("batch_size", [1, 64, 4096])
def test_same_outputs(batch_size):
    model = network()
    folded = fold(model, batch_size=batch_size)
    x = np.random.default_rng(1).standard_normal((32, 16)).astype("f4")
    expected, got = model.predict(x, verbose=0), folded.predict(x, verbose=0)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    again = fold(folded, batch_size=batch_size)
    assert groups_of(again) == groups_of(folded)


def test_more_examples_more_products():
    model = network()
    one, some, many = (groups_of(fold(model, batch_size=b)) for b in (1, 64, 4096))
    assert sum(one) <= sum(some) <= sum(many)
    assert sum(one) < sum(many)


def test_without_a_batch_size_one_example_is_not_slow():
    opened = np.random.default_rng(0).random((8, 8)) < 0.5
    opened |= np.eye(8, dtype=bool)
    assert len(group_outputs(opened, 64, 64)) < len(group_outputs(opened, 64, 64, 4096))


def test_refused_batch_size():
    with pytest.raises(ValueError) as error:
        fold(network(), batch_size=0)
    assert str(error.value) == (
        "`batch_size` should be a positive integer. Received: batch_size=0"
    )
