"""Every recipe with columns and tasks of many kinds, for tests beside stock Keras."""

import keras
import numpy as np
from registry import set_weights

from tfmtl import models
from tfmtl.features import Bucketized, Categorical, Numeric, Sequence
from tfmtl.folding.rows import made_up_rows
from tfmtl.layers import DSelectKGate
from tfmtl.tasks import Binary, MultiClass, Position, Regression

WORDS = ("a", "b", "c")
FEATURES = [
    Numeric("age", mean=(0.1,), std=(2.0,)),
    Numeric("wide", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
    Categorical("country", vocabulary=WORDS, units=3),
    Categorical("item", vocabulary=WORDS, units=4, table="items"),
    Bucketized("hour", boundaries=(-0.5, 0.5), units=2),
    Sequence("seen", vocabulary=WORDS, units=4, length=3, table="items"),
]
TASKS = [
    Binary("shown", position=Position("place", 4)),
    Regression("rating"),
    Binary("late", after="shown"),
    MultiClass("reason", num_classes=3),
]
TOWER = {"units": (4,), "dropout": 0.25, "normalization": "batch"}
LAYERS = [keras.layers.Dense(3, "relu"), keras.layers.Dense(3, "tanh")]
RECIPES = {
    "single_task": {"bottom": 5},
    "shared_bottom": {"bottom": (5, 4)},
    "omoe": {"experts": 2, "levels": [4]},
    "mmoe": {"experts": 3, "levels": [4, 3], "gate": {"hard_concrete": {}}},
    "mmoe of layers": {"experts": LAYERS, "levels": [3], "gate": DSelectKGate},
    "cgc": {"specific": 1, "shared": 2, "units": 4},
    "ple": {"specific": 1, "shared": 1, "levels": [4, 3]},
    "adatt": {"specific": 2, "levels": [4]},
    "cross_stitch": {"levels": [4, 3]},
    "snr": {"levels": [(3, 4), (2, 4)]},
    "snr average": {"kind": "average", "levels": [(3, 4), (2, 4)]},
}


def recipe(name, tasks=TASKS):
    """A model with random weights, gates closed, open and between."""
    build = getattr(models, name.split()[0])
    return set_weights(build(FEATURES, tasks, **RECIPES[name], tower=TOWER))


def columns(model, count=6):
    return made_up_rows(model, count)


def labels(model, count=6):
    generator = np.random.default_rng(3)
    return {task.name: generator.integers(0, 2, (count, 1)) for task in model.tasks}


def answers(model, rows):
    """Outputs by name; `predict` would keep what it traced before a layer changed."""
    outputs = model(keras.tree.map_structure(keras.ops.convert_to_tensor, rows))
    return {name: keras.ops.convert_to_numpy(y) for name, y in outputs.items()}


def largest_difference(first, second):
    assert set(first) == set(second)
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)
