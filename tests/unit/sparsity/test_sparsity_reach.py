"""Outputs of all kinds of models, followed back."""

import keras
import numpy as np
import pytest

from tfmtl import layers
from tfmtl.sparsity import L0Ramp, Target, findings, gates, open_share
from tfmtl.sparsity.reach import Reach

NESTED = (lambda a, b: {"ctr": a, "rest": [b, a]}, "ctr rest[0] rest[1]")


def model_with(outputs_of):
    x = keras.Input((4,))
    slots = layers.SubNetworkRouting(2, 4)(layers.Experts(4, 4)(x))
    a, b = (
        keras.layers.Dense(1, name=name)(slots[:, k]) for k, name in enumerate("ab")
    )
    return keras.Model(x, outputs_of(a, b))


def trained(model, targets, callback):
    model.compile("adam", loss="mse")
    x = np.random.default_rng(0).standard_normal((64, 4)).astype("f4")
    model.fit(x, targets, epochs=4, callbacks=[callback], verbose=0)
    return model


@pytest.mark.parametrize(
    "outputs_of, names, lost",
    [
        (*NESTED, "ctr rest[1]"),
        (lambda a, b: {"ctr": {"y": b, "x": a}}, "ctr[x] ctr[y]", "ctr[x]"),
        (lambda a, b: {"cvr": b, "ctr": a}, "ctr cvr", "ctr"),
        (lambda a, b: [a, b], "a b", "a"),
    ],
)
def test_names_of_outputs(outputs_of, names, lost):
    model = model_with(outputs_of)
    [gate] = gates(model)
    gate.set_log_alpha([[-4.0] * 4, [4.0] * 4])  # a reads nothing
    assert Reach(model).outputs == names.split()
    assert Reach(model).constant_outputs() == lost.split()
    assert findings(model)[0].startswith(f"Output {lost.split()[0]!r} has lost all")


def test_target_of_nested_outputs():
    y = np.ones((64, 1), "f4")
    model = model_with(NESTED[0])
    trained(model, {"ctr": y, "rest": [y, y]}, Target(0.5, of="flops"))
    assert Reach(model).constant_outputs() == []


def sequential():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Experts(4, 4),
            layers.SubNetworkRouting(1, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )


@pytest.mark.parametrize(
    "callback", [Target(0.5), Target(0.7, of="flops"), L0Ramp(1e-3)]
)
def test_sequential_model(callback):
    model = trained(sequential(), np.ones((64, 1), "f4"), callback)
    assert Reach(model).constant_outputs() == []
    assert isinstance(callback, L0Ramp) or open_share(model).served < 4


def test_findings_of_a_sequential_model():
    model = sequential()
    gates(model)[0].set_log_alpha(-4.0)
    assert findings(model)[1].startswith("Output 'dense")
