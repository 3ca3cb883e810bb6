"""Random networks of every architecture fold to equal outputs."""

import keras
import numpy as np
import pytest
from mixes import random_mix
from mixtures import random_mixture
from networks import random_network
from recipes import random_recipe

from tfmtl.folding import compare, fold, structure
from tfmtl.folding.rows import made_up_rows

ROWS = 33
NETWORKS = [random_network, random_mixture, random_recipe, random_mix]


@pytest.fixture(autouse=True)
def groups_of_every_size(request):
    """Every other seed computes each set of inputs apart, however small."""
    if request.node.callspec.params["seed"] % 2:
        request.getfixturevalue("free_groups")


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def _check(seed, network):
    generator = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    model = network(generator, closed=float(generator.uniform(0, 1)))
    double = keras.config.dtype_policy().name == "float64"
    weights, tolerance = model.get_weights(), 1e-9 if double else 1e-5
    rows = made_up_rows(model, ROWS, seed + 1)
    before = _outputs(model, rows)
    folded = fold(model, rows, tolerance)
    after = _outputs(folded, rows)
    assert after.keys() == before.keys()
    for name in before:
        assert after[name].shape == before[name].shape
        np.testing.assert_allclose(after[name], before[name], tolerance, tolerance)
    report = compare(model, folded)
    for name, count in report.after.as_dict().items():
        if name in ("connections", "sub_networks", "fields", "flops"):
            assert count <= report.before.as_dict()[name], name
    again = fold(folded, rows, tolerance)
    assert structure(again) == report.after
    assert _summary(again) == _summary(folded)
    for old, weight in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, old)
    keras.backend.clear_session()


def _outputs(model, rows):
    given = {
        name: keras.ops.convert_to_tensor(rows[name].tolist(), tensor.dtype)
        for name, tensor in model.input.items()
    }
    outputs = model(given, training=False)
    return {name: keras.ops.convert_to_numpy(y) for name, y in outputs.items()}


def _summary(model):
    return [
        (type(layer).__name__, [tuple(weight.shape) for weight in layer.weights])
        for layer in model.layers
    ]


each_network = pytest.mark.parametrize("network", NETWORKS)
float32 = pytest.mark.parametrize("policy", ["float32"], indirect=True)
float64 = pytest.mark.parametrize("policy", ["float64"], indirect=True)


@each_network
@float32
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_fold_to_equal_outputs(seed, network, policy):
    _check(seed, network)


@each_network
@float64
@pytest.mark.parametrize("seed", range(1000, 1003))
def test_random_networks_fold_closer_in_float64(seed, network, policy):
    _check(seed, network)


@pytest.mark.slow
@each_network
@float32
@pytest.mark.parametrize("seed", range(12, 125))
def test_many_random_networks_fold_to_equal_outputs(seed, network, policy):
    _check(seed, network)


@pytest.mark.slow
@each_network
@float64
@pytest.mark.parametrize("seed", range(1003, 1030))
def test_many_random_networks_fold_closer_in_float64(seed, network, policy):
    _check(seed, network)
