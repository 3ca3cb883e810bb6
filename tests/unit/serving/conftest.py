"""A small two-task model of every kind of input, exported once for all tests."""

import keras
import numpy as np
import pytest

from tfmtl.serving import export


def make_model():
    """Strings, ids and numbers in, two tasks out; the input `unused` is not read."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = {
        "country": keras.Input((), dtype="string", name="country"),
        "item": keras.Input((), dtype="int64", name="item"),
        "numbers": keras.Input((3,), name="numbers"),
        "unused": keras.Input((1,), dtype="int32", name="unused"),
    }
    known = layers.StringLookup(vocabulary=["at", "de", "ch"], name="known")
    learned = layers.StringLookup(name="learned")
    learned.adapt(np.array(["at", "fr"]))
    columns = [
        layers.Embedding(4, 8, name="country_table")(known(inputs["country"])),
        layers.Embedding(3, 8, name="learned_table")(learned(inputs["country"])),
        layers.Embedding(40_000, 8, name="item_table")(inputs["item"]),
        layers.BatchNormalization(name="norm")(inputs["numbers"]),
    ]
    hidden = layers.Concatenate(name="columns")(columns)
    hidden = layers.Dense(32, activation="relu", name="hidden")(hidden)
    hidden = layers.Dropout(0.5, name="dropout")(hidden)
    outputs = {
        "ctr": layers.Dense(1, activation="sigmoid", name="click")(hidden),
        "order value": layers.Dense(1, name="value")(hidden),
    }
    return keras.Model(inputs, outputs)


@pytest.fixture
def small_model():
    """One dense layer on one number."""
    keras.utils.set_random_seed(0)
    number = keras.Input((2,), name="number")
    return keras.Model(
        {"number": number}, {"ctr": keras.layers.Dense(1, name="ctr")(number)}
    )


@pytest.fixture(scope="session")
def model():
    """The two-task model."""
    return make_model()


@pytest.fixture(scope="session")
def rows():
    """Three rows with known, learned and unknown strings."""
    return {
        "country": np.array(["de", "fr", "zz"], object),
        "item": np.array([0, 7, 39_999]),
        "numbers": np.random.default_rng(0).normal(size=(3, 3)).astype("float32"),
        "unused": np.array([[1], [2], [3]]),
    }


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    """The two-task model's first version."""
    return export(model, tmp_path_factory.mktemp("models") / "ranker")
