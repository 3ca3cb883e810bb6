"""The whole way on little data: train, close, fold, export, verify."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from tfmtl import demo
from tfmtl.cli import main
from tfmtl.serving import run_in_cpp_session


@pytest.fixture(scope="module")
def source():
    source = demo.synthetic(4_000)
    training = replace(source.training, epochs=3, batch_size=64, dense_epochs=0.5)
    training = replace(training, ramp_epochs=0.5, l0=0.3)
    return replace(source, training=training)


@pytest.fixture(scope="module")
def outcome(source, tmp_path_factory):
    return demo.run(source, tmp_path_factory.mktemp("demo"), seed=0)


def test_connections_close_and_the_fold_drops_them(outcome):
    before, after = outcome.report[:2]
    assert before.connections == 6 * 6 + 2 * 6
    assert after.connections <= outcome.open_connections < before.connections
    assert after.parameters < before.parameters
    assert after.flops < before.flops


def test_outputs_stay_the_same_up_to_rounding(outcome):
    assert outcome.fold_difference <= 1e-5
    assert outcome.serving_difference <= 1e-5
    for task, before in outcome.before.items():
        assert outcome.after[task].auc == pytest.approx(before.auc, abs=1e-4)
        assert outcome.after[task].calibration == pytest.approx(before.calibration)


def test_the_savedmodel_shrinks_by_what_the_report_says(outcome):
    before, after = outcome.export_before, outcome.export_after
    said = outcome.report.before.bytes - outcome.report.after.bytes
    assert before.scan.weight_bytes - after.scan.weight_bytes == said
    assert after.scan.ops["MatMul"] >= 1


def test_everything_is_on_disk_and_reloads(outcome, source):
    folder = outcome.picture.parent
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.keras",
        "folded.keras",
        "topology.png",
        "folded",
        "unfolded",
    }
    folded = keras.saving.load_model(folder / "folded.keras", safe_mode=True)
    rows = {name: values[:5] for name, values in source.test[0].items()}
    served = run_in_cpp_session(outcome.export_after.path, rows)
    for task, value in folded(rows, training=False).items():
        np.testing.assert_allclose(served[task], value, atol=1e-6)


def test_the_screen_fits_a_screen_and_names_what_was_measured(outcome):
    lines = demo.screen(outcome).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80 + len(str(outcome.picture))
    text = "\n".join(lines)
    for word in (
        "connections open",
        "test AUC, task_1",
        "connections computed",
        "parameters",
        "batch 512",
    ):
        assert word in text


def test_the_command_line_exports_and_inspects(outcome, tmp_path, capsys):
    model = str(outcome.picture.parent / "model.keras")
    assert main(["export", model, str(tmp_path / "ranker")]) == 0
    assert main(["export", model, str(tmp_path / "ranker"), "--no-fold"]) == 0
    assert {path.name for path in (tmp_path / "ranker").iterdir()} == {"1", "2"}
    assert "connections" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "ranker" / "1")]) == 0
    assert "weights" in capsys.readouterr().out


def test_the_command_line_says_what_the_data_folder_should_be(tmp_path):
    with pytest.raises(SystemExit, match="a folder with the files of Census-Income"):
        main(["demo", "--data", str(tmp_path / "missing")])
