import keras
import numpy as np
import pytest
from mixtures import random_mixture
from networks import random_network

from tfmtl.folding import compare, fold, structure
from tfmtl.ops import grouping

ROWS = 33


@pytest.fixture(autouse=True)
def groups_of_every_size(request, monkeypatch):
    """Every other seed computes each set of inputs apart, however small."""
    if request.node.callspec.params["seed"] % 2:
        monkeypatch.setattr(grouping, "_SECONDS_PER_GROUP", 0.0)


def _check(seed, network):
    generator = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    model = network(generator, closed=float(generator.uniform(0, 1)))
    rows = {"x": generator.normal(size=(ROWS, model.input["x"].shape[1]))}
    before = model(rows, training=False)
    folded = fold(model, rows)
    after = folded(rows, training=False)
    assert list(after) == list(before)
    for name in before:
        assert after[name].shape == before[name].shape
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)
    report = compare(model, folded)
    assert report.after.connections <= report.before.connections
    assert report.after.sub_networks <= report.before.sub_networks
    assert structure(fold(folded)) == report.after
    keras.backend.clear_session()


each_network = pytest.mark.parametrize("network", [random_network, random_mixture])


@each_network
@pytest.mark.parametrize("seed", range(20))
def test_random_topologies_fold_to_equal_outputs(seed, network):
    _check(seed, network)


@pytest.mark.slow
@each_network
@pytest.mark.parametrize("seed", range(20, 220))
def test_many_random_topologies_fold_to_equal_outputs(seed, network):
    _check(seed, network)
