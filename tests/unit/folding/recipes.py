"""Random models of every recipe for fold tests."""

import keras
import numpy as np
from networks import close_gates, randomise

from tfmtl.features import Bucketized, Categorical, Encoder, Numeric, Sequence
from tfmtl.layers import DSelectKGate
from tfmtl.models import (
    adatt,
    cgc,
    cross_stitch,
    mmoe,
    omoe,
    ple,
    shared_bottom,
    single_task,
    snr,
)
from tfmtl.tasks import Binary, Count, MultiClass, Position, Regression

WORDS = ("a", "b", "c")
FEATURES = [
    Numeric("n1", mean=(0.0,), std=(1.0,)),
    Numeric("n2", mean=(0.1,), std=(2.0,), clip=(-1, 2)),
    Numeric("wide", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
    Categorical("c1", vocabulary=WORDS, units=3),
    Categorical("c2", hash_bins=5, units=3),
    Bucketized("b1", boundaries=(-0.5, 0.5), units=2),
    Sequence("s1", vocabulary=WORDS, units=3, length=4),
]
TASKS = [
    Binary("a"),
    Regression("r"),
    Count("n"),
    Binary("late", after="a"),
    MultiClass("m", num_classes=3),
    Binary("shown", position=Position("position", 4)),
]


def random_recipe(generator: np.random.Generator, closed: float) -> keras.Model:
    """A recipe with random arguments, a share `closed` of its gates at 0.

    Fields, pairs and connections close; experts and towers are normalised by batch or
    layer, or drop values; a batch normalisation or a linear layer may come first.
    """
    count = int(generator.integers(1, 5))
    chosen = generator.permutation(len(TASKS))[:count]
    tasks = [TASKS[k] for k in sorted(chosen)]
    if not any(task.name == "a" for task in tasks):
        tasks = [task for task in tasks if task.after is None] or [TASKS[0]]
    some = generator.permutation(len(FEATURES))[: generator.integers(1, 8)]
    features = [FEATURES[k] for k in sorted(some)]
    interactions = [
        [],
        [keras.layers.BatchNormalization(name="norm")],
        [keras.layers.Dense(int(generator.integers(1, 9)), name="linear")],
        [keras.layers.Dropout(0.2, name="drop"), keras.layers.Dense(4, "relu")],
    ][generator.integers(4)]
    hard_concrete = {} if generator.random() < 0.5 else None
    encoder = Encoder(features, interactions, hard_concrete)
    model = _model(generator, encoder, tasks)
    randomise(model, generator)
    close_gates(model, generator, closed)
    return model


def _model(generator, encoder, tasks):
    levels = generator.integers(1, 6, generator.integers(1, 4)).tolist()
    experts = generator.integers(1, 5, len(levels)).tolist()
    gate = [
        None,
        {"hard_concrete": {}},
        {"hard_concrete": {}, "use_bias": True},
        DSelectKGate,
    ][generator.integers(4)]
    own = {task.name: int(generator.integers(1, 3)) for task in tasks}
    given = {"expert": _mlp(generator), "tower": _tower(generator)}
    gated = {**given, "gate": gate}
    routing = {
        "activation": [None, "relu"][generator.integers(2)],
        "use_bias": bool(generator.integers(2)),
    }
    pairs = list(zip(experts, levels, strict=True))
    equal = [(number, levels[0]) for number in experts]
    deep = [(width, 3) for width in levels]
    return [
        lambda: snr(encoder, tasks, pairs, dropout=0.1, routing=routing, **given),
        lambda: snr(encoder, tasks, equal, "average", routing=routing, **given),
        lambda: mmoe(encoder, tasks, experts[0], levels, **gated),
        lambda: omoe(encoder, tasks, experts[0], deep, **gated),
        lambda: cgc(encoder, tasks, own, experts[0] - 1, deep[0], **gated),
        lambda: ple(encoder, tasks, own, experts[0], levels, **gated),
        lambda: adatt(encoder, tasks, own, experts[0] - 1, levels, **gated),
        lambda: cross_stitch(encoder, tasks, deep, **given),
        lambda: shared_bottom(encoder, tasks, levels, **given),
        lambda: single_task(encoder, tasks, levels, **given),
    ][generator.integers(10)]()


def _mlp(generator):
    return {
        "activation": ["relu", "tanh", None][generator.integers(3)],
        "normalization": [None, "batch", "layer"][generator.integers(3)],
        "dropout": [0.0, 0.3][generator.integers(2)],
    }


def _tower(generator):
    units = [(), (3,), (4, 2)][generator.integers(3)]
    return {**_mlp(generator), "units": units}
