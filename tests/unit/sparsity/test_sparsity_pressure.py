"""What all callbacks that press on gates refuse and warn of."""

import warnings

import keras
import numpy as np
import pytest
from routed import network, rows

from tfmtl import layers
from tfmtl.sparsity import L0Ramp, SparsityWarning, Target, gates

DECAYS = "Sparsity: The optimizer decays"


def stock():
    x = keras.Input((4,))
    slots = layers.SubNetworkRouting(1, 4)(layers.Experts(4, 4)(x))
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.Flatten()(slots)))


def fit(model, *callbacks):
    x = np.ones((8, 4), "f4")
    model.fit(x, x[:, :1], epochs=4, callbacks=callbacks, verbose=0)


def said_by(train):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SparsityWarning)
        train()
    return " ".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("callback", [Target(0.5), L0Ramp(1e-3)])
def test_optimizer_of_a_stock_model_leaves_gates_alone(callback):
    model = stock()
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse")
    assert DECAYS not in said_by(lambda: fit(model, callback))
    assert not optimizer._use_weight_decay(gates(model)[0].theta)
    dense = model.layers[-1]
    assert not optimizer._use_weight_decay(dense.bias)
    assert optimizer._use_weight_decay(dense.kernel)


@pytest.mark.parametrize("callback", [Target(0.5), L0Ramp(1e-3)])
def test_built_optimizer_of_a_stock_model(callback):
    model = stock()
    built = keras.optimizers.AdamW()
    built.build(model.trainable_variables)
    model.compile(built, "mse")
    [gate] = gates(model)
    text = said_by(lambda: fit(model, callback))
    assert f"{DECAYS} the weights of the gates ['{gate.theta.path}']" in text
    assert "exclude_from_weight_decay(var_list=[gate.theta for gate in" in text


def test_built_optimizer_that_decays_gates():
    model = network()
    built = keras.optimizers.AdamW()
    built.build(model.trainable_variables)
    model.compile(built, sparsity=L0Ramp(1e-3))
    assert DECAYS in said_by(lambda: model.fit(*rows(8), verbose=0))


def test_built_optimizers_that_leave_gates_alone():
    model = stock()
    apart = keras.optimizers.OptimizerMap(
        keras.optimizers.AdamW(), {".*/gate/theta": keras.optimizers.Adam()}
    )
    excluding = keras.optimizers.AdamW()
    excluding.exclude_from_weight_decay(var_list=[gates(model)[0].theta])
    several = keras.optimizers.MultiOptimizer(apart)
    for optimizer in (keras.optimizers.Adam(), several, excluding):
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, "mse")
        assert DECAYS not in said_by(lambda: fit(model, L0Ramp(1e-3)))


@pytest.mark.parametrize("given", [[], "second", [3], 3])
@pytest.mark.parametrize("callback", [Target, L0Ramp])
def test_refused_layers(callback, given):
    with pytest.raises(ValueError) as error:
        callback(0.5, layers=given)
    assert str(error.value) == (
        "`layers` should be a list of names of layers, or None. "
        f"Received: layers={given!r}"
    )


@pytest.mark.parametrize("first", [Target(0.5), L0Ramp(1e-3)])
def test_gates_of_two_callbacks(first):
    model = network()
    model.compile("adam", sparsity=[first, Target(0.25, layers=["second"])])
    with pytest.raises(ValueError) as error:
        model.fit(*rows(8), epochs=4, verbose=0)
    assert str(error.value) == (
        "Callbacks that press on gates should be for `layers` of their own. Received: "
        f"{type(first).__name__} of layers=None and Target of layers=['second'], both "
        "for second/gate/theta"
    )


def test_gates_of_two_callbacks_of_a_stock_model():
    model = stock()
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="should be for `layers` of their own"):
        fit(model, Target(0.5), L0Ramp(1e-3))
    fit(model, Target(0.5))


def test_frozen_gates_are_not_pressed():
    model = network()
    model.get_layer("second").trainable = False
    model.compile("adam", sparsity=L0Ramp(1e-3, dense_epochs=0, ramp_epochs=0.1))
    model.fit(*rows(64), epochs=2, verbose=0)
    second, routing = (np.unique(gate.l0) for gate in gates(model))
    np.testing.assert_allclose(second, 0)
    np.testing.assert_allclose(routing, 1e-3)
