"""Calibration, its error and normalised entropy against NumPy, and as metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss

from tfmtl.metrics import Calibration, CalibrationError, NormalizedEntropy


def calibration(y, p, w):
    return (w * p).sum() / (w * y).sum()


def calibration_error(y, p, w, num_buckets):
    error = 0
    for k in range(num_buckets):
        inside = np.minimum((p * np.float32(num_buckets)).astype(int), num_buckets - 1)
        rows = inside == k
        error += abs((w * (p - y))[rows].sum())
    return error / w.sum()


def normalized_entropy(y, p, w):
    base = np.full(len(y), np.average(y, weights=w))
    return log_loss(y, p, sample_weight=w) / log_loss(y, base, sample_weight=w)


METRICS = {
    "calibration": (Calibration, calibration),
    "error": (CalibrationError, lambda y, p, w: calibration_error(y, p, w, 15)),
    "error_4": (
        lambda: CalibrationError(num_buckets=4),
        lambda y, p, w: calibration_error(y, p, w, 4),
    ),
    "entropy": (NormalizedEntropy, normalized_entropy),
}
each = pytest.mark.parametrize("metric, reference", METRICS.values(), ids=METRICS)


def rows(n, seed, rate=0.3):
    generator = np.random.default_rng(seed)
    p = generator.beta(1, 2, n).astype("f4")
    y = (generator.random(n) < rate).astype("f4")
    return y, p, generator.integers(0, 4, n).astype("f4")


def of(metric, *batches):
    for y, p, w in batches:
        metric.update_state(y, p, sample_weight=w)
    return float(metric.result())


@each
@pytest.mark.parametrize("n, seed", [(7, 0), (100, 1), (5000, 2)])
def test_equals_numpy(metric, reference, n, seed):
    y, p, w = rows(n, seed)
    expected = reference(*(x.astype("f8") for x in (y, p, w)))
    np.testing.assert_allclose(of(metric(), (y, p, w)), expected, rtol=2e-6)
    ones = np.ones(n)
    expected = reference(y.astype("f8"), p.astype("f8"), ones)
    np.testing.assert_allclose(of(metric(), (y, p, None)), expected, rtol=2e-6)


@each
def test_batches_in_any_order_equal_one(metric, reference):
    y, p, w = rows(1000, 3)
    cuts = np.split(np.random.default_rng(4).permutation(1000), [1, 10, 300, 301])
    batches = [(y[cut], p[cut], w[cut]) for cut in cuts]
    once = of(metric(), (y, p, w))
    np.testing.assert_allclose(of(metric(), *batches), once, rtol=1e-6)
    np.testing.assert_allclose(of(metric(), *batches[::-1]), once, rtol=1e-6)


@each
def test_weight_0_leaves_out_whatever_the_row_holds(metric, reference):
    y, p, w = rows(50, 5)
    expected = of(metric(), (y[10:], p[10:], w[10:]))
    y[:10], p[:5], p[5:10], w[:10] = np.nan, np.nan, np.inf, 0
    np.testing.assert_allclose(of(metric(), (y, p, w)), expected, rtol=1e-6)


@each
def test_shapes(metric, reference):
    y, p, w = rows(60, 6)
    expected = of(metric(), (y, p, w))
    column = (-1, 1)
    for shapes in [(column, column, 60), (60, column, column), (column, 60, column)]:
        reshaped = (x.reshape(s) for x, s in zip((y, p, w), shapes, strict=True))
        np.testing.assert_allclose(of(metric(), reshaped), expected, rtol=1e-6)
    grid = [x.reshape(20, 3) for x in (y, p, w)]
    np.testing.assert_allclose(of(metric(), grid), expected, rtol=1e-6)
    by_row = of(metric(), (*grid[:2], w[:20]))
    np.testing.assert_allclose(
        by_row, of(metric(), (y, p, np.repeat(w[:20], 3))), rtol=1e-6
    )
    of_one = of(metric(), (y, p, 2.0))
    np.testing.assert_allclose(of_one, of(metric(), (y, p, None)), rtol=1e-6)


@each
def test_integer_labels_and_half_precision_predictions(metric, reference):
    y, p, w = rows(60, 7)
    p = p.astype("f2").astype("f4")
    got = of(metric(), (y.astype(int), p.astype("f2"), w))
    np.testing.assert_allclose(got, of(metric(), (y, p, w)), rtol=1e-6)


@each
def test_reset_and_round_trip(metric, reference):
    first = metric()
    of(first, rows(20, 8))
    first.reset_state()
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(first)
    )
    y, p, w = rows(30, 9)
    assert of(first, (y, p, w)) == of(again, (y, p, w)) == of(metric(), (y, p, w))
    assert again.get_config() == first.get_config()


@each
def test_without_rows_or_positive_labels(metric, reference):
    fresh = metric()
    assert np.isnan(float(fresh.result()))
    fresh.update_state([[0.0], [0.0]], [[0.2], [0.4]])
    expected = 0.3 if isinstance(fresh, CalibrationError) else np.nan
    np.testing.assert_allclose(float(fresh.result()), expected, rtol=1e-6)


def test_entropy_of_positive_labels_only():
    assert np.isnan(of(NormalizedEntropy(), ([1.0, 1.0], [0.2, 0.4], None)))


def test_entropy_clips_sure_predictions():
    got = of(NormalizedEntropy(), ([1.0, 0.0], [0.0, 1.0], None))
    np.testing.assert_allclose(got, -np.log(1e-7) / np.log(2), rtol=1e-2)


def test_entropy_of_the_base_rate_is_1_for_rare_labels():
    y = np.zeros(10**6, "f4")
    y[:3] = 1
    got = of(NormalizedEntropy(), (y, np.full(10**6, 3e-6, "f4"), None))
    np.testing.assert_allclose(got, 1, rtol=1e-5)


@each
def test_mixed_shapes_are_refused(metric, reference):
    with pytest.raises(ValueError) as error:
        metric().update_state(np.ones((4, 2)), np.ones((4, 3)))
    assert str(error.value) == (
        "`y_true` and `y_pred` should have the same shape, up to a last axis of 1. "
        "Received: y_true.shape=(4, 2), y_pred.shape=(4, 3)"
    )


def test_number_of_buckets_is_checked():
    with pytest.raises(ValueError) as error:
        CalibrationError(num_buckets=0)
    assert str(error.value) == (
        "`num_buckets` should be a positive integer. Received: num_buckets=0"
    )


def test_table_of_buckets():
    metric = CalibrationError(num_buckets=4)
    y, p = [0, 1, 1, 1, 0], [0.0, 0.2, 0.25, 1.0, 7.0]
    metric.update_state(y, p, sample_weight=[1, 3, 1, 1, 1])
    table = metric.by_bucket()
    assert list(table) == ["lower", "upper", "weight", "predicted", "observed"]
    np.testing.assert_array_equal(table["lower"], [0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(table["upper"], [0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(table["weight"], [4, 1, 0, 2])
    np.testing.assert_allclose(table["predicted"], [0.15, 0.25, np.nan, 4])
    np.testing.assert_allclose(table["observed"], [0.75, 1, np.nan, 0.5])


def test_nan_predictions_are_seen():
    for metric in (Calibration(), CalibrationError(), NormalizedEntropy()):
        assert np.isnan(of(metric, ([1.0, 0.0], [np.nan, 0.5], None)))


@each
def test_compiled_by_xla(metric, reference):
    y, p, w = rows(40, 10)
    compiled = metric()
    update = tf.function(compiled.update_state, jit_compile=True)
    for part in (slice(0, 20), slice(20, 40)):
        update(*(tf.constant(x[part]) for x in (y, p, w)))
    expected = of(metric(), (y, p, w))
    np.testing.assert_allclose(float(compiled.result()), expected, rtol=1e-6)


def test_in_fit_and_after_reload(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(inputs))
    factories = [Calibration, lambda: CalibrationError(8), NormalizedEntropy]
    metrics = [factory() for factory in factories]
    model.compile(
        "sgd",
        "binary_crossentropy",
        weighted_metrics=metrics,
    )
    generator = np.random.default_rng(0)
    x = generator.normal(size=(70, 3)).astype("f4")
    y, _, w = rows(70, 1)
    data = tf.data.Dataset.from_tensor_slices((x, y[:, None], w)).batch(16)
    history = model.fit(
        data, validation_data=data, epochs=2, shuffle=False, verbose=0
    ).history
    p = model.predict(x, verbose=0)
    for metric, factory in zip(metrics, factories, strict=True):
        expected = of(factory(), (y, p, w))
        got = history[f"val_{metric.name}"][-1]
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(data, return_dict=True, verbose=0)
    for name in (metric.name for metric in metrics):
        np.testing.assert_allclose(again[name], history[f"val_{name}"][-1], rtol=1e-5)


@pytest.mark.parametrize("metric", [CalibrationError(), NormalizedEntropy()])
def test_early_stopping_knows_the_direction(metric):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=[metric])
    stop = keras.callbacks.EarlyStopping(monitor=f"val_{metric.name}", patience=1)
    x, y = np.ones((4, 1)), np.array([[0.0], [1.0], [0.0], [1.0]])
    model.fit(x, y, validation_data=(x, y), epochs=2, callbacks=[stop], verbose=0)
    assert stop.monitor_op is keras.ops.less
