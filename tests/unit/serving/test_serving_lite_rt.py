"""LiteRT: files that answer as the C++ session does, for any batch; what is refused."""

import importlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from side_doors import MODELS, columns, inputs_of, make_model

import tfmtl
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.serving.converted import ConversionError
from tfmtl.serving.lite_rt import to_lite_rt
from tfmtl.tasks import Binary

litert = pytest.importorskip("ai_edge_litert.interpreter")


def run(file, rows, signature="serving_default"):
    runner = litert.Interpreter(str(file)).get_signature_runner(signature)
    return runner(**rows)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_version(name, tmp_path):
    model = make_model(name)
    rows = inputs_of(model, columns())
    version = export(model, tmp_path / "ranker", golden=rows).path
    written = to_lite_rt(version, tmp_path / "ranker.tflite")
    assert written.difference <= 1e-6
    assert written.bytes == written.path.stat().st_size
    expected = run_in_cpp_session(version, rows)
    for count in (64, 1, 3):  # of one file, its inputs by name in any order
        few = {key: rows[key][:count] for key in sorted(rows, reverse=True)}
        got = run(written.path, few)
        assert set(got) == {"click", "time"}
        for task, value in got.items():
            assert np.ptp(expected[task]) > 1e-3
            np.testing.assert_allclose(value, expected[task][:count], 1e-6, 1e-6)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """The version of the dense model."""
    return export(make_model("dense"), tmp_path_factory.mktemp("dense") / "ranker").path


def test_one_output_only(dense, tmp_path):
    file = to_lite_rt(dense, tmp_path / "click.tflite", "click").path
    rows = {"x": np.ones((2, 12), "f4")}
    got, expected = run(file, rows, "click"), run_in_cpp_session(dense, rows)
    assert set(got) == {"click"}
    np.testing.assert_allclose(got["click"], expected["click"], 1e-6, 1e-6)


def test_existing_files_stay(dense, tmp_path):
    file = tmp_path / "ranker.tflite"
    file.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=f"does not exist. Received: file={file}"):
        to_lite_rt(dense, file)
    assert file.read_bytes() == b"mine"


def test_differences_are_refused(dense, tmp_path):
    rows = {"x": np.random.default_rng(0).normal(size=(64, 12)).astype("f4")}
    message = "should differ by at most 0 from .* Received: '(click|time)', difference="
    with pytest.raises(ConversionError, match=message):
        to_lite_rt(dense, tmp_path / "ranker.tflite", rows=rows, tolerance=0.0)
    assert [*tmp_path.iterdir()] == []


def test_nan_is_refused(dense, tmp_path):
    rows = {"x": np.full((1, 12), np.nan, "f4")}
    with pytest.raises(
        ConversionError, match="Received: '(click|time)', difference=nan"
    ):
        to_lite_rt(dense, tmp_path / "ranker.tflite", rows=rows)


def test_other_rows_are_refused(dense, tmp_path):
    with pytest.raises(ValueError, match=r"names \['x'\]. Received: \['y'\]"):
        to_lite_rt(dense, tmp_path / "ranker.tflite", rows={"y": [[1.0]]})


def test_unknown_signatures_are_refused(dense, tmp_path):
    with pytest.raises(ValueError, match="`signature` should be one of .*'other'"):
        to_lite_rt(dense, tmp_path / "ranker.tflite", "other")


def test_strings_are_refused(exported, tmp_path, monkeypatch):
    monkeypatch.delattr(tf.lite, "TFLiteConverter")  # before any conversion
    message = r"int64 ids with `hash_bins`. Received: .* with the strings \['country'\]"
    with pytest.raises(ValueError, match=message):
        to_lite_rt(exported.path, tmp_path / "ranker.tflite")


def test_vocabularies_are_refused(tmp_path):
    keras.utils.set_random_seed(0)
    item = tfmtl.features.Categorical("item", dtype="int64", vocabulary=(3, 5))
    model = tfmtl.models.shared_bottom([item], [Binary("click")])
    version = export(model, tmp_path / "ranker").path
    message = "LiteRT .* ids with `hash_bins` need none. Received: .*LookupTableFindV2"
    with pytest.raises(ConversionError, match=message):
        to_lite_rt(version, tmp_path / "ranker.tflite")


def test_missing_runtime(dense, tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    message = re.escape("LiteRT is missing: `pip install tfmtl[side-doors]`.")
    with pytest.raises(ImportError, match=message):
        to_lite_rt(dense, tmp_path / "ranker.tflite")
