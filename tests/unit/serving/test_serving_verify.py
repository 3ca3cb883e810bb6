"""Verification: a good version passes, every other one gives its reason."""

import importlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl.serving import export
from tfmtl.serving.golden import read_golden, write_golden
from tfmtl.serving.manifest import write_manifest
from tfmtl.serving.verify import verify
from tfmtl.serving.warm_up import FILE, write_warm_up

verify_module = importlib.import_module("tfmtl.serving.verify")


def complete(folder, rows, outputs, **golden):
    """Gives a SavedModel golden rows and a manifest."""
    write_golden(folder, rows, outputs, **golden)
    write_manifest(folder)
    return folder


def save(folder, call):
    """A SavedModel of a function of `x`."""
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    function = tf.function(call).get_concrete_function(spec)
    tf.saved_model.save(tf.Module(), str(folder), function)
    return folder


@pytest.fixture
def version(exported, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(exported.path, tmp_path / "1")


def test_exported_version_verifies(exported):
    found = verify(exported.path)
    assert found.problems == ()
    assert found.path == exported.path
    assert found.difference <= 1e-6
    assert found.load_ms > 0


def test_missing_folder(tmp_path):
    found = verify(tmp_path / "none")
    assert found.problems == ("assets.extra/manifest.json is missing",)
    assert found.difference is None and found.load_ms is None


def test_flipped_bit_in_every_file(version):
    files = sorted(path for path in version.rglob("*") if path.is_file())
    assert len(files) >= 5
    generator = np.random.default_rng(0)
    for file in files:
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[generator.integers(len(content))] ^= 1 << generator.integers(8)
        file.write_bytes(flipped)
        [problem] = verify(version).problems
        assert problem.startswith(str(file.relative_to(version))), problem
        file.write_bytes(content)


def test_changed_files_are_not_loaded(version, monkeypatch):
    def fail(*_):
        pytest.fail("loaded")

    for name in ("scan", "request"):
        monkeypatch.setattr(verify_module, name, fail)
    (version / "saved_model.pb").unlink()
    assert verify(version).problems == ("saved_model.pb is missing",)


def test_other_answers(version):
    rows, outputs, _ = read_golden(version)
    complete(version, rows, {name: y + 1e-3 for name, y in outputs.items()})
    found = verify(version)
    assert found.difference == pytest.approx(1e-3, rel=0.1)
    assert len(found.problems) == 2
    assert found.problems[0].startswith(
        "output 'ctr' should differ from the golden rows by at most 1e-05. Received: "
    )


def test_tolerance_is_that_of_the_export(version):
    rows, outputs, _ = read_golden(version)
    worse = {name: y + 1e-3 for name, y in outputs.items()}
    complete(version, rows, worse, tolerance=5e-3)
    assert verify(version).problems == ()


def test_answers_of_another_shape(version):
    rows, outputs, _ = read_golden(version)
    complete(version, rows, {name: y.ravel() for name, y in outputs.items()})
    assert "Received: difference=nan" in verify(version).problems[0]


def test_golden_rows_of_another_model(version):
    rows, outputs, _ = read_golden(version)
    complete(version, rows, {"ctr": outputs["ctr"]})
    [problem] = verify(version).problems
    assert problem == ("golden rows have ['ctr'], the signature ['ctr', 'order value']")
    complete(version, {"item": rows["item"]}, outputs)
    [problem] = verify(version).problems
    assert problem.startswith("`inputs` should have the names ['country', 'item'")


def test_no_golden_rows(version):
    (version / "assets.extra" / "golden.npz").unlink()
    write_manifest(version)
    [problem] = verify(version).problems
    assert "No such file or directory" in problem and "golden.npz" in problem


def test_what_the_scan_finds(tmp_path):
    save(tmp_path, lambda x: {"y": tf.cast(x, tf.float64)})
    complete(tmp_path, {"x": [[1.0, 2.0]]}, {"y": [[1.0, 2.0]]})
    assert verify(tmp_path).problems == (
        "output 'y' should be float32, int64 or string. Received: dtype=float64",
    )


def test_what_the_session_says(tmp_path):
    def refuse_negatives(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, "no negatives")]):
            return {"y": tf.identity(x)}

    save(tmp_path, refuse_negatives)
    complete(tmp_path, {"x": [[1.0, -2.0]]}, {"y": [[1.0, -2.0]]})
    [problem] = verify(tmp_path).problems
    assert "C++ session failed" in problem and "no negatives" in problem
    assert "\n" not in problem


def test_no_graph_behind_a_right_manifest(version, monkeypatch):
    monkeypatch.setattr("tfmtl.serving.manifest._signatures", lambda _: {})
    for content in (b"no protocol buffer", b""):
        (version / "saved_model.pb").write_bytes(content)
        write_manifest(version)
        [problem] = verify(version).problems
        assert "Error parsing message" in problem or "the tag 'serve'" in problem
    (version / "saved_model.pb").unlink()
    write_manifest(version)
    [problem] = verify(version).problems
    assert "should be a folder with a saved_model.pb" in problem


def logarithm(folder, warm_up, signature="serving_default"):
    """A version that cannot answer 0 in finite numbers, with warm-up rows."""
    save(folder, lambda x: {"y": tf.math.log(x)})
    write_warm_up(folder, {"x": np.array(warm_up, "float32")}, [2], signature)
    return complete(folder, {"x": [[1.0, 1.0]]}, {"y": [[0.0, 0.0]]})


def test_warm_up_records_are_answered(tmp_path):
    assert verify(logarithm(tmp_path / "1", [[1.0, 2.0]])).problems == ()
    [problem] = verify(logarithm(tmp_path / "2", [[1.0, 2.0], [0.0, 1.0]])).problems
    assert problem == (
        "signature 'serving_default' should answer the warm-up records in finite "
        "numbers. Received: NaN or infinity"
    )
    [problem] = verify(logarithm(tmp_path / "3", [[1.0]])).problems
    assert "`inputs['x']` should have the shape (any, 2)" in problem
    [problem] = verify(logarithm(tmp_path / "4", [[1.0, 2.0]], "other")).problems
    assert "`signature` should be one of ['serving_default']" in problem


def test_warm_up_records_may_be_answered_as_the_model_does(tmp_path):
    folder = logarithm(tmp_path, [[0.0, 1.0]])
    complete(folder, {"x": [[0.0, 1.0]]}, {"y": [[-np.inf, 0.0]]})
    assert not [p for p in verify(folder).problems if "warm-up" in p]


def test_warm_up_records_of_other_signatures_are_answered(exported, rows, tmp_path):
    folder = shutil.copytree(exported.path, tmp_path / "1")
    columns = read_golden(folder).rows
    write_warm_up(folder, columns, [4], "ctr")
    write_manifest(folder)
    assert verify(folder).problems == ()
    write_warm_up(folder, columns | {"item": columns["item"] + 10**6}, [4], "ctr")
    write_manifest(folder)
    [problem] = verify(folder).problems
    assert "C++ session failed" in problem and "is not in [0, 40000)" in problem


@pytest.mark.parametrize("record", [b"", b"\x32\x00", b"no protocol buffer"])
def test_warm_up_records_of_something_else(version, record):
    with tf.io.TFRecordWriter(str(version / FILE)) as writer:
        writer.write(record)
    write_manifest(version)
    [problem] = verify(version).problems
    assert "should hold requests of a signature" in problem or "parsing" in problem


def test_missing_warm_up_records(version):
    (version / FILE).unlink()
    assert verify(version).problems == (f"{FILE} is missing",)


def test_equal_weights_of_two_layers_are_no_problem(tmp_path):
    x = keras.Input((64,), name="x")
    first, second = (keras.layers.Dense(64, name=name) for name in ("a", "b"))
    model = keras.Model({"x": x}, {"y": second(first(x))})
    second.set_weights(first.get_weights())
    assert verify(export(model, tmp_path).path).problems == ()
