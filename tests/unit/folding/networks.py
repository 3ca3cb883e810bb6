"""Random networks for fold tests, drawn from a NumPy generator."""

import keras
import numpy as np

from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.sparsity import gates

_CONSTANT_AT_FIRST = ("z", "alpha", "beta", "gamma", "moving_mean")


def random_network(generator: np.random.Generator, closed: float) -> keras.Model:
    """An SNR of random shape with about a share `closed` of its gates at 0.

    1-4 levels, 1-9 sub-networks each, plain Keras layers between some of them;
    sometimes a task loses all its inputs, or a sub-network all its readers.
    """
    levels = generator.integers(1, 10, generator.integers(1, 5))
    tasks = int(generator.integers(1, 5))
    average = bool(generator.integers(2))
    width = int(generator.integers(1, 5))
    inputs = keras.Input((int(generator.integers(1, 6)),), name="x")
    x = Experts(int(levels[0]), width, name="level_1")(inputs)
    for level, count in enumerate(levels[1:], 2):
        x = _between(generator, x, f"between_{level}")
        x = _routing(generator, int(count), average, f"level_{level}")(x)
    x = _routing(generator, tasks, average, "tasks")(x)
    outputs = {
        f"task_{k}": head(f"tower_{k}")(stream)
        for k, stream in enumerate(streams_of(generator, x, tasks))
    }
    model = keras.Model({"x": inputs}, outputs)
    randomise(model, generator)
    close_gates(model, generator, closed)
    return model


def head(name: str) -> keras.layers.Layer:
    """A small tower."""
    return Tower((3,), name=name)


def randomise(model: keras.Model, generator: np.random.Generator) -> None:
    """Draws what is constant at the start, statistics of batches included."""
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(generator.uniform(0.5, 2.0, weight.shape))
        elif weight.name in _CONSTANT_AT_FIRST or weight.name.startswith("bias"):
            weight.assign(generator.normal(size=weight.shape))


def close_gates(
    model: keras.Model, generator: np.random.Generator, closed: float
) -> None:
    """Closes a share of the gates; sometimes a whole row or column."""
    for gate in gates(model):
        log_alpha = generator.uniform(-2.3, 4.6, gate.shape)
        log_alpha[generator.random(gate.shape) < closed] = -4.0
        if generator.random() < 0.2:
            log_alpha[generator.integers(gate.shape[0])] = -4.0
        if generator.random() < 0.2:
            log_alpha[..., generator.integers(gate.shape[-1])] = -4.0
        gate.set_log_alpha(log_alpha)


def _routing(generator, count, average, name):
    return SubNetworkRouting(
        count,
        None if average else int(generator.integers(1, 5)),
        "average" if average else "transformation",
        activation=["relu", "tanh", None][generator.integers(3)],
        use_bias=bool(generator.integers(2)),
        name=name,
    )


def _between(generator, x, name):
    layers = keras.layers
    return [
        lambda: x,
        lambda: layers.Dropout(0.5, name=name)(x),
        lambda: layers.LayerNormalization(name=name)(x),
        lambda: layers.Dense(int(x.shape[-1]), "tanh", name=name)(x),
        lambda: keras.ops.relu(x + 1.0),
        lambda: layers.Add(name=name)([x, layers.Activation("gelu")(x)]),
        lambda: keras.ops.stack(keras.ops.unstack(x, axis=1), axis=1),
        lambda: x[:, ::-1],
        lambda: layers.Concatenate(axis=1, name=name)([x[:, :1], x]),
        lambda: Experts(int(x.shape[1]), int(x.shape[2]), name=name)(x),
    ][generator.integers(10)]()


def streams_of(generator, x, tasks):
    return [
        lambda: keras.ops.unstack(x, tasks, axis=1),
        lambda: [x[:, k] for k in range(tasks)],
        lambda: [keras.ops.take(x, k, axis=1) for k in range(tasks)],
        lambda: [keras.layers.Flatten(name=f"flat_{k}")(x) for k in range(tasks)],
    ][generator.integers(4)]()
