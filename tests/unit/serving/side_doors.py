"""Models of numbers only, without and with ids, for the runtimes beside TensorFlow."""

import keras
import numpy as np

import tfmtl
from tfmtl.features import Bucketized, Categorical, Cross, Numeric, Sequence
from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.tasks import Binary, Regression

LARGE = 40_000  # rows of a table that the SavedModel keeps as a variable
MODELS = ["dense"] + [
    f"{recipe}{folded}" for recipe in ("mmoe", "ple", "snr") for folded in ("", "_fold")
]


def columns(rows=64, largest=2**63 - 1):
    """Rows with missing values, and ids up to the largest."""
    rng = np.random.default_rng(0)
    user = rng.integers(-1, largest, (rows, 1), endpoint=True)
    user[:4, 0] = -1, 0, largest, min(largest, 10**12)
    numbers = {
        "age": rng.normal(40, 10, (rows, 1)),
        "price": rng.lognormal(size=(rows, 1)),
        "hour": rng.uniform(0, 24, (rows, 1)),
    }
    numbers["age"][0] = np.nan
    return {
        **{name: column.astype("f4") for name, column in numbers.items()},
        "user": user,
        "item": rng.integers(-1, 60, (rows, 1)),
        "tags": rng.integers(-1, 30, (rows, 5)),
        "last": rng.integers(-1, 60, (rows, 4)),
    }


def make_features(hashed):
    """Every kind of feature that has numbers for values."""

    def rows(bins):
        return {"dtype": "int64"} | ({"hash_bins": bins} if hashed else {})

    item = {"table": "item", **rows(50)}
    specs = [
        Numeric("age"),
        Numeric("price", log=True, clip=(None, 50.0)),
        Bucketized("hour", buckets=6),
        Categorical("user", **rows(LARGE)),
        Categorical("item", **item),
        Sequence("tags", length=4, **rows(20)),
        Sequence("last", length=3, pooling="attention", target="item", **item),
    ]
    if hashed:
        specs.append(Cross("pair", columns=("user", "item"), hash_bins=30))
    return specs


def make_model(name, hashed=True, rows=None):
    """A model by its name in `MODELS`, some of its gates closed."""
    keras.utils.set_random_seed(0)
    if name == "dense":
        return _dense()
    recipe, _, folded = name.partition("_")
    features = tfmtl.features.adapt(make_features(hashed), rows or columns())
    levels = {"levels": [(4, 8), (3, 8)]} if recipe == "snr" else {}
    tasks = [Binary("click"), Regression("time")]
    model = getattr(tfmtl.models, recipe)(features, tasks, **levels)
    _close_gates(model)
    return tfmtl.folding.fold(model) if folded else model


def inputs_of(model, rows):
    """The columns that a model reads; of the dense one a vector."""
    if "x" in model.input:
        return {"x": np.random.default_rng(0).normal(size=(64, 12)).astype("f4")}
    return {name: rows[name] for name in model.input}


def _dense():
    x = keras.Input((12,), name="x")
    experts = Experts(4, 16)(x)
    mixed = SubNetworkRouting(2, 8, activation="relu")(experts)
    streams = keras.ops.unstack(mixed, 2, axis=1)
    outputs = {
        "click": Tower((8,), head_activation="sigmoid", name="click")(streams[0]),
        "time": Tower((8,), name="time")(streams[1]),
    }
    model = keras.Model({"x": x}, outputs)
    _close_gates(model)
    return model


def _close_gates(model):
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name == "theta":
            variable.assign(rng.normal(1.0, 2.0, variable.shape))
