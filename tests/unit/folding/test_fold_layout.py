"""Layouts of routings for a batch size: another order of work, the same outputs."""

import keras
import numpy as np
import pytest

from tfmtl.cli import main
from tfmtl.folding import compare, fold
from tfmtl.layers import Experts, PrunedTransformation, SubNetworkRouting
from tfmtl.layers.gates import gates
from tfmtl.ops.grouping import group_outputs
from tfmtl.serving import export
from tfmtl.serving.manifest import read_manifest


def network(closed=0.5, width=64):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16,), name="x")
    x = Experts(8, width)(x)
    for level in (1, 2):
        x = SubNetworkRouting(8, width, activation="relu", name=f"level_{level}")(x)
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    generator = np.random.default_rng(0)
    for gate in gates(model):
        shut = generator.permutation(64) < round(closed * 64)
        gate.set_log_alpha(np.where(shut, -4.0, 4.0).reshape(8, 8))
    return model


def random_connections(seed, count=8, share=0.25):
    opened = np.random.default_rng(seed).random((count, count)) < share
    return opened | np.eye(count, dtype=bool)


def groups_of(model):
    layers = [x for x in model.layers if isinstance(x, PrunedTransformation)]
    return [len(layer.groups) for layer in layers]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("batch_size", [None, 1, 64, 4096])
def test_same_outputs(batch_size, device):
    model = network()
    folded = fold(model, batch_size=batch_size, device=device)
    x = np.random.default_rng(1).standard_normal((32, 16)).astype("f4")
    expected, got = model.predict(x, verbose=0), folded.predict(x, verbose=0)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    again = fold(folded, batch_size=batch_size, device=device)
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


@pytest.mark.parametrize("closed", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("batch_size", [None, 1, 256, 4096])
def test_gpu_has_one_product_per_routing(batch_size, closed):
    model = network(closed)
    assert groups_of(fold(model, batch_size=batch_size, device="gpu")) == [1, 1]


def test_gpu_has_more_products_where_they_are_large():
    opened = random_connections(0)
    assert len(group_outputs(opened, 64, 64, 65536, "gpu")) == 1
    assert len(group_outputs(opened, 4096, 4096, 65536, "gpu")) > 1


def test_export_and_its_command_lay_out_for_a_device(tmp_path):
    inner = network(0.75)
    model = keras.Model({"x": inner.input}, {"y": inner.output})
    expected, other = (
        compare(model, fold(model, batch_size=4096, device=device)).as_dict()
        for device in ("gpu", "cpu")
    )
    assert expected != other
    written = export(model, tmp_path, fold=True, batch_sizes=[4096], device="gpu")
    assert written.fold.as_dict() == expected
    model.save(tmp_path / "model.keras")
    words = ["--batch-sizes", "4096", "--device", "gpu"]
    assert main(["export", str(tmp_path / "model.keras"), str(tmp_path), *words]) == 0
    assert read_manifest(tmp_path / "2")["facts"]["fold"] == expected


@pytest.mark.parametrize("function", [fold, export])
def test_unknown_device(function, tmp_path):
    inner = network()
    model = keras.Model({"x": inner.input}, {"y": inner.output})
    base = [tmp_path] if function is export else []
    with pytest.raises(ValueError) as error:
        function(model, *base, device="tpu")
    assert str(error.value) == (
        "`device` should be one of ['cpu', 'gpu']. Received: device='tpu'"
    )
    assert not any(tmp_path.iterdir())
