"""The ramp of the penalty's weight, alone and in `fit`; gates of a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import layers
from tfmtl.sparsity import L0Ramp, gates, open_share


def values(ramp, epochs):
    return [ramp.value(t) for t in epochs]


def routed_model():
    x = keras.Input((4, 3))
    first = layers.SubNetworkRouting(3, 2, name="first")
    inner = keras.Input((3, 2))
    second = layers.SubNetworkRouting(1, kind="average", name="second")
    nested = keras.Model(inner, second(inner), name="nested")
    model = keras.Model(x, keras.layers.Flatten()(nested(first(x))))
    return model, first.gate, second.gate


class Watch(keras.callbacks.Callback):
    """Notes the weight of the penalty that each step used."""

    def __init__(self, gate):
        super().__init__()
        self.gate, self.seen = gate, []

    def on_train_batch_end(self, batch, logs=None):
        [l0] = set(keras.ops.convert_to_numpy(self.gate.l0).ravel().tolist())
        self.seen.append(l0)


def fit(ramp, steps=4, **kwargs):
    """The penalty's weight in each step."""
    model, gate, _ = routed_model()
    model.compile("sgd", "mse")
    watch = Watch(gate)
    x = np.ones((2 * steps, 4, 3), "f4")
    model.fit(
        x,
        np.ones((2 * steps, 2), "f4"),
        batch_size=2,
        callbacks=[ramp, watch],
        verbose=0,
        **kwargs,
    )
    return watch.seen


def test_dense_phase_linear_ramp_and_end():
    ramp = L0Ramp(0.8, dense_epochs=1, ramp_epochs=2)
    epochs = [0, 1, 1.5, 2, 3, 100]
    np.testing.assert_allclose(values(ramp, epochs), [0, 0, 0.2, 0.4, 0.8, 0.8])


def test_cubic_ramp():
    ramp = L0Ramp(0.8, dense_epochs=0, ramp_epochs=2, power=3)
    np.testing.assert_allclose(values(ramp, [0, 1, 2]), [0, 0.1, 0.8])


def test_value_never_falls():
    ramp = L0Ramp(0.3, dense_epochs=0.7, ramp_epochs=1.3, power=0.5)
    assert (np.diff(values(ramp, np.linspace(0, 4, 50))) >= 0).all()


def test_every_step_of_fit():
    seen = fit(L0Ramp(0.8, dense_epochs=1, ramp_epochs=1), epochs=3)
    expected = [0] * 4 + [0, 0.2, 0.4, 0.6] + [0.8] * 4
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_resumed_by_initial_epoch():
    ramp = L0Ramp(0.8, dense_epochs=1, ramp_epochs=2)
    np.testing.assert_allclose(
        fit(ramp, epochs=3, initial_epoch=2), [0.4, 0.5, 0.6, 0.7], rtol=1e-6
    )


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_unknown_number_of_steps_moves_by_epoch():
    model, gate, _ = routed_model()
    model.compile("sgd", "mse")
    rows = (np.ones((4, 3), "f4"), np.ones(2, "f4"))
    data = tf.data.Dataset.from_generator(
        lambda: [rows] * 6,
        output_signature=(tf.TensorSpec((4, 3)), tf.TensorSpec((2,))),
    ).batch(2)
    watch, ramp = Watch(gate), L0Ramp(0.8, dense_epochs=0, ramp_epochs=2)
    model.fit(data, epochs=2, shuffle=False, callbacks=[ramp, watch], verbose=0)
    np.testing.assert_allclose(watch.seen[:3], 0)
    np.testing.assert_allclose(watch.seen[3:], 0.4, rtol=1e-6)


def test_open_share_is_logged():
    model, first, second = routed_model()
    first.set_log_alpha(4.0)
    second.set_log_alpha([[4.0, -4.0, -4.0]])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(
        np.ones((2, 4, 3)), np.ones((2, 2)), callbacks=[L0Ramp(1e-3)], verbose=0
    ).history
    np.testing.assert_allclose(history["open_share"], [13 / 15])


def test_all_gates_of_a_model_however_nested():
    model, first, second = routed_model()
    assert {id(gate) for gate in gates(model)} == {id(first), id(second)}


def test_frozen_gates_are_found_too():
    model, *_ = routed_model()
    model.trainable = False
    assert len(gates(model)) == 2


def test_open_share_counts():
    model, first, second = routed_model()
    first.set_log_alpha(4.0)
    second.set_log_alpha([[4.0, -4.0, 0.0]])
    share = open_share(model)
    assert (share.total, share.served) == (15, 14)
    probabilities = [gate.open_probability() for gate in (first, second)]
    expected = sum(keras.ops.convert_to_numpy(p).sum() for p in probabilities)
    np.testing.assert_allclose(share.expected, expected, rtol=1e-6)


def test_reloaded_model_keeps_gates_and_their_weight(tmp_path):
    model, first, _ = routed_model()
    first.set_l0(0.25)
    first.set_log_alpha(0.3)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    found = [gate for gate in gates(reloaded) if gate.shape == first.shape]
    assert [np.unique(gate.l0).tolist() for gate in found] == [[0.25]]
    np.testing.assert_allclose(found[0].log_alpha, 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"l0": 0.0}, "`l0` should be above 0. Received: l0=0.0"),
        ({"l0": "x"}, "`l0` should be above 0. Received: l0='x'"),
        (
            {"dense_epochs": None},
            "`dense_epochs` should be at least 0. Received: dense_epochs=None",
        ),
        (
            {"ramp_epochs": float("nan")},
            "`ramp_epochs` should be above 0. Received: ramp_epochs=nan",
        ),
        (
            {"dense_epochs": -1},
            "`dense_epochs` should be at least 0. Received: dense_epochs=-1",
        ),
        (
            {"ramp_epochs": 0},
            "`ramp_epochs` should be above 0. Received: ramp_epochs=0",
        ),
        ({"power": 0}, "`power` should be above 0. Received: power=0"),
    ],
)
def test_refused_arguments(arguments, text):
    with pytest.raises(ValueError) as error:
        L0Ramp(**{"l0": 1e-3, **arguments})
    assert str(error.value) == text


def test_model_without_gates():
    x = keras.Input((2,))
    model = keras.Model(x, keras.layers.Dense(1)(x), name="plain")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError) as error:
        model.fit(np.ones((2, 2)), np.ones(2), callbacks=[L0Ramp(1e-3)], verbose=0)
    assert str(error.value) == (
        "L0Ramp should be used with a model that has hard-concrete gates. "
        "Received: model='plain' without any"
    )
