"""`Labelled` around Keras' metrics: equal to the metric of the labelled rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl.metrics import Calibration, Labelled, NormalizedEntropy

NAN = float("nan")
m = keras.metrics


def binary(generator, n):
    y = generator.integers(0, 2, (n, 1)).astype("f4")
    return y, generator.random((n, 1)).astype("f4")


def several(generator, n):
    y = generator.integers(0, 2, (n, 4)).astype("f4")
    return y, generator.random((n, 4)).astype("f4")


def one_hot(generator, n):
    y = np.eye(5, dtype="f4")[generator.integers(0, 5, n)]
    return y, generator.dirichlet(np.ones(5), n).astype("f4")


def sparse(generator, n):
    y = generator.integers(0, 5, (n, 1)).astype("f4")
    return y, generator.dirichlet(np.ones(5), n).astype("f4")


METRICS = [
    (m.AUC, binary),
    (m.BinaryAccuracy, binary),
    (m.BinaryCrossentropy, binary),
    (m.Precision, binary),
    (m.Recall, binary),
    (m.MeanSquaredError, binary),
    (m.MeanAbsoluteError, binary),
    (m.MeanAbsolutePercentageError, binary),
    (m.MeanSquaredLogarithmicError, binary),
    (m.RootMeanSquaredError, binary),
    (lambda: m.SensitivityAtSpecificity(0.5), binary),
    (m.LogCoshError, binary),
    (m.Hinge, binary),
    (m.Poisson, binary),
    (m.R2Score, binary),
    (Calibration, binary),
    (NormalizedEntropy, binary),
    (m.AUC, several),
    (lambda: m.AUC(multi_label=True, num_labels=4), several),
    (m.BinaryAccuracy, several),
    (lambda: m.F1Score(average="macro"), several),
    (m.R2Score, several),
    (m.RootMeanSquaredError, several),
    (m.MeanSquaredError, several),
    (lambda: m.Precision(top_k=2), several),
    (m.CategoricalAccuracy, one_hot),
    (m.CategoricalCrossentropy, one_hot),
    (m.CosineSimilarity, one_hot),
    (m.KLDivergence, one_hot),
    (lambda: m.TopKCategoricalAccuracy(k=2), one_hot),
    (m.ConcordanceCorrelation, one_hot),
    (m.SparseCategoricalAccuracy, sparse),
    (m.SparseCategoricalCrossentropy, sparse),
    (lambda: m.SparseTopKCategoricalAccuracy(k=2), sparse),
]
each = pytest.mark.parametrize(
    "metric, data", METRICS, ids=[f"{a().name}-{b.__name__}" for a, b in METRICS]
)
elementwise = pytest.mark.parametrize(
    "metric",
    [
        m.AUC,
        m.BinaryAccuracy,
        m.BinaryCrossentropy,
        m.MeanSquaredError,
        m.RootMeanSquaredError,
        m.Precision,
        Calibration,
        NormalizedEntropy,
    ],
)


def of(metric, *batches):
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def with_missing(data, seed, missing=NAN, n=40):
    """Labels, of which some rows are missing, predictions, weights, labelled rows."""
    generator = np.random.default_rng(seed)
    y, p = data(generator, n)
    known = generator.random(n) < 0.6
    y[~known, generator.integers(y.shape[1])] = missing  # one of a row is enough
    return y, p, generator.integers(0, 3, n).astype("f4"), known


@each
def test_equals_the_metric_of_the_labelled_rows(metric, data):
    y, p, w, known = with_missing(data, 0)
    close(of(Labelled(metric()), (y, p)), of(metric(), (y[known], p[known])))
    p[~known] = np.nan
    expected = of(metric(), (y[known], p[known], w[known]))
    w[~known] = np.nan
    close(of(Labelled(metric()), (y, p, w)), expected)


@each
def test_sentinel(metric, data):
    y, p, w, known = with_missing(data, 1, missing=-1)
    expected = of(metric(), (y[known], p[known], w[known]))
    close(of(Labelled(metric(), missing=-1), (y, p, w)), expected)
    close(of(Labelled(metric(), missing=-1), (y.astype(int), p, w)), expected)


@each
def test_batch_without_labels_changes_nothing(metric, data):
    y, p, w, known = with_missing(data, 2)
    labelled = Labelled(metric())
    before = of(labelled, (y, p, w))
    variables = [np.array(v) for v in labelled.variables]
    after = of(labelled, (np.full_like(y, np.nan), np.full_like(p, np.nan), w))
    assert after == before
    if metric is not m.R2Score:  # counts rows, for its adjusted variant
        for old, new in zip(variables, labelled.variables, strict=True):
            np.testing.assert_array_equal(old, new)


@each
def test_batches_in_any_order_equal_one(metric, data):
    y, p, w, _ = with_missing(data, 3)
    parts = [slice(0, 3), slice(3, 4), slice(4, 30), slice(30, 40)]
    batches = [(y[part], p[part], w[part]) for part in parts]
    once = of(Labelled(metric()), (y, p, w))
    close(of(Labelled(metric()), *batches), once)
    close(of(Labelled(metric()), *batches[::-1]), once)


@each
def test_round_trip_and_reset(metric, data):
    y, p, w, _ = with_missing(data, 4)
    labelled = Labelled(metric(), name="named")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(labelled)
    )
    assert again.get_config() == labelled.get_config()
    expected = of(labelled, (y, p, w))
    assert again.name == "named"
    close(of(again, (y, p, w)), expected)
    again.reset_state()
    close(of(again, (y, p, w)), expected)


@elementwise
@pytest.mark.parametrize("shape", [(40,), (40, 1), (10, 4)])
@pytest.mark.parametrize("missing", [None, -1])
def test_entry_by_entry(metric, shape, missing):
    generator = np.random.default_rng(5)
    y, p = binary(generator, 40)
    w = generator.integers(0, 3, (40, 1)).astype("f4")
    known = generator.random(40) < 0.6
    expected = of(metric(), (y[known], p[known], w[known]))
    y[~known], p[~known] = NAN if missing is None else missing, np.nan
    got = of(
        Labelled(metric(), missing, per_entry=True),
        (y.reshape(shape), p.reshape(shape), w.reshape(shape)),
    )
    close(got, expected)


@elementwise
def test_entry_by_entry_with_weights_of_rows(metric):
    generator = np.random.default_rng(6)
    y, p = several(generator, 10)
    w = generator.integers(0, 3, 10).astype("f4")
    y[generator.random((10, 4)) < 0.4] = np.nan
    each_its_own = (y.reshape(-1, 1), p.reshape(-1, 1), np.repeat(w, 4))
    expected = of(Labelled(metric()), each_its_own)
    close(of(Labelled(metric(), per_entry=True), (y, p, w)), expected)
    close(of(Labelled(metric(), per_entry=True), (y, p, w[:, None])), expected)


@elementwise
@pytest.mark.parametrize("per_entry", [False, True])
def test_labels_and_predictions_without_last_axis(metric, per_entry):
    y, p, w, _ = with_missing(binary, 7)
    expected = of(Labelled(metric()), (y, p, w))
    for shaped in [(y[:, 0], p[:, 0]), (y[:, 0], p), (y, p[:, 0])]:
        for weights in (w, w[:, None]):
            labelled = Labelled(metric(), per_entry=per_entry)
            close(of(labelled, (*shaped, weights)), expected)


@pytest.mark.parametrize("per_entry", [False, True])
def test_metric_of_integers(per_entry):
    y, p, _, known = with_missing(binary, 8)
    expected = of(m.BinaryIoU(), (y[known], p[known]))
    close(of(Labelled(m.BinaryIoU(), per_entry=per_entry), (y, p)), expected)


def test_sparse_labels_without_last_axis():
    y, p, w, _ = with_missing(sparse, 8)
    expected = of(Labelled(m.SparseCategoricalAccuracy()), (y, p, w))
    close(of(Labelled(m.SparseCategoricalAccuracy()), (y[:, 0], p, w)), expected)


def test_one_weight_for_all_and_weights_of_entries():
    y, p, _, known = with_missing(several, 9)
    close(of(Labelled(m.AUC()), (y, p, 2.0)), of(Labelled(m.AUC()), (y, p)))
    w = np.random.default_rng(0).random(y.shape).astype("f4")
    expected = of(m.AUC(), (y[known], p[known], w[known]))
    close(of(Labelled(m.AUC()), (y, p, w)), expected)


def test_every_argument_is_in_the_config():
    labelled = Labelled(m.RootMeanSquaredError("rmse"), -1.0, True, "error")
    again = Labelled.from_config(labelled.get_config())
    assert (again.missing, again.per_entry, again.name) == (-1.0, True, "error")
    assert isinstance(again.metric, m.RootMeanSquaredError)
    assert again.metric.name == "rmse"
    assert Labelled(m.AUC(), NAN).get_config()["missing"] is None


@pytest.mark.parametrize("metric", ["auc", None, keras.losses.MeanSquaredError()])
def test_other_than_a_metric_is_refused(metric):
    with pytest.raises(ValueError) as error:
        Labelled(metric)
    assert str(error.value) == (
        f"`metric` should be a Keras metric. Received: metric={metric!r}"
    )


@keras.saving.register_keras_serializable(package="tfmtl_tests")
class LabelledSquaredError(keras.losses.Loss):
    """Squared error of the labels that are not NaN."""

    def call(self, y_true, y_pred):
        error = keras.ops.where(keras.ops.isnan(y_true), y_pred, y_true) - y_pred
        return keras.ops.mean(keras.ops.square(error), axis=-1)


def two_tasks(jit_compile):
    keras.utils.set_random_seed(0)
    x = keras.Input((3,))
    outputs = {
        "click": keras.layers.Dense(1, "sigmoid", name="click")(x),
        "kind": keras.layers.Dense(4, "softmax", name="kind")(x),
    }
    model = keras.Model(x, outputs)
    model.compile(
        "sgd",
        loss={"click": LabelledSquaredError(), "kind": LabelledSquaredError()},
        metrics={
            "click": [
                Labelled(m.AUC(name="auc")),
                Labelled(m.BinaryAccuracy(name="accuracy")),
                Labelled(Calibration()),
            ],
            "kind": [Labelled(m.F1Score(average="macro", name="f1"))],
        },
        jit_compile=jit_compile,
    )
    return model


def rows_of_two_tasks(n, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 3)).astype("f4")
    click = (x[:, :1] + generator.normal(size=(n, 1)) > 0).astype("f4")
    kind = np.eye(4, dtype="f4")[generator.integers(0, 4, n)]
    click[generator.random(n) < 0.4] = np.nan
    kind[generator.random(n) < 0.4] = np.nan
    return x, {"click": click, "kind": kind}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_fit_and_after_reload(jit_compile, tmp_path):
    model = two_tasks(jit_compile)
    train, (x, y) = rows_of_two_tasks(200, 0), rows_of_two_tasks(90, 1)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    history = model.fit(
        *train, batch_size=16, epochs=2, validation_data=data, verbose=0
    ).history
    p = model.predict(x, verbose=0)
    references = {
        ("click", "auc"): m.AUC(),
        ("click", "accuracy"): m.BinaryAccuracy(),
        ("click", "calibration"): Calibration(),
        ("kind", "f1"): m.F1Score(average="macro"),
    }
    for (task, name), metric in references.items():
        known = ~np.isnan(y[task][:, 0])
        expected = of(metric, (y[task][known], p[task][known]))
        close(history[f"val_{task}_{name}"][-1], expected)
        assert np.isfinite(history[f"{task}_{name}"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(data, return_dict=True, verbose=0)
    for name, value in again.items():
        close(value, history[f"val_{name}"][-1])


def test_early_stopping_knows_the_direction():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "mse", metrics=[Labelled(m.AUC(name="auc"))])
    stop = keras.callbacks.EarlyStopping(monitor="val_auc", patience=1)
    x, y = np.ones((4, 1)), np.array([[0.0], [1.0], [0.0], [1.0]])
    model.fit(x, y, validation_data=(x, y), epochs=2, callbacks=[stop], verbose=0)
    assert stop.monitor_op is keras.ops.greater
