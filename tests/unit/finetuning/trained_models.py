"""Models of every architecture, rows for them, and what differs between outputs."""

import keras
import numpy as np
from recipes import random_recipe

from tfmtl import models
from tfmtl.features import Categorical, Numeric
from tfmtl.folding.rows import made_up_rows
from tfmtl.layers import DSelectKGate
from tfmtl.tasks import Binary

FEATURES = [
    Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
    Categorical("c", vocabulary=("a", "b"), units=4),
]
HARD = {"hard_concrete": {}}
RECIPES = {
    "snr": lambda f, t: models.snr(f, t, [(4, 6), (3, 6)]),
    "snr_average": lambda f, t: models.snr(f, t, [(4, 6), (3, 6)], "average"),
    "mmoe": lambda f, t: models.mmoe(f, t, 4, [6]),
    "mmoe_hard": lambda f, t: models.mmoe(f, t, 4, [6], gate=HARD),
    "mmoe_levels": lambda f, t: models.mmoe(f, t, 3, [6, 5]),
    "dselect_k": lambda f, t: models.mmoe(f, t, 4, [6], gate=DSelectKGate),
    "omoe": lambda f, t: models.omoe(f, t, 4, [6]),
    "cgc": lambda f, t: models.cgc(f, t, 2, 1, 6),
    "ple": lambda f, t: models.ple(f, t, 2, 1, [6, 5]),
    "ple_deep": lambda f, t: models.ple(f, t, 1, 1, [6, 5, 4], gate=HARD),
    "ple_own": lambda f, t: models.ple(f, t, 1, 0, [6, 5]),
    "adatt": lambda f, t: models.adatt(f, t, 2, 1, [6, 5]),
    "cross_stitch": lambda f, t: models.cross_stitch(f, t, [6, 5]),
    "shared_bottom": lambda f, t: models.shared_bottom(f, t, [6]),
    "single_task": lambda f, t: models.single_task(f, t, [6]),
}


def tasks(*names):
    return [Binary(name) for name in names]


def network(recipe, *names, seed=0, features=None):
    """A small model with random weights."""
    keras.utils.set_random_seed(seed)
    return RECIPES[recipe](FEATURES if features is None else features, tasks(*names))


def random_model(seed, closed=0.3):
    return random_recipe(np.random.default_rng(seed), closed)


def rows_of(model):
    return made_up_rows(model)


def outputs(model, rows):
    given = {name: rows[name] for name in model.input}
    found = model(given, training=False)
    return {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}


def same(one, two, names=None):
    """Whether outputs are equal to the bit."""
    return all(np.array_equal(one[name], two[name]) for name in names or one)


def names_of(model):
    return {layer.name for layer in model.layers}
