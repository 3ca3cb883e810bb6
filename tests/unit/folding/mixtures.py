"""Random networks of gates and mixtures for fold tests."""

import keras
import numpy as np
from networks import close_gates, head, randomise, streams_of

from tfmtl.layers import (
    DSelectKGate,
    Experts,
    Mixture,
    SoftmaxGate,
    StaticMixture,
    SubNetworkRouting,
)
from tfmtl.models import extraction, fusion


def random_mixture(generator: np.random.Generator, closed: float) -> keras.Model:
    """Levels of experts, gates and routings, with a share `closed` of gates at 0."""
    tasks = int(generator.integers(1, 5))
    inputs = keras.Input((int(generator.integers(1, 6)),), name="x")
    x = inputs
    for level in range(1, int(generator.integers(1, 4))):
        x = _level(
            generator, x, inputs, int(generator.integers(1, 6)), f"level_{level}"
        )
    x = _level(generator, x, inputs, tasks, "tasks")
    outputs = {
        f"task_{k}": head(f"tower_{k}")(stream)
        for k, stream in enumerate(streams_of(generator, x, tasks))
    }
    model = keras.Model({"x": inputs}, outputs)
    randomise(model, generator)
    close_gates(model, generator, closed)
    return model


def _level(generator, x, inputs, rows, name):
    """`rows` slots of what is given, `(batch, d)` or with slots."""
    kind = generator.integers(6) if len(x.shape) == 3 else generator.integers(4)
    units = int(generator.integers(1, 5))
    if kind == 0:
        return _extraction(generator, x, rows, units, name)
    if kind < 4:
        count = int(generator.integers(1, 6))
        slots = None
        if len(x.shape) == 3:
            slots = generator.integers(0, x.shape[1], count).tolist()
        stack = Experts(count, (units, 3), slots=slots, name=f"{name}_experts")(x)
        gate = _gate(generator, rows, count, f"{name}_gate")
        selector = x if len(x.shape) == 3 and x.shape[1] == rows else inputs
        return Mixture(name=f"{name}_mixture")([stack, gate(selector)])
    if kind == 4:
        reads = generator.random((rows, x.shape[1])) < 0.7
        return StaticMixture(rows, reads.tolist(), use_bias=True, name=name)(x)
    return SubNetworkRouting(rows, units, activation="tanh", name=name)(x)


def _extraction(generator, x, rows, units, name):
    """CGC or AdaTT on `rows` modules, as a last level."""
    shared = int(generator.integers(0, 3))
    own = [int(generator.integers(0 if shared else 1, 3)) for _ in range(rows)]
    if len(x.shape) == 3:  # as many streams as modules
        modules = rows + (1 if shared else 0)
        x = SubNetworkRouting(modules, 3, name=f"{name}_streams")(x)
    level = extraction if generator.integers(2) else fusion
    gate = {"hard_concrete": {}}
    return level(x, own, shared, units, last=True, gate=gate, name=name)


def _gate(generator, rows, count, name):
    reads = generator.random((rows, count)) < 0.7
    reads[np.arange(rows), generator.integers(0, count, rows)] = True
    kind = generator.integers(4)
    if kind == 0:
        return DSelectKGate(rows, count, k=2, reads=reads, name=name)
    if kind == 1:
        return DSelectKGate(rows, count, per_example=False, reads=reads, name=name)
    hard_concrete = {} if kind == 2 else None
    return SoftmaxGate(rows, count, reads, hard_concrete=hard_concrete, name=name)
