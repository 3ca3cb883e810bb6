from dataclasses import replace

import keras
import numpy as np
import pytest

from tfmtl.features import Categorical, Numeric
from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.models import snr
from tfmtl.ops import grouping
from tfmtl.tasks import Binary


@pytest.fixture
def free_groups(monkeypatch):
    """Each set of inputs is computed apart, however small: more groups cost nothing."""
    free = replace(
        grouping.DEVICES["cpu"], seconds_per_group=0.0, values_copied_per_second=np.inf
    )
    monkeypatch.setitem(grouping.DEVICES, "cpu", free)


@pytest.fixture
def ranker():
    keras.utils.set_random_seed(0)
    features = [
        Numeric("x", width=4, mean=(0.0,) * 4, std=(1.0,) * 4),
        Categorical("c", vocabulary=("a", "b")),
    ]
    tasks = [Binary("a"), Binary("ab"), Binary("shared_x")]
    return snr(features, tasks, levels=[(4, 8), (5, 6)], dropout=0.1)


@pytest.fixture
def hand_written():
    """Routing between plain Keras layers, a nested model and a skip connection."""
    keras.utils.set_random_seed(1)
    from_outside = keras.Input((6,), name="x")
    unread = keras.Input((2,), name="unread")
    inner_in = keras.Input((4, 5))
    inner_out = keras.layers.LayerNormalization(name="inner_norm")(inner_in)
    inner = keras.Model(inner_in, inner_out, name="inner")
    x = keras.layers.Dense(7, "relu", name="stem")(from_outside)
    x = Experts(4, 5, name="level_1")(x)
    x = inner(x)
    x = keras.layers.Dropout(0.3, name="drop")(x)
    x = SubNetworkRouting(3, 5, activation="relu", use_bias=True, name="level_2")(x)
    x = keras.layers.Dense(5, "tanh", name="shared_by_slots")(x)
    left, middle, right = keras.ops.unstack(x, 3, axis=1)
    joined = keras.layers.Concatenate(name="joined")([left, right, from_outside])
    outputs = {
        "click": Tower((4,), name="click_tower")(joined),
        "like": keras.layers.Dense(1, name="like_head")(middle),
    }
    return keras.Model({"x": from_outside, "unread": unread}, outputs, name="mine")
