"""Warm-up records are what TF Serving reads."""

import numpy as np
import pytest
import tensorflow as tf

from tfmtl.serving import export
from tfmtl.serving.warm_up import FILE, write_warm_up

prediction_log = pytest.importorskip(
    "tensorflow_serving.apis.prediction_log_pb2",
    reason="the extra `serving` is not installed",
)


def records(folder):
    raw = tf.data.TFRecordDataset(str(folder / FILE)).as_numpy_iterator()
    return [prediction_log.PredictionLog.FromString(record) for record in raw]


def test_records_are_requests_of_the_batch_sizes(tmp_path):
    rows = {
        "word": np.array([[b"de"], [b"x" * 300]], object),
        "id": np.array([[1], [2**40]]),
        "x": np.random.default_rng(0).normal(size=(2, 70)).astype("float32"),
    }
    write_warm_up(tmp_path, rows, [1, 5])
    for size, log in zip([1, 5], records(tmp_path), strict=True):
        request = log.predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        found = {name: tf.make_ndarray(t) for name, t in request.inputs.items()}
        for name, values in rows.items():
            expected = values[np.arange(size) % 2]
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], expected)


def test_an_export_has_one_record_or_one_for_each_size(small_model, tmp_path):
    path = export(small_model, tmp_path).path
    sizes = [len(_rows(log)) for log in records(path)]
    assert sizes == [1]
    path = export(small_model, tmp_path, batch_sizes=[1, 64, 300]).path
    assert [len(_rows(log)) for log in records(path)] == [1, 64, 300]


def _rows(log):
    return tf.make_ndarray(log.predict_log.request.inputs["number"])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([0], "`batch_sizes` should be a positive integer. Received: batch_sizes=0"),
        ([], r"`batch_sizes` should be 1 to 1000 numbers. Received: batch_sizes=\[\]"),
        ([1] * 1001, "`batch_sizes` should be 1 to 1000 numbers"),
    ],
)
def test_wrong_batch_sizes_are_refused(small_model, tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        export(small_model, tmp_path, batch_sizes=sizes)
    assert not list(tmp_path.iterdir())
