"""A Keras 3 model inside a `tfrs.Model`: training, losses, state, files."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

import tfmtl
from tfmtl.features import Categorical, Numeric
from tfmtl.interop.tfrs import Bridge
from tfmtl.layers.gates import gates
from tfmtl.tasks import Binary, Regression

BATCH, STEPS = 32, 50
TASKS = [Binary("click"), Regression("stay")]
FEATURES = [
    Numeric("x", width=4, mean=(0.0,) * 4, std=(1.0,) * 4),
    Categorical("country", vocabulary=["at", "de"]),
]


def snr(**arguments):
    keras.utils.set_random_seed(0)
    model = tfmtl.models.snr(FEATURES, TASKS, levels=[(3, 8), (2, 8)], **arguments)
    for seed, gate in enumerate(gates(model)):
        gate.set_l0(0.01)
        gate.seed_generator.state.assign([seed, 7])
    return model


def mmoe(**arguments):
    keras.utils.set_random_seed(0)
    return tfmtl.models.mmoe(FEATURES, TASKS, levels=[(3, 8)], **arguments)


def rows(count=BATCH * STEPS, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 4)).astype("float32")
    country = generator.choice(np.array([b"at", b"de", b"fr"], object), (count, 1))
    click = (x[:, :1] + x[:, 1:2] > 0).astype("float32")
    stay = x[:, :1] ** 2 + (country == b"de")
    return {"x": x, "country": country}, {"click": click, "stay": stay.astype("f4")}


def batches(labels=None):
    x, y = rows()
    return tf.data.Dataset.from_tensor_slices((x, labels or y)).batch(BATCH)


class Ranker(tfrs.Model):
    """The bridge, and a ranking of TFRS for each task."""

    def __init__(self, model, **metrics):
        super().__init__()
        self.scores = Bridge(model)
        self.click = tfrs.tasks.Ranking(tf_keras.losses.BinaryCrossentropy(), **metrics)
        self.stay = tfrs.tasks.Ranking(tf_keras.losses.MeanSquaredError())

    def call(self, features, training=None):
        return self.scores(features, training=training)

    def compute_loss(self, inputs, training=False):
        features, labels = inputs
        scores = self(features, training=training)
        click = self.click(labels["click"], scores["click"])
        return click + self.stay(labels["stay"], scores["stay"])


def weights(model):
    return [variable.numpy() for variable in model.variables]


def assert_equal(one, other, tolerance=0.0):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


class DenseAdam(keras.optimizers.Adam):
    """Adam of Keras 3 that adds up what a row of a table gets before it squares it.

    Stock Keras 3 squares the parts when an id is several times in a batch; Keras 2
    adds first, as a dense gradient does.
    """

    def update_step(self, gradient, variable, learning_rate):
        dense = tf.convert_to_tensor(gradient)
        super().update_step(dense, variable, learning_rate)


@pytest.mark.parametrize("architecture", [snr, mmoe])
@pytest.mark.parametrize(
    "native_optimizer, optimizer",
    [
        (keras.optimizers.SGD(0.03), tf_keras.optimizers.SGD(0.03)),
        (DenseAdam(0.003, epsilon=1e-7), tf_keras.optimizers.Adam(0.003, epsilon=1e-7)),
    ],
    ids=["sgd", "adam"],
)
def test_fifty_steps_are_those_of_native_training(
    architecture, native_optimizer, optimizer
):
    native, bridged, untrained = (architecture() for _ in range(3))
    assert_equal(weights(native), weights(bridged))
    native.compile(
        type(native_optimizer).from_config(native_optimizer.get_config()),
        loss={"click": "binary_crossentropy", "stay": "mean_squared_error"},
        jit_compile=False,  # the kernels of Keras 2
    )
    native.fit(batches(), shuffle=False, verbose=0)
    ranker = Ranker(bridged)
    ranker.compile(type(optimizer).from_config(optimizer.get_config()))
    ranker.fit(batches(), shuffle=False, verbose=0)

    assert int(native.optimizer.iterations) == int(ranker.optimizer.iterations) == STEPS
    assert_equal(weights(native), weights(bridged), 1e-5)
    x = {key: tf.constant(value) for key, value in rows(200, seed=1)[0].items()}
    outputs, answers = native(x, training=False), ranker(x)
    assert list(answers) == list(outputs)
    assert_equal([*outputs.values()], [*answers.values()], 1e-5)
    apart = zip(weights(untrained), weights(bridged), strict=True)
    assert max(np.abs(a - b).max() for a, b in apart) > 0.05


def test_trained_model_is_the_one_that_was_given():
    model = mmoe()
    ranker = Ranker(model)
    ranker.compile("sgd")
    before = weights(model)
    ranker.fit(batches().take(2), verbose=0)
    assert not np.array_equal(before[0], weights(model)[0])
    assert tfmtl.folding.fold(model).output.keys() == model.output.keys()


def test_weights_are_tracked():
    model = snr()
    bridge = Bridge(model)
    names = {id(v.value) for v in model.trainable_variables}
    assert {id(v) for v in bridge.trainable_weights} == names
    assert len(bridge.weights) == len(model.variables)
    outer = Ranker(model)
    outer(rows(2)[0])
    assert {id(v) for v in outer.trainable_variables} == names


def test_frozen_layers_stay():
    model = mmoe()
    frozen = next(layer for layer in model.layers if layer.trainable_variables)
    frozen.trainable = False
    ranker = Ranker(model)
    ranker.compile(tf_keras.optimizers.SGD(0.1))
    kept = [v.numpy() for v in frozen.variables]
    ranker.fit(batches().take(3), verbose=0)
    assert_equal(kept, [v.numpy() for v in frozen.variables])
    assert len(ranker.trainable_variables) == len(model.trainable_variables)
    assert 0 < len(ranker.trainable_variables) < len(mmoe().trainable_variables)


def test_a_frozen_bridge_stays():
    bridge = Bridge(mmoe(), trainable=False)
    assert bridge.trainable_weights == []
    assert len(bridge.non_trainable_weights) == len(bridge.model.variables)
    bridge.trainable = True
    assert len(bridge.trainable_weights) == len(bridge.model.trainable_variables)


def penalised():
    """A regularised kernel, a penalty on activities, and gates."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    experts = tfmtl.layers.Experts(2, 4)(inputs)
    routing = tfmtl.layers.SubNetworkRouting(2, 4, hard_concrete={"l0": 0.25})
    dense = keras.layers.Dense(
        2, kernel_regularizer="l2", activity_regularizer=keras.regularizers.L1(0.5)
    )
    return keras.Model(inputs, dense(keras.layers.Flatten()(routing(experts))))


def test_losses_of_layers_are_added():
    model = penalised()
    bridge = Bridge(model)
    bridge(tf.ones((5, 3)))
    assert len(bridge.losses) == 2  # of the activities, and of all weights
    expected = float(sum(model.losses))
    np.testing.assert_allclose(float(sum(bridge.losses)), expected, rtol=1e-6)
    [gate] = gates(model)
    gate.set_l0(2.0)
    more = float(sum(bridge.losses)) - expected
    opened = float(keras.ops.sum(gate.open_probability()))
    np.testing.assert_allclose(more, 1.75 * opened, rtol=1e-5)


def test_regularisers_count_once_and_activities_at_each_call():
    model = penalised()

    class Twice(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.bridge = Bridge(model)

        def call(self, x):
            return self.bridge(x) + self.bridge(x)

    outer = Twice()
    outer(tf.ones((5, 3)))
    assert len(outer.losses) == 3
    activity, again, regularisers = map(float, outer.losses)
    assert activity == again
    bridge = Bridge(model)
    bridge(tf.ones((5, 3)))
    np.testing.assert_allclose(
        [activity, regularisers], [float(loss) for loss in bridge.losses], rtol=1e-6
    )


def test_total_loss_has_the_l0_penalty():
    model = snr()
    ranker = Ranker(model)
    ranker.compile(tf_keras.optimizers.SGD(0.0))
    logs = ranker.evaluate(batches().take(1), return_dict=True, verbose=0)
    penalty = sum(
        float(keras.ops.sum(gate.l0 * gate.open_probability())) for gate in gates(model)
    )
    assert penalty > 0.05
    np.testing.assert_allclose(logs["regularization_loss"], penalty, rtol=1e-5)


def test_training_flag_is_passed():
    inputs = keras.Input((1000,))
    bridge = Bridge(keras.Model(inputs, keras.layers.Dropout(0.5)(inputs)))
    x = tf.ones((1, 1000))
    assert np.array_equal(bridge(x), x)
    assert np.array_equal(bridge(x, training=False), x)
    assert 400 < int(tf.math.count_nonzero(bridge(x, training=True))) < 600
    graph = tf.function(lambda x: bridge(x, training=True))
    assert not np.array_equal(graph(x), graph(x))


def test_statistics_move_in_training_alone():
    inputs = keras.Input((2,))
    norm = keras.layers.BatchNormalization()
    bridge = Bridge(keras.Model(inputs, norm(inputs)))
    assert len(bridge.trainable_weights) == len(bridge.non_trainable_weights) == 2
    x = tf.constant([[1.0, 2.0], [3.0, 6.0]])
    bridge(x)
    assert norm.moving_mean.numpy().tolist() == [0.0, 0.0]
    bridge(x, training=True)
    np.testing.assert_allclose(norm.moving_mean.numpy(), [0.02, 0.04], rtol=1e-5)


def test_constraints_apply():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(1, kernel_constraint="non_neg", use_bias=False)
    bridge = Bridge(keras.Model(inputs, layer(inputs)))
    outer = tf_keras.Sequential([bridge])
    outer.compile(tf_keras.optimizers.SGD(10.0), "mse")
    outer.fit(np.ones((4, 2), "f4"), np.full((4, 1), -9.0, "f4"), verbose=0)
    assert layer.kernel.numpy().tolist() == [[0.0], [0.0]]


def test_columns_beside_the_inputs_are_left_out():
    bridge = Bridge(mmoe())
    x, y = rows(3)
    with_labels = bridge({**x, **y, "other": np.ones(3)})
    assert_equal([*bridge(x).values()], [*with_labels.values()])
    with pytest.raises(ValueError, match="country"):
        bridge({"x": x["x"]})


def fresh(seed=1):
    """The same network with other numbers."""
    model = snr()
    keras.utils.set_random_seed(seed)
    for variable in model.variables:
        variable.assign(keras.random.uniform(variable.shape) * 10 // 1)
    return model


def test_checkpoints_restore_all_state(tmp_path):
    model, other = snr(), fresh()
    ranker, again = Ranker(model), Ranker(other)
    for outer in (ranker, again):
        outer.compile(tf_keras.optimizers.Adam())
    ranker.fit(batches().take(2), verbose=0)
    path = tf.train.Checkpoint(ranker).save(str(tmp_path / "checkpoint"))
    status = tf.train.Checkpoint(again).restore(path)
    again.fit(batches().take(0).concatenate(batches().take(1)), verbose=0)
    status.assert_existing_objects_matched()
    tf.train.Checkpoint(again).restore(path)
    assert_equal(weights(model), weights(other))


@pytest.mark.parametrize("name", ["weights", "ranker.weights.h5"])
def test_weight_files_restore_all_state(tmp_path, name):
    model, other = snr(), fresh()
    ranker, again = Ranker(model), Ranker(other)
    x, _ = rows(4)
    ranker(x), again(x)
    ranker.save_weights(str(tmp_path / name))
    again.load_weights(str(tmp_path / name))
    assert_equal(weights(model), weights(other))


def test_a_weight_file_of_another_network_is_refused(tmp_path):
    one, two = Ranker(snr()), Ranker(mmoe())
    x, _ = rows(4)
    one(x), two(x)
    one.save_weights(str(tmp_path / "one.weights.h5"))
    with pytest.raises(ValueError, match="variables of the layer"):
        two.load_weights(str(tmp_path / "one.weights.h5"))


def test_saved_model_answers_alike(tmp_path):
    ranker = Ranker(snr())
    x, _ = rows(4)
    expected = ranker(x)
    tf.saved_model.save(ranker, str(tmp_path / "ranker"))
    restored = tf.saved_model.load(str(tmp_path / "ranker"))
    x = {key: tf.constant(value) for key, value in x.items()}
    answers = restored(x, training=False)  # a dict in another order
    assert set(answers) == set(expected)
    assert_equal([*expected.values()], [answers[name] for name in expected], 1e-6)


def test_saved_model_runs_in_the_cpp_session(tmp_path):
    ranker = Ranker(snr())
    specs = {
        "x": tf.TensorSpec((None, 4), name="x"),
        "country": tf.TensorSpec((None, 1), tf.string, name="country"),
    }
    serve = tf.function(lambda columns: ranker(columns, training=False))
    signature = serve.get_concrete_function(specs)
    tf.saved_model.save(ranker, str(tmp_path / "ranker"), signature)
    x, _ = rows(4)
    answers = tfmtl.serving.run_in_cpp_session(tmp_path / "ranker", x)
    for task, expected in ranker(x).items():
        np.testing.assert_allclose(answers[task], expected, atol=1e-6)


def test_a_ramp_drives_the_gates_of_a_bridge():
    model = snr()
    ramp = tfmtl.sparsity.L0Ramp(0.5, dense_epochs=1, ramp_epochs=1)
    ramp.set_model(model)
    driven = tf_keras.callbacks.LambdaCallback(
        on_train_begin=ramp.on_train_begin, on_epoch_begin=ramp.on_epoch_begin
    )
    ranker = Ranker(model)
    ranker.compile(tf_keras.optimizers.Adam())
    history = ranker.fit(batches(), epochs=3, callbacks=[driven], verbose=0).history
    first, second, third = history["regularization_loss"]
    assert first == second == 0.0 < 0.5 <= third
    assert {float(gate.l0[0, 0]) for gate in gates(model)} == {0.5}


@pytest.mark.parametrize("name", ["model.keras", "model"])
def test_keras_2_saves_the_whole_model(tmp_path, name):
    columns = {
        "x": tf_keras.Input((4,), name="x"),
        "country": tf_keras.Input((1,), dtype="string", name="country"),
    }
    outer = tf_keras.Model(columns, Bridge(snr())(columns))
    x, _ = rows(4)
    expected = outer(x)
    outer.save(str(tmp_path / name))
    restored = tf_keras.models.load_model(str(tmp_path / name))
    answers = restored({key: tf.constant(value) for key, value in x.items()})
    assert set(answers) == set(expected)
    assert_equal([*expected.values()], [answers[name] for name in expected], 1e-6)


def test_configuration_makes_the_same_network():
    bridge = Bridge(snr(), name="scores", trainable=False)
    again = Bridge.from_config(bridge.get_config())
    assert (again.name, again.trainable) == ("scores", False)
    assert again.get_config() == bridge.get_config()
    assert again.model is not bridge.model


def test_layers_and_stacks_are_bridged():
    keras.utils.set_random_seed(0)
    stack = keras.Sequential(
        [keras.Input((6,)), tfmtl.layers.Experts(2, 3), keras.layers.Flatten()]
    )
    assert Bridge(stack)(tf.ones((5, 6))).shape == (5, 6)
    layer = tfmtl.layers.Experts(2, 3)
    layer.build((None, 6))
    assert Bridge(layer)(tf.ones((5, 6)), training=True).shape == (5, 2, 3)


def test_what_is_no_built_model_is_refused():
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=re.escape("`model` should be built, as by")):
        Bridge(unbuilt)
    with pytest.raises(ValueError, match="should be a model or layer of Keras 3"):
        Bridge(tf_keras.layers.Dense(1))


def test_missing_labels_have_no_weight():
    x, y = rows()
    known = np.random.default_rng(2).random(y["click"].shape) < 0.5
    labels = {**y, "click": np.where(known, y["click"], np.nan).astype("f4")}

    class Missing(Ranker):
        def compute_loss(self, inputs, training=False):
            features, labels = inputs
            scores = self(features, training=training)
            known = tf.math.is_finite(labels["click"])
            return self.click(
                tf.where(known, labels["click"], 0.0),
                scores["click"],
                sample_weight=tf.cast(known, tf.float32),
            ) + self.stay(labels["stay"], scores["stay"])

    native, bridged = mmoe(), mmoe()
    native.compile(keras.optimizers.SGD(0.05))
    native.fit(batches(labels), shuffle=False, verbose=0)
    ranker = Missing(bridged)
    ranker.click = tfrs.tasks.Ranking(TASKS[0].loss(), [tf_keras.metrics.AUC()])
    ranker.compile(tf_keras.optimizers.SGD(0.05))
    history = ranker.fit(batches(labels), shuffle=False, verbose=0)
    assert_equal(weights(native), weights(bridged), 1e-5)
    assert 0.5 < history.history["auc"][0] < 1.0


def test_the_tasks_own_losses_train_the_bridge():
    x, y = rows()
    labels = {**y, "click": np.where(y["click"] > 0, 1.0, np.nan).astype("f4")}

    class Own(tfrs.Model):
        def __init__(self, model):
            super().__init__()
            self.scores = Bridge(model)

        def call(self, features, training=None):
            return self.scores(features, training=training)

        def compute_loss(self, inputs, training=False):
            features, labels = inputs
            scores = self(features, training=training)
            return tf.add_n(self.scores.model.losses_on(features, labels, scores))

    native, bridged = snr(), snr()
    for model in (native, bridged):
        model.compile(keras.optimizers.SGD(0.05), loss_weights={"stay": 0.5})
    native.fit(batches(labels), shuffle=False, verbose=0)
    ranker = Own(bridged)
    ranker.compile(tf_keras.optimizers.SGD(0.05))
    ranker.fit(batches(labels), shuffle=False, verbose=0)
    assert_equal(weights(native), weights(bridged), 1e-5)
