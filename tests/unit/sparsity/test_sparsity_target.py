"""A share of the model to keep: what `fit` ends with, and how."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from routed import network, rows

from tfmtl import layers
from tfmtl.folding import compare, fold, structure
from tfmtl.sparsity import L0Ramp, SparsityWarning, Target, gates, open_share
from tfmtl.sparsity.measures import Measure
from tfmtl.sparsity.reach import all_open, as_if


def fitted(target, epochs=6, seed=0, model=None, **compiled):
    model = network(seed) if model is None else model
    model.compile(keras.optimizers.Adam(5e-3), sparsity=target, **compiled)
    history = model.fit(*rows(), batch_size=64, epochs=epochs, verbose=0).history
    return model, history


@pytest.mark.parametrize("keep", [0.75, 0.5, 0.25])
def test_share_of_connections_is_met(keep):
    model, history = fitted(Target(keep))
    share = open_share(model)
    assert share.served == round(keep * share.total)
    assert history["open_share"][-1] == share.served / share.total
    assert compare(model, fold(model)).after.connections <= share.served


@pytest.mark.parametrize("of, tolerance", [("flops", 0.06), ("bytes", 0.06)])
def test_share_of_cost_is_that_of_the_folded_model(of, tolerance):
    model, _ = fitted(Target(0.6, of=of))
    whole = network()
    for gate in gates(whole):
        gate.set_log_alpha(4.0)
    left = getattr(structure(fold(model)), of) / getattr(structure(fold(whole)), of)
    assert abs(left - 0.6) < tolerance  # one connection is .05


def test_groups_have_targets_of_their_own():
    model, _ = fitted(
        [Target(0.25, layers=["second"]), Target(0.5, layers=["routing"])]
    )
    second, routing = (np.asarray(gate(training=False)) for gate in gates(model))
    assert (np.sum(second > 0), np.sum(routing > 0)) == (4, 4)


def test_groups_have_costs_of_their_own():
    targets = [
        Target(0.7, of="flops", layers=["second"]),
        Target(0.8, of="bytes", layers=["routing"]),
    ]
    model, history = fitted(targets)
    found = gates(model)
    kept = [np.asarray(gate(training=False)) != 0 for gate in found]
    for target, gate, mask in zip(targets, found, kept, strict=True):
        whole = network()
        [of_group] = [g for g in gates(whole) if g.shape == gate.shape]
        left = Measure(whole, [of_group], target.of)([mask])
        assert abs(left - target.keep) < 0.06
        name = f"{target.of}_share_{target.layers[0]}"
        np.testing.assert_allclose(history[name][-1], left)


class Restore(keras.callbacks.Callback):
    """Restores the weights of an epoch at the end of training."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


class Stop(keras.callbacks.Callback):
    """Stops after an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


def ended(callback):
    """A model whose `fit` was ended by a callback, and what was warned of."""
    model = network()
    model.compile(keras.optimizers.Adam(5e-3), sparsity=Target(0.5))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SparsityWarning)
        model.fit(*rows(), batch_size=64, epochs=8, verbose=0, callbacks=[callback])
    return model, [str(warning.message) for warning in caught]


ADVICE = (
    ". Give EarlyStopping start_from_epoch=6 and a task's metric to watch: the penalty "
    "is in val_loss."
)


def test_weights_restored_from_before_the_last_phase():
    model, said = ended(Restore(0))
    assert open_share(model).served == 24
    assert said[0] == (
        "Sparsity: 100% of connections are left, not 50%: weights from before the last "
        "phase were restored" + ADVICE
    )
    assert said[1].startswith("Sparsity: None of the 24 gates is closed")


def test_training_that_ended_before_the_last_phase():
    model, said = ended(Stop(1))
    share = open_share(model)
    assert said[0] == (
        f"Sparsity: {share.served / share.total:.0%} of connections are left, not 50%: "
        "training ended before the last phase" + ADVICE
    )


def test_weights_restored_from_the_last_phase():
    model, said = ended(Restore(6))
    assert open_share(model).served == 12
    assert not any("are left, not" in text for text in said)


def test_early_stopping_as_advised():
    model, said = ended(
        keras.callbacks.EarlyStopping(
            "a_auc", mode="min", restore_best_weights=True, start_from_epoch=6
        )
    )
    assert open_share(model).served == 12
    assert not any("are left, not" in text for text in said)


@pytest.mark.parametrize("of", ["connections", "flops"])
def test_frozen_gates_stay(of):
    model = network()
    second, routing = gates(model)
    model.get_layer("second").trainable = False
    before = np.asarray(second.theta).copy(), np.asarray(second.l0).copy()
    _, history = fitted(Target(0.8, of=of), epochs=4, model=model)
    np.testing.assert_array_equal(second.theta, before[0])
    np.testing.assert_array_equal(second.l0, before[1])
    assert np.sum(np.asarray(routing(training=False)) > 0) < 8
    name = {"connections": "open_share", "flops": "flops_share"}[of]
    assert abs(history[name][-1] - 0.8) < 0.06


def test_target_below_what_frozen_gates_leave():
    model = network()
    model.get_layer("second").trainable = False
    with pytest.raises(ValueError) as error:
        fitted(Target(0.5), model=model)
    assert str(error.value) == (
        "`keep` should be above 0.667, the share of connections that is left with all "
        "gates closed but the frozen ones; `layers` names those that are to count. "
        "Received: keep=0.5"
    )


def test_all_gates_are_frozen():
    model = network()
    model.get_layer("second").trainable = False
    with pytest.raises(ValueError) as error:
        fitted(Target(0.5, layers=["second"]), model=model)
    assert str(error.value) == (
        "Target should be used with gates that are trained. Received: all of "
        "['second/gate/theta'] are frozen"
    )


def test_no_task_loses_its_last_input():
    model, history = fitted(Target(0.15))
    assert min(history["inputs_a"][-1], history["inputs_b"][-1]) >= 1
    folded = fold(model)
    x, _ = rows(64, seed=1)
    for scores in folded.predict(x, verbose=0).values():
        assert np.ptp(scores) > 0.01


def test_phases():
    target = Target(0.4, dense=0.25, ramp=0.25, settle=0.25)
    np.testing.assert_allclose(
        [target.goal(t) for t in (0, 0.25, 0.375, 0.5, 1)],
        [1, 1, 0.4 + 0.6 / 8, 0.4, 0.4],
    )
    model = network()
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append([np.asarray(gate.l0).copy() for gate in gates(model)])

    model.compile(keras.optimizers.Adam(5e-3), sparsity=target)
    data = rows(1024)
    model.fit(*data, batch_size=64, epochs=4, callbacks=[Watch()], verbose=0)
    assert not np.any(seen[15][0])  # dense
    assert np.ptp(seen[30][0]) == 0 < seen[30][0][0, 0]  # one pressure for all
    assert set(np.sign(seen[-1][0].ravel())) == {-1, 1}  # held where they are


def test_penalty_of_held_gates_is_not_below_0():
    gate = layers.HardConcreteGate((2,), l0=0.0)
    gate.build()
    gate.set_log_alpha([4.0, -4.0])
    gate.set_l0([-2.0, 3.0])
    p = keras.ops.convert_to_numpy(gate.open_probability())
    [penalty] = gate.losses
    np.testing.assert_allclose(penalty, 2 * (1 - p[0]) + 3 * p[1], rtol=1e-5)


def test_resumed_training_goes_on_with_the_pressure():
    target = Target(0.5, dense=0.2, ramp=0.4, settle=0.2)
    model = network()
    model.compile(keras.optimizers.Adam(5e-3), sparsity=target)
    data = rows()

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 4

    model.fit(*data, batch_size=64, epochs=10, callbacks=[Stop()], verbose=0)
    target._kept = None
    before = np.mean([np.mean(gate.l0) for gate in gates(model)])
    assert before > 0
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(np.mean(np.asarray(gates(model)[0].l0))))

    model.fit(
        *data,
        batch_size=64,
        epochs=10,
        initial_epoch=5,
        callbacks=[Watch()],
        verbose=0,
    )
    assert 0.2 * before < seen[0] < 5 * before
    assert open_share(model).served == round(0.5 * open_share(model).total)


def served(model):
    return np.concatenate(
        [np.ravel(gate(training=False)) != 0 for gate in gates(model)]
    )


def pressures(model):
    return np.concatenate([np.ravel(gate.l0) for gate in gates(model)])


@pytest.mark.parametrize("of", ["connections", "flops"])
def test_further_fit_leaves_settled_gates(of):
    model, _ = fitted(Target(0.5, of=of), epochs=4)
    before = served(model), pressures(model)
    kernel = np.array(model.get_layer("a_head").kernel)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SparsityWarning)
        history = model.fit(*rows(), batch_size=64, epochs=3, verbose=0).history
    np.testing.assert_array_equal(served(model), before[0])
    np.testing.assert_array_equal(pressures(model), before[1])
    assert history["open_share"] == [np.mean(before[0])] * 3
    assert np.abs(model.get_layer("a_head").kernel - kernel).max() > 1e-3
    assert not any("are left" in str(warning.message) for warning in caught)


def test_further_fit_to_a_lower_share():
    model, _ = fitted(Target(0.75), epochs=4)
    fitted(Target(0.25), epochs=4, model=model)
    assert open_share(model).served == 6


class Interrupt(keras.callbacks.Callback):
    """Ends the process, as it were, before an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("epoch", [4, 6])  # the last phase begins with 4
def test_interrupted_training_ends_like_an_uninterrupted_one(epoch, tmp_path):
    def train(*callbacks):
        model = network()
        model.compile(keras.optimizers.Adam(5e-3), sparsity=Target(0.5, settle=0.5))
        data = rows(1024)
        fit = {"batch_size": 64, "epochs": 8, "shuffle": False, "verbose": 0}
        return model, model.fit(*data, **fit, callbacks=callbacks).history

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path)

    whole, expected = train()
    with pytest.raises(KeyboardInterrupt):
        train(backup(), Interrupt(epoch))
    resumed, history = train(backup())
    assert len(history["loss"]) == 8 - epoch
    assert np.mean(served(resumed) == served(whole)) > 0.8
    np.testing.assert_array_equal(pressures(resumed) < 0, served(resumed))
    assert 1 / 3 < np.abs(pressures(resumed)).min() / pressures(whole).max() < 3
    assert history["open_share"][-1] == expected["open_share"][-1] == 0.5
    assert abs(history["a_auc"][-1] - expected["a_auc"][-1]) < 0.02


def test_progress_is_in_the_history():
    _, history = fitted(Target(0.5), epochs=4)
    names = {"open_share", "open_expected", "open_between", "inputs_a", "inputs_b"}
    assert names <= set(history)
    assert history["inputs_a"][0] == 4
    assert history["open_share"][0] == 1


@pytest.mark.parametrize("of", ["connections", "flops", "bytes"])
def test_progress_is_in_the_bar(of):
    seen, epochs = [], []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(dict(logs))

        def on_epoch_end(self, epoch, logs=None):
            epochs.append(dict(logs))

    model = network()
    model.compile(keras.optimizers.Adam(5e-3), sparsity=Target(0.5, of=of))
    model.fit(*rows(320), batch_size=64, epochs=4, callbacks=[Watch()], verbose=0)
    names = {"open_expected"} | ({f"{of}_expected"} - {"connections_expected"})
    assert {name for name in seen[0] if name.endswith("_expected")} == names
    assert {name for name in epochs[0] if name.endswith("_expected")} == names
    probabilities = [np.asarray(gate.open_probability()) for gate in gates(network())]
    share = np.mean(np.concatenate([p.ravel() for p in probabilities]))
    np.testing.assert_allclose(seen[0]["open_expected"], share, rtol=1e-5)
    for logs in seen:
        assert all(0 < logs[name] < 1.1 for name in names)
    if of != "connections":
        assert epochs[0][f"{of}_share"] == 1
        assert epochs[-1][f"{of}_share"] < 0.6
        assert seen[-1][f"{of}_expected"] < seen[0][f"{of}_expected"]


def test_stock_keras_model():
    x = keras.Input((4,))
    routing = layers.SubNetworkRouting(1, 2)
    outputs = keras.layers.Dense(1)(routing(layers.Experts(8, 4)(x))[:, 0])
    model = keras.Model(x, outputs)
    model.compile(keras.optimizers.Adam(5e-3), "mse")
    values = np.random.default_rng(0).standard_normal((512, 4)).astype("f4")
    target = Target(0.5)
    model.fit(
        values, values[:, :1], epochs=4, batch_size=32, callbacks=[target], verbose=0
    )
    assert open_share(model).served == 4


def test_mixture_keeps_an_expert_for_each_output():
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    gate = layers.SoftmaxGate(2, 4, hard_concrete={})
    mixed = layers.Mixture()([layers.Experts(4, 4)(x), gate(x)])
    model = keras.Model(x, keras.layers.Dense(1)(keras.layers.Flatten()(mixed)))
    model.compile(keras.optimizers.Adam(5e-3), "mse")
    values = np.random.default_rng(0).standard_normal((512, 4)).astype("f4")
    model.fit(
        values,
        values[:, :1],
        epochs=4,
        batch_size=32,
        callbacks=[Target(0.1)],
        verbose=0,
    )
    assert gate.open_pairs().sum(axis=1).tolist() == [1, 1]


def test_prices_add_up_to_what_gates_can_close():
    model = network()
    found = gates(model)
    for of in ("connections", "flops", "bytes"):
        measure = Measure(model, found, of)
        prices = measure.prices()
        rest = measure([np.zeros(gate.shape, bool) for gate in found])
        total = sum(float(price.sum()) for price in prices)
        np.testing.assert_allclose(total, 1 - rest)
        assert all((price >= 0).all() for price in prices)
        assert measure(all_open(found)) == 1


def test_as_if_leaves_gates_as_they_were():
    model = network()
    found = gates(model)
    before = [np.asarray(gate.theta) for gate in found]
    with pytest.raises(KeyError), as_if(found, all_open(found)):
        assert np.asarray(found[0].log_alpha).min() > 3
        raise KeyError
    for gate, theta in zip(found, before, strict=True):
        np.testing.assert_allclose(gate.theta, theta, rtol=1e-6)


def test_saved_with_what_was_compiled(tmp_path):
    model, _ = fitted([Target(0.5, "flops", ["second"], 0.2, 0.3, 0.4)], epochs=4)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    [target] = reloaded._sparsity
    assert target.get_config() == {
        "keep": 0.5,
        "of": "flops",
        "layers": ["second"],
        "dense": 0.2,
        "ramp": 0.3,
        "settle": 0.4,
    }


def test_ramp_in_compile():
    model, history = fitted(L0Ramp(5.0, dense_epochs=1), epochs=4)
    assert history["open_share"][0] == 1 > history["open_share"][-1]


def test_weight_decay_leaves_gates_alone():
    model = network()
    decayed = keras.optimizers.AdamW(0.0, weight_decay=0.5)
    model.compile(decayed)
    model.fit(*rows(64), batch_size=64, verbose=0)
    assert not decayed._use_weight_decay(gates(model)[0].theta)
    assert decayed._use_weight_decay(model.get_layer("second").kernel)


def test_gates_with_an_optimizer_of_their_own():
    model = network()
    by_path = {".*/gate/theta": keras.optimizers.Adam(1e-2)}
    default = keras.optimizers.AdamW(5e-3)
    apart = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(default, by_path)
    )
    model.compile(apart, sparsity=Target(0.5))
    model.fit(*rows(), batch_size=64, epochs=4, verbose=0)
    assert open_share(model).served == round(0.5 * open_share(model).total)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"keep": 0}, "`keep` should be above 0 and below 1. Received: keep=0"),
        ({"keep": 1}, "`keep` should be above 0 and below 1. Received: keep=1"),
        (
            {"keep": "half"},
            "`keep` should be above 0 and below 1. Received: keep='half'",
        ),
        (
            {"of": "latency"},
            "`of` should be one of ('connections', 'flops', 'bytes'). "
            "Received: of='latency'",
        ),
        (
            {"dense": 0.5, "ramp": 0.4},
            "`dense`, `ramp` and `settle` should be shares of training, at most 1 "
            "together, and the last two above 0. Received: "
            "dense=0.5, ramp=0.4, settle=0.3",
        ),
        (
            {"dense": float("nan")},
            "`dense`, `ramp` and `settle` should be shares of training, at most 1 "
            "together, and the last two above 0. Received: "
            "dense=nan, ramp=0.4, settle=0.3",
        ),
        (
            {"dense": None},
            "`dense`, `ramp` and `settle` should be shares of training, at most 1 "
            "together, and the last two above 0. Received: "
            "dense=None, ramp=0.4, settle=0.3",
        ),
    ],
)
def test_refused_arguments(arguments, text):
    with pytest.raises(ValueError) as error:
        Target(**{"keep": 0.5, **arguments})
    assert str(error.value) == text


def test_less_than_gates_can_close():
    text = (
        r"Sparsity: \d+% of flops are left, not 0%: the nearest found while tasks keep "
        r"an input\. Ask for about as much\."
    )
    with pytest.warns(SparsityWarning, match=text):
        fitted(Target(0.001, of="flops"), epochs=2)


def test_unknown_number_of_steps_needs_epochs():
    model = network()
    model.compile("adam", sparsity=Target(0.5))
    x, y = rows(64)
    spec = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).element_spec
    data = tf.data.Dataset.from_generator(lambda: [(x, y)], output_signature=spec)
    with pytest.raises(ValueError) as error:
        model.fit(data, epochs=3, shuffle=False, verbose=0)
    assert str(error.value) == (
        "Target should be used with data of a known number of steps, or with at least "
        "4 epochs. Received: steps=None, epochs=3"
    )


def test_unknown_layer():
    with pytest.raises(ValueError) as error:
        fitted(Target(0.5, layers=["third"]))
    assert str(error.value) == (
        "`layers` should be names of layers with hard-concrete gates, whose paths are "
        "['second/gate/theta', 'routing/gate/theta']. Received: layers=['third']"
    )


def test_refused_sparsity():
    with pytest.raises(ValueError) as error:
        network().compile("adam", sparsity=0.5)
    assert str(error.value) == (
        "`sparsity` should be a Target, an L0Ramp, or a list of these. "
        "Received: sparsity=0.5"
    )
