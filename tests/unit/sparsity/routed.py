"""A small routed network that trains in seconds."""

import keras
import numpy as np

from tfmtl import layers
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Binary

TASKS = ("a", "b")


def network(seed=0, tasks=TASKS, width=8):
    """SNR by hand: 6 sub-networks of which one task each reads what it needs."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8,), name="x")
    x = layers.Experts(4, width, name="first")(x)
    x = layers.SubNetworkRouting(4, width, activation="relu", name="second")(x)
    x = layers.SubNetworkRouting(len(tasks), width, name="routing")(x)
    outputs = {
        name: keras.layers.Dense(1, "sigmoid", name=f"{name}_head")(slot)
        for name, slot in zip(
            tasks, keras.ops.unstack(x, len(tasks), axis=1), strict=True
        )
    }
    return MultiTaskModel({"x": inputs}, outputs, tasks=[Binary(t) for t in tasks])


def rows(count=2048, seed=0):
    """Columns and labels, by two unlike linear rules."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((count, 8)).astype("f4")
    labels = {
        name: (x @ generator.standard_normal(8) > 0).astype("f4") for name in TASKS
    }
    return {"x": x}, labels
