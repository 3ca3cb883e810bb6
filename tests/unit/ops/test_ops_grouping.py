"""Layouts of a routing: what their costs count, and that the cheap ones are chosen."""

import numpy as np
import pytest

from tfmtl.ops.grouping import DEVICES, Device, group_outputs

INF = float("inf")
APART = np.eye(2, dtype=bool)


def opened(seed, outputs=5, inputs=6):
    generator = np.random.default_rng(seed)
    share = generator.choice([0.2, 0.4, 0.6])
    found = generator.random((outputs, inputs)) < share
    return found | np.eye(outputs, inputs, dtype=bool)


def laid_out(connections, device, monkeypatch, batch=1, width=1):
    monkeypatch.setitem(DEVICES, "cpu", device)
    return group_outputs(connections, width, width, batch)


def partitions(items):
    """All ways to put items into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for groups in partitions(rest):
        yield [[first], *groups]
        for k, group in enumerate(groups):
            yield [*groups[:k], [first, *group], *groups[k + 1 :]]


def seconds(groups, inputs, width, batch, device):
    return sum(
        DEVICES[device].seconds(
            batch, len(reads) * width, len(computes) * width, len(reads) < inputs
        )
        for reads, computes in groups
    )


# apart a group more, 4 b FLOPs and 2 weights less, and 2 b values are copied
@pytest.mark.parametrize(
    "device, first",
    [
        (Device(100.0, 1.0, INF, INF), 25),  # 4 b = 100
        (Device(100.0, 1.0, 1.0, INF), 50),  # 4 b = 100 + 2 b
        (Device(100.0, 1.0, INF, 0.1), 20),  # 4 b + 2 / .1 = 100
    ],
)
def test_batch_from_which_products_are_apart(device, first, monkeypatch):
    assert len(laid_out(APART, device, monkeypatch, first - 1)) == 1
    assert len(laid_out(APART, device, monkeypatch, first)) == 2


def test_what_reads_all_inputs_copies_none(monkeypatch):
    device = Device(0.0, 1.0, 1 / 3, INF)
    # apart 4 FLOPs and 2 values copied, joined 8 FLOPs and none
    assert len(laid_out(APART, device, monkeypatch)) == 1
    # joined 2 values copied too, beside a third input
    assert len(laid_out(np.eye(2, 3, dtype=bool), device, monkeypatch)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_ends_of_the_costs(seed, monkeypatch):
    connections = opened(seed)
    sets = {row.tobytes() for row in connections}
    free = Device(0.0, 1.0, INF, INF)
    assert len(laid_out(connections, free, monkeypatch)) == len(sets)
    assert len(laid_out(connections, Device(1e9, 1.0, INF, INF), monkeypatch)) == 1


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("batch", [1, 256, 65536])
@pytest.mark.parametrize("width", [16, 256])
def test_layout_is_about_as_fast_as_any(width, batch, device):
    for seed in range(5):
        connections = opened(seed)
        layouts = [
            [(np.flatnonzero(connections[own].any(axis=0)), own) for own in groups]
            for groups in partitions(range(5))
        ]
        fastest = min(seconds(each, 6, width, batch, device) for each in layouts)
        found = group_outputs(connections, width, width, batch, device)
        assert seconds(found, 6, width, batch, device) <= 1.1 * fastest


@pytest.mark.parametrize("batch", [None, 1, 256, 65536])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("seed", range(5))
def test_no_layout_has_more_products_than_the_dense_one(seed, device, batch):
    connections = opened(seed, outputs=8, inputs=8)
    groups = group_outputs(connections, 256, 256, batch, device)
    pairs = sum(len(reads) * len(computes) for reads, computes in groups)
    assert connections.sum() <= pairs <= connections.size


@pytest.mark.parametrize("batch", [1, 256, 65536])
@pytest.mark.parametrize("seed", range(3))
def test_kernels_of_the_groups_give_the_dense_outputs(seed, batch):
    connections = opened(seed)
    generator = np.random.default_rng(seed)
    kernel = generator.normal(size=(5, 6, 3, 4)) * connections[..., None, None]
    x = generator.normal(size=(2, 6, 3))
    got = np.zeros((2, 5, 4))
    for reads, computes in group_outputs(connections, 3, 4, batch):
        own = kernel[np.ix_(computes, reads)]
        got[:, computes] = np.einsum("bjd,ijdh->bih", x[:, reads], own)
    np.testing.assert_allclose(got, np.einsum("bjd,ijdh->bih", x, kernel))
