"""The command line: exit statuses, one reason a line, what operators read."""

import json
import os
import shutil
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from tfmtl.cli import main
from tfmtl.serving.golden import write_golden
from tfmtl.serving.manifest import write_manifest
from tfmtl.serving.warm_up import write_warm_up


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Two versions of a small model."""
    base = tmp_path_factory.mktemp("cli") / "ranker"
    table = tf.Variable(
        np.random.default_rng(0).normal(size=(2, 1024)), dtype="float32"
    )
    module = tf.Module()
    module.table = table
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    function = tf.function(lambda x: {"click": x @ table}).get_concrete_function(spec)
    rows = {"x": np.ones((3, 2), "float32")}
    for version in ("1", "2"):
        folder = base / version
        tf.saved_model.save(module, str(folder), function)
        write_golden(folder, rows, {"click": rows["x"] @ table.numpy()})
        write_warm_up(folder, rows, [1, 8])
        found = {"layer": "routing", "slots": 4, "connections": 7}
        facts = {"fold": {"connections": [54, 21]}, "tables": None}
        write_manifest(folder, {**facts, "sub_networks": [found]})
    return base


@pytest.fixture
def config(base, tmp_path):
    """A model config that serves both versions."""
    pytest.importorskip("tensorflow_serving")
    file = tmp_path / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "ranker" base_path: "{base}" '
        'model_platform: "tensorflow" model_version_policy { all {} } } }'
    )
    return file


@pytest.fixture
def spoilt(base, tmp_path):
    """A version with a changed and a missing file."""
    folder = shutil.copytree(base / "2", tmp_path / "2")
    (folder / "fingerprint.pb").unlink()
    (folder / "saved_model.pb").write_bytes(b"x")
    return folder


def test_verify(base, capsys):
    assert main(["verify", str(base / "1")]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{base / '1'} verifies: loads in ")


def test_verify_gives_one_reason_a_line(spoilt, capsys):
    assert main(["verify", str(spoilt)]) != 0
    assert capsys.readouterr().out.splitlines() == [
        "problem: fingerprint.pb is missing",
        "problem: saved_model.pb was changed",
    ]


def test_inspect(base, capsys):
    assert main(["inspect", str(base / "1")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "serving_default  tensorflow/serving/predict",
        "  in   x  float32 (batch, 2)",
        "  out  click  float32 (batch, 1024)",
    ]
    text = "\n".join(lines)
    for part in (
        "weights          8,192 bytes",
        "8,192  float32 (2, 1024)  table/.ATTRIBUTES/VARIABLE_VALUE",
        "warm-up records: 2",
        f"tensorflow {tf.__version__}",
        'fold: {"connections": [54, 21]}',
        "tables: null",
        "routing: 4 sub-networks, 7 open connections",
    ):
        assert part in text
    assert "__saved_model_init_op" not in text


def test_inspect_without_manifest_and_warm_up(base, tmp_path, capsys):
    folder = shutil.copytree(base / "1", tmp_path / "1")
    shutil.rmtree(folder / "assets.extra")
    assert main(["inspect", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "no warm-up records" in lines
    assert "origin unknown: assets.extra/manifest.json is missing" in lines


def test_inspect_of_something_else(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) != 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "tfmtl inspect: `path` should be a folder with a saved_model"
    )


def test_rollback_and_labels(config, capsys):
    assert main(["label", str(config), "ranker", "stable", "2"]) == 0
    assert main(["rollback", str(config), "ranker"]) == 0
    assert main(["rollback", str(config), "ranker", "--to", "1"]) != 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{config} serves ranker 1, 2, stable is 2",
        f"{config} serves ranker 1, stable is 1",
    ]
    [line] = captured.err.splitlines()
    assert line.startswith("tfmtl rollback: `to` should be one of [], ")


def test_first_of_two_steps_says_so(config, capsys):
    arguments = [str(config), "ranker", "--no-verify"]
    assert main(["rollback", *arguments]) == 0
    assert main(["label", *arguments, "canary", "2"]) != 0
    assert "Repeat the command once all are AVAILABLE" in capsys.readouterr().out
    assert main(["label", *arguments, "canary", "2"]) == 0
    assert "serves ranker 1, 2, canary is 2" in capsys.readouterr().out


def test_spoilt_version_is_neither_labelled_nor_gone_back_to(config, spoilt, capsys):
    (spoilt.parent / "3").mkdir()
    before = config.read_bytes()
    arguments = [str(config), "ranker", "--base", str(spoilt.parent)]
    assert main(["label", *arguments, "canary", "2"]) != 0
    assert main(["rollback", *arguments]) != 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "version=2, where fingerprint.pb is missing; saved_model.pb was" in line
    assert config.read_bytes() == before


def _click(x, kernel):
    return {"click": tf.sigmoid(x @ tf.constant(kernel))}


@pytest.fixture(scope="module")
def rankers(tmp_path_factory):
    """A folder of two versions of a ranker, the second one worse, and rows."""
    folder = tmp_path_factory.mktemp("compare")
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    for version, kernel in (("1", [[3.0], [0.0]]), ("2", [[1.0], [1.0]])):
        call = tf.function(partial(_click, kernel=kernel)).get_concrete_function(spec)
        tf.saved_model.save(tf.Module(), str(folder / "ranker" / version), call)
    x = np.random.default_rng(0).normal(size=(300, 2)).astype("float32")
    table = {"x": x.tolist(), "click": (x[:, 0] > 0.3).tolist(), "user": [1] * 300}
    parquet.write_table(pa.table(table), folder / "log.parquet")
    return folder


def test_compare_refuses_with_reasons(rankers, tmp_path, capsys):
    old, new, rows = rankers / "ranker/1", rankers / "ranker/2", rankers / "log.parquet"
    arguments = ["compare", str(old), str(new), str(rows), "--labels", "click"]
    assert main([*arguments, "--json", str(tmp_path / "report.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{old} → {new}, 300 rows"
    problems = [line for line in lines if line.startswith("problem: ")]
    assert problems[0].startswith("problem: `click`: AUC 0.")
    assert problems[0].endswith("; allowed is 0.0020")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert [f"problem: {failure}" for failure in report["failures"]] == problems
    assert report["outputs"]["click"]["quality"]["labelled"] == 300


def test_compare_within_given_limits(rankers, capsys):
    arguments = ["compare", str(rankers / "ranker"), str(rankers / "ranker/2")]
    arguments += [str(rankers / "log.parquet"), "--labels", "click"]
    wide = ["--max-auc-loss=0.5", "--max-loss-increase=9", "--max-psi=none"]
    wide += ["--min-rank-correlation", "0.1", "--max-calibration-loss", "none"]
    assert main([*arguments, *wide]) == 0
    assert main([*arguments, *wide, "--calibration=1,1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{rankers / 'ranker/1'} → ")  # not the new one itself
    [problem] = [line for line in lines if line.startswith("problem: ")]
    assert problem.startswith("problem: `click`: calibration ")
    assert problem.endswith("; allowed is 1.000 to 1.000")


def test_compare_folder_with_a_folder(rankers, capsys):
    base = str(rankers / "ranker")
    assert main(["compare", base, base, str(rankers / "log.parquet")]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{base}/1 → {base}/2, 300 rows")
    assert "click: no labels" in out


def test_compare_of_what_is_none(rankers, capsys):
    base, rows = str(rankers / "ranker"), str(rankers / "log.parquet")
    for arguments, reason in (
        ([str(rankers), base, rows], "should be a folder with a saved_model.pb"),
        ([base, str(rankers / "none"), rows], "No such file or directory"),
        ([base, base, "log.txt"], "should have one of the endings"),
        ([base, base, rows, "--labels", "like"], "like"),
        ([base, base, rows, "--max-psi=-1"], "`max_psi` should be a number from 0"),
    ):
        assert main(["compare", *arguments]) == os.EX_DATAERR
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("tfmtl compare: ") and reason in line
