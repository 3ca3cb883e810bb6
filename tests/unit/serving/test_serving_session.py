"""The C++ session: what it refuses, what its process imports, latencies."""

import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl.serving import (
    CppSessionError,
    compare_latency,
    export,
    latency,
    run_in_cpp_session,
    session,
)
from tfmtl.serving.publish import DiskFullError
from tfmtl.serving.session import request

NUMBER = tf.TensorSpec((None, 2), tf.float32, name="number")


def save(path, function, **attributes):
    """Saves a function of `number` with a module that tracks the attributes."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    tf.saved_model.save(module, path, function.get_concrete_function(NUMBER))
    return path


def test_process_imports_neither_package_nor_keras(exported, rows):
    report, _ = request([exported.path], [rows])
    assert "numpy" in report["modules"]
    assert not {"tfmtl", "keras", "tensorflow"} & set(report["modules"])
    assert report["version"] == tf.__version__
    assert report["load_ms"][0] > 0


def test_tracked_keras_model_is_refused(small_model, tmp_path):
    @tf.function
    def serve(number):
        return small_model({"number": number}, training=False)

    path = save(str(tmp_path / "naive"), serve, model=small_model)
    loaded = tf.saved_model.load(path).signatures["serving_default"]
    assert loaded(number=tf.ones((1, 2)))["ctr"].shape == (1, 1)
    with pytest.raises(CppSessionError, match="Could not find variable"):
        run_in_cpp_session(path, {"number": [[1.0, 2.0]]})


@pytest.mark.parametrize("written", ["reply.json", "outputs.npz"])
def test_full_temporary_folder_is_named(exported, rows, tmp_path, monkeypatch, written):
    """As the other process finds it: what it writes goes to a full device."""
    call = session._call

    def full(folder, timeout):
        (folder / written).symlink_to("/dev/full")
        return call(folder, timeout)

    monkeypatch.setattr(session, "_call", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DiskFullError, match="which TMPDIR names") as raised:
        request([exported.path], [rows])
    assert raised.value.filename == str(tmp_path)


def test_xla_is_disabled(tmp_path):
    @tf.function(jit_compile=True)
    def serve(number):
        return {"y": number * 2.0}

    path = save(str(tmp_path / "xla"), serve)
    with pytest.raises(CppSessionError, match="XLA compilation disabled"):
        run_in_cpp_session(path, {"number": [[1.0, 2.0]]})


def test_strings_are_answered(tmp_path):
    texts = tf.constant(["", "ü", "a longer text than fits in place", "x"])

    @tf.function
    def serve(number):
        rows = tf.cast(number, tf.int32)
        return {"text": tf.gather(texts, rows)}

    path = save(str(tmp_path / "texts"), serve)
    answers = run_in_cpp_session(path, {"number": [[1.0, 2.0], [0.0, 3.0], [3.0, 1.0]]})
    assert answers["text"].tolist() == [
        ["ü".encode(), b"a longer text than fits in place"],
        [b"", b"x"],
        [b"x", "ü".encode()],
    ]
    assert run_in_cpp_session(path, {"number": np.zeros((0, 2))})["text"].shape == (
        0,
        2,
    )


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "int8", "uint8", "int16", "int64", "bool"]
)
def test_types_of_numbers(tmp_path, dtype):
    spec = tf.TensorSpec((None,), dtype, name="x")
    function = tf.function(lambda x: {"y": tf.identity(x)})
    signature = function.get_concrete_function(spec)
    tf.saved_model.save(tf.Module(), str(tmp_path), signature)
    values = np.array([0, 1, 1], dtype)
    served = run_in_cpp_session(tmp_path, {"x": values})["y"]
    assert served.dtype == values.dtype
    np.testing.assert_array_equal(served, values)


def test_strings_arrive_whole(tmp_path):
    spec = tf.TensorSpec((None, 2), tf.string, name="x")
    function = tf.function(
        lambda x: {
            "length": tf.strings.length(x),
            "letter": tf.strings.to_hash_bucket_fast(x, 1 << 20),
        }
    )
    signature = function.get_concrete_function(spec)
    tf.saved_model.save(tf.Module(), str(tmp_path), signature)
    texts = np.array([["", "a\0b\0"], ["ü", "x" * 1000]], object)
    served = run_in_cpp_session(tmp_path, {"x": texts})
    np.testing.assert_array_equal(served["length"], [[0, 4], [2, 1000]])
    expected = tf.strings.to_hash_bucket_fast(texts.tolist(), 1 << 20)
    np.testing.assert_array_equal(served["letter"], expected)


def test_empty_batch(exported, rows):
    none = {name: array[:0] for name, array in rows.items()}
    assert run_in_cpp_session(exported.path, none)["ctr"].shape == (0, 1)


def test_complex_outputs_are_refused(tmp_path):
    function = tf.function(lambda number: {"y": tf.cast(number, tf.complex64)})
    path = save(str(tmp_path), function)
    with pytest.raises(CppSessionError, match="An output should hold numbers or str"):
        run_in_cpp_session(path, {"number": [[1.0, 2.0]]})


def test_wrong_names_are_refused(exported, rows):
    few = {name: array for name, array in rows.items() if name != "unused"}
    with pytest.raises(ValueError, match="`inputs` should have the names"):
        run_in_cpp_session(exported.path, few)


def test_unknown_signature_is_refused(exported, rows):
    message = r"should be one of .*'serving_default'.*. Received: signature='x'"
    with pytest.raises(ValueError, match=message):
        run_in_cpp_session(exported.path, rows, signature="x")


def test_missing_saved_model_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="should be a folder with a saved_model.pb"):
        run_in_cpp_session(tmp_path, rows)


def test_latency(exported, rows):
    times = latency(exported.path, rows, (1, 5), repetitions=20, warmup=2)
    assert list(times) == [1, 5]
    for time in times.values():
        assert 0 < time.p10 <= time.p50 <= time.p90
        assert time.repetitions == 20


def test_compare_latency_sees_the_larger_model(small_model, tmp_path):
    x = keras.Input((2,), name="number")
    wide = keras.layers.Dense(512, name="wide")(x)
    for index in range(3):
        wide = keras.layers.Dense(512, name=f"wide_{index}")(wide)
    large = keras.Model({"number": x}, {"ctr": keras.layers.Dense(1)(wide)})
    first = export(small_model, tmp_path / "small").path
    second = export(large, tmp_path / "large").path
    rows = {"number": [[1.0, 2.0]]}
    result = compare_latency(first, second, rows, (64,), repetitions=20, threads=0)
    assert result[64].ratio_p10 <= result[64].ratio <= result[64].ratio_p90
    assert result[64].ratio > 1.5
    assert result[64].first.p50 < result[64].second.p50


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"batch_sizes": (0,)}, r"`batch_sizes`.*Received: batch_sizes=\(0,\)"),
        ({"repetitions": 0}, "`repetitions`.*Received: repetitions=0"),
        ({"warmup": -1}, "`warmup`.*Received: warmup=-1"),
        ({"threads": 128}, "`threads`.*Received: threads=128"),
    ],
)
def test_latency_refuses(exported, rows, argument, message):
    with pytest.raises(ValueError, match=message):
        latency(exported.path, rows, **argument)
    with pytest.raises(ValueError, match=message):
        compare_latency(exported.path, exported.path, rows, **argument)


def test_outputs_of_several_batches_are_joined(exported, rows):
    more = {name: array[:2] for name, array in rows.items()}
    _, answers = request([exported.path], [rows, more])
    _, alone = request([exported.path], [rows])
    for name, array in alone.items():
        assert answers[name].shape == (5, 1)
        np.testing.assert_allclose(answers[name][:3], array, atol=1e-6)
        np.testing.assert_allclose(answers[name][3:], array[:2], atol=1e-6)
