"""Export against the served version: refused whole, or published with its report."""

import json

import keras
import numpy as np
import pytest

from tfmtl.serving import (
    Check,
    ExportError,
    RegressionError,
    Thresholds,
    export,
    verify,
    versions,
)
from tfmtl.serving.against import REPORT
from tfmtl.serving.manifest import read_manifest

ROWS = {"x": np.random.default_rng(0).normal(size=(400, 2)).astype("float32")}
LABELS = {"click": (ROWS["x"][:, 0] > 0.3).astype("float32")}
KERNEL = [3.0, 0.0]


def ranker(kernel, task="click"):
    """p = sigmoid(x · kernel)."""
    x = keras.Input((2,), name="x")
    layer = keras.layers.Dense(1, "sigmoid", use_bias=False, name=task)
    model = keras.Model({"x": x}, {task: layer(x)})
    layer.set_weights([np.array(kernel, "float32")[:, None]])
    return model


def content(base):
    """All files below a folder."""
    return {
        path.relative_to(base): path.read_bytes()
        for path in base.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def base(tmp_path):
    """A folder with one version."""
    export(ranker(KERNEL), tmp_path / "ranker")
    return tmp_path / "ranker"


def test_worse_version_leaves_the_folder_as_it_was(base):
    before = content(base)
    with pytest.raises(RegressionError) as caught:
        export(ranker([1.0, 1.0]), base, against=Check(ROWS, LABELS))
    assert content(base) == before
    assert [path.name for path in base.iterdir()] == ["1"]
    error = caught.value
    assert isinstance(error, ExportError)
    assert str(error).startswith(
        f"The new version should pass the check against {base / '1'}. Received: "
        "`click`: AUC 0."
    )
    assert "; `click`: log loss" in str(error)
    auc = error.report.outputs["click"].quality.auc
    assert auc.change < -0.1
    assert error.failures == error.report.failures()


def test_good_version_is_published_with_its_report(base):
    limits = {"click": Thresholds(max_auc_loss=0.001, max_psi=None)}
    check = Check(ROWS, LABELS, limits)
    written = export(ranker([3.1, 0.0]), base, against=check)
    assert versions(base) == (1, 2)
    assert verify(written.path).problems == ()
    assert REPORT in read_manifest(written.path)["files"]
    report = json.loads((written.path / REPORT).read_text("utf-8"))
    assert (report["old"], report["new"]) == (str(base / "1"), None)
    assert report["thresholds"]["click"]["max_auc_loss"] == 0.001
    assert report["outputs"]["click"]["quality"]["labelled"] == 400
    beside = written.side_by_side
    assert report["rows"] == beside.rows == 400
    assert beside.outputs["click"].quality.auc.change == pytest.approx(0, abs=1e-3)


def test_changed_report_is_told(base):
    written = export(ranker(KERNEL), base, against=Check(ROWS))
    (written.path / REPORT).write_text("{}")
    assert verify(written.path).problems == (f"{REPORT} was changed",)


def test_first_version_has_a_note(tmp_path):
    written = export(ranker(KERNEL), tmp_path / "new", against=Check(ROWS, LABELS))
    assert written.side_by_side is None
    assert json.loads((written.path / REPORT).read_text("utf-8")) == {
        "note": "no earlier version to compare with"
    }
    assert verify(written.path).problems == ()


def test_without_check_there_is_no_report(base):
    assert not (base / "1" / REPORT).exists()


def test_largest_or_given_version(base):
    export(ranker([-3.0, 0.0]), base)
    with pytest.raises(RegressionError, match="against .*/2. Received"):
        export(ranker(KERNEL), base, against=Check(ROWS))
    assert export(ranker(KERNEL), base, against=Check(ROWS, version=1)).version == 3
    message = r"`version` of the check should be one of \[1, 2, 3\].*version=7"
    with pytest.raises(ValueError, match=message):
        export(ranker(KERNEL), base, against=Check(ROWS, version=7))


def test_changed_signature(base):
    renamed = keras.Model(
        (model := ranker(KERNEL)).input,
        {**model.output, "like": keras.layers.Dense(1)(model.input["x"])},
    )
    assert export(renamed, base, against=Check(ROWS)).side_by_side.added == ("like",)
    with pytest.raises(RegressionError, match="Received: output `like` is gone"):
        export(model, base, against=Check(ROWS))
    assert export(model, base, against=Check(ROWS, changed_signature=True)).version == 3


def test_rows_that_do_not_fit_publish_nothing(base):
    with pytest.raises(ValueError, match="`rows` should have the columns"):
        export(ranker(KERNEL), base, against=Check({"y": [[1.0]]}))
    assert [path.name for path in base.iterdir()] == ["1"]
