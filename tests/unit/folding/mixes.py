"""Random networks by hand: slots, vectors, nested models and shared layers mixed."""

import keras
import numpy as np
from networks import close_gates, randomise

from tfmtl.layers import Experts, Mixture, SoftmaxGate, SubNetworkRouting, Tower
from tfmtl.models import extraction, fusion

layers = keras.layers


def random_mix(generator: np.random.Generator, closed: float) -> keras.Model:
    """Routings, mixtures and plain layers in any order, some shared, some nested.

    Among them are linear routings, batch normalisation, noise, linear layers in a row,
    outputs from the middle of the network and inputs that nothing reads.
    """
    width = int(generator.integers(1, 6))
    inputs = {name: keras.Input((width,), name=name) for name in ("x", "z", "unread")}
    vectors = [inputs["x"], inputs["z"]]
    for number in range(generator.integers(0, 3)):
        vectors = [
            _of_vector(generator, v, f"in_{number}_{k}") for k, v in enumerate(vectors)
        ]
    x = _stack(generator, vectors)
    for number in range(generator.integers(1, 5)):
        x = _of_slots(generator, x, vectors[0], f"level_{number}")
    outputs = {}
    if generator.random() < 0.2:
        outputs["middle"] = x
    for k, stream in enumerate(keras.ops.unstack(x, int(x.shape[1]), axis=1)[:4]):
        outputs[f"task_{k}"] = _head(generator, stream, f"head_{k}")
    model = keras.Model(inputs, outputs)
    randomise(model, generator)
    close_gates(model, generator, closed)
    return model


def _units(generator):
    return int(generator.integers(1, 6))


def _of_vector(generator, x, name):
    """A layer, or a few, of a vector."""
    linear = layers.Dense(_units(generator), name=f"{name}_linear")
    norm = layers.BatchNormalization(name=f"{name}_norm")
    return [
        lambda: x,
        lambda: norm(x),
        lambda: linear(x),
        lambda: norm(linear(x)),
        lambda: linear(norm(x)),
        lambda: layers.GaussianNoise(0.1, name=f"{name}_noise")(linear(x)),
        lambda: layers.Dense(_units(generator), "relu", name=f"{name}_dense")(x),
        lambda: layers.ActivityRegularization(0.1, name=f"{name}_penalty")(x),
    ][generator.integers(8)]()


def _stack(generator, vectors):
    """Slots of one or both vectors, by one level of experts that they may share."""
    first, second = vectors
    count, units = _units(generator), _units(generator)
    normalization = [None, "batch", "layer"][generator.integers(3)]
    experts = Experts(
        count,
        [units, (units, 3)][generator.integers(2)],
        dropout=0.2,
        normalization=normalization,
        activation=["relu", None][generator.integers(2)],
        name="experts",
    )
    if first.shape[1:] != second.shape[1:] or generator.random() < 0.5:
        return experts(first)
    return layers.Concatenate(axis=1, name="both")([experts(first), experts(second)])


def _of_slots(generator, x, selector, name):
    """A layer of slots, or a few, perhaps inside a model of its own."""
    if generator.random() < 0.2:
        inner = keras.Input(x.shape[1:])
        model = keras.Model(inner, _plain(generator, inner, name), name=f"{name}_inner")
        once = model(x)
        if generator.random() < 0.5:
            return once
        return layers.Add(name=f"{name}_twice")([once, model(x * 0.5)])
    kind = generator.integers(4)
    if kind < 2:
        return _plain(generator, x, name)
    rows = _units(generator)
    if kind == 2:
        count = int(x.shape[1])
        gate = SoftmaxGate(rows, count, hard_concrete={}, name=f"{name}_gate")
        return Mixture(name=f"{name}_mixture")([x, gate(selector)])
    streams = SubNetworkRouting(rows + 1, 3, name=f"{name}_streams")(x)
    level = extraction if generator.integers(2) else fusion
    own = generator.integers(1, 3, rows).tolist()
    gate = {"hard_concrete": {}}
    return level(streams, own, 1, _units(generator), last=True, gate=gate, name=name)


def _plain(generator, x, name):
    slots, width = x.shape[1:]
    norm = layers.BatchNormalization(name=f"{name}_norm")
    routing = SubNetworkRouting(
        _units(generator),
        _units(generator),
        activation=[None, None, "relu"][generator.integers(3)],
        use_bias=bool(generator.integers(2)),
        name=f"{name}_routing",
    )
    experts = Experts(slots, (_units(generator), 3), name=f"{name}_experts")
    linear = layers.Dense(_units(generator), name=f"{name}_linear")
    return [
        lambda: routing(x),
        lambda: norm(routing(x)),
        lambda: routing(norm(x)),
        lambda: linear(routing(x)),
        lambda: routing(linear(x)),
        lambda: experts(norm(x)),
        lambda: layers.SpatialDropout1D(0.2, name=f"{name}_drop")(norm(x)),
        lambda: layers.Dense(int(width), "tanh", name=f"{name}_dense")(norm(x)),
        lambda: SubNetworkRouting(2, kind="average", name=f"{name}_average")(x),
        lambda: layers.LayerNormalization(name=f"{name}_layer_norm")(x),
        lambda: routing(keras.ops.relu(x))[:, ::-1],
    ][generator.integers(11)]()


def _head(generator, x, name):
    tower = Tower(
        [(), (3,), (4, 2)][generator.integers(3)],
        dropout=0.1,
        normalization=[None, None, "batch"][generator.integers(3)],
        head_activation=[None, "sigmoid"][generator.integers(2)],
        name=name,
    )
    norm = layers.BatchNormalization(name=f"{name}_norm")
    return [
        lambda: tower(x),
        lambda: tower(norm(x)),
        lambda: layers.Dense(1, "sigmoid", name=name)(x),
        lambda: layers.Dense(1, name=name)(layers.Dense(4, name=f"{name}_linear")(x)),
        lambda: layers.Activation("linear", name=name)(norm(x)),
    ][[0, 0, 0, 1, 2, 3, 4][generator.integers(7)]]()
