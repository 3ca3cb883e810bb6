"""ONNX: files that answer as the C++ session does, for any batch; what is refused."""

import importlib
import re
import shutil

import keras
import numpy as np
import pytest
from side_doors import MODELS, columns, inputs_of, make_model

import tfmtl
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.serving.converted import ConversionError
from tfmtl.serving.onnx import to_onnx
from tfmtl.tasks import Binary

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


def run(file, rows):
    session = onnxruntime.InferenceSession(str(file))
    names = [output.name for output in session.get_outputs()]
    assert {column.name for column in session.get_inputs()} == set(rows)
    return dict(zip(names, session.run(names, rows), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_version(name, tmp_path):
    model = make_model(name)
    rows = inputs_of(model, columns())
    version = export(model, tmp_path / "ranker", golden=rows).path
    written = to_onnx(version, tmp_path / "ranker.onnx")
    assert written.difference <= 1e-6
    assert written.bytes == written.path.stat().st_size
    expected = run_in_cpp_session(version, rows)
    for count in (64, 1, 3):
        got = run(written.path, {key: rows[key][:count] for key in rows})
        assert set(got) == {"click", "time"}
        for task, value in got.items():
            assert np.ptp(expected[task]) > 1e-3
            np.testing.assert_allclose(value, expected[task][:count], 1e-6, 1e-6)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """The version of the dense model."""
    return export(make_model("dense"), tmp_path_factory.mktemp("dense") / "ranker").path


def test_one_output_only(dense, tmp_path):
    file = to_onnx(dense, tmp_path / "click.onnx", "click").path
    rows = {"x": np.ones((2, 12), "f4")}
    got, expected = run(file, rows), run_in_cpp_session(dense, rows)
    assert set(got) == {"click"}
    np.testing.assert_allclose(got["click"], expected["click"], 1e-6, 1e-6)


def test_existing_files_stay(dense, tmp_path):
    file = tmp_path / "ranker.onnx"
    file.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=f"does not exist. Received: file={file}"):
        to_onnx(dense, file)
    assert file.read_bytes() == b"mine"


def test_differences_are_refused(dense, tmp_path):
    rows = {"x": np.random.default_rng(0).normal(size=(64, 12)).astype("f4")}
    message = "should differ by at most 0 from .* Received: '(click|time)', difference="
    with pytest.raises(ConversionError, match=message):
        to_onnx(dense, tmp_path / "ranker.onnx", rows=rows, tolerance=0.0)
    assert [*tmp_path.iterdir()] == []


def test_strings_are_refused(exported, tmp_path):
    message = r"int64 ids with `hash_bins`. Received: .* with the strings \['country'\]"
    with pytest.raises(ValueError, match=message):
        to_onnx(exported.path, tmp_path / "ranker.onnx")


def test_vocabularies_are_refused(tmp_path):
    keras.utils.set_random_seed(0)
    item = tfmtl.features.Categorical("item", dtype="int64", vocabulary=(3, 5))
    model = tfmtl.models.shared_bottom([item], [Binary("click")])
    version = export(model, tmp_path / "ranker").path
    message = "ONNX .* ids with `hash_bins` need none. Received: .*HashTableV2"
    with pytest.raises(ConversionError, match=message):
        to_onnx(version, tmp_path / "ranker.onnx")


def test_missing_converter(dense, tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    message = re.escape("is missing: `pip install tfmtl[side-doors]`.")
    with pytest.raises(ImportError, match=message):
        to_onnx(dense, tmp_path / "ranker.onnx")


def test_nothing_is_written_without_rows_to_check_it(dense, tmp_path):
    file, none = tmp_path / "ranker.onnx", {"x": np.zeros((0, 12), "f4")}
    with pytest.raises(ValueError, match="`rows` should be one or more. Received: no"):
        to_onnx(dense, file, rows=none)
    copy = tmp_path / "copy"
    shutil.copytree(dense, copy)
    (copy / "assets.extra" / "golden.npz").unlink()
    with pytest.raises(ValueError, match="`rows` should be given, as .* has no golden"):
        to_onnx(copy, file)
    assert not file.exists()
