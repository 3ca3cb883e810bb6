"""Two versions side by side: numbers, missing labels, tasks and inputs that change."""

import importlib
import json

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.metrics import roc_auc_score
from two_versions import noisy, save

from tfmtl import data
from tfmtl.serving import Pair, Thresholds, compare_versions

scoring = importlib.import_module("tfmtl.serving.scoring")

ROWS = 3000
X = {"x": ((None, 1), "float32")}
GENERATOR = np.random.default_rng(0)
COLUMN = GENERATOR.normal(size=(ROWS, 1)).astype("float32")
ROWS_OF_X = {"x": COLUMN}


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.fixture(scope="module")
def labels():
    """Clicks, of which some are missing, and watch times."""
    clicks = (GENERATOR.random((ROWS, 1)) < sigmoid(COLUMN)).astype("float32")
    clicks[::7] = np.nan
    return {"click": clicks, "time": np.exp(COLUMN + 0.1)}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Clicks and watch times, and a task that goes."""
    folder = tmp_path_factory.mktemp("old") / "3"
    outputs = {"click": lambda x: noisy(x, 0.1), "time": tf.exp, "like": tf.sigmoid}
    return save(folder, lambda x: {name: f(x) for name, f in outputs.items()}, **X)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """The same, somewhat worse, and a task that comes."""
    folder = tmp_path_factory.mktemp("new") / "4"
    return save(
        folder,
        lambda x: {
            "click": noisy(x, 0.5),
            "time": 1.2 * tf.exp(x),
            "save": tf.sigmoid(x),
        },
        **X,
    )


@pytest.fixture(scope="module")
def report(old, new, labels):
    return compare_versions(old, new, ROWS_OF_X, labels)


def test_numbers(report, labels):
    x = COLUMN[:, 0].astype("f8")
    before, after = (sigmoid(x + noise * np.sin(40 * x)) for noise in (0.1, 0.5))
    clicks = labels["click"][:, 0]
    known = ~np.isnan(clicks)
    click = report.outputs["click"]
    assert report.rows == ROWS
    assert click.quality.labelled == known.sum() < ROWS
    assert click.quality.positives == np.nansum(clicks)
    for scores, found in (
        (before, click.quality.auc.old),
        (after, click.quality.auc.new),
    ):
        assert found == pytest.approx(roc_auc_score(clicks[known], scores[known]))
    expected = before[known].sum() / np.nansum(clicks)
    assert click.quality.calibration.old == pytest.approx(expected, rel=1e-6)
    assert click.drift.mean.new == pytest.approx(after.mean(), rel=1e-6)
    assert click.drift.max_difference == pytest.approx(
        np.abs(after - before).max(), rel=1e-4
    )
    assert click.drift.rank_correlation == pytest.approx(
        stats.spearmanr(before, after).statistic, rel=1e-6
    )
    time = report.outputs["time"].quality
    error = np.sqrt(np.mean((1.2 * np.exp(x) - np.exp(x + 0.1)) ** 2))
    assert time.rmse.new == pytest.approx(error, rel=1e-4)
    assert time.calibration.new == pytest.approx(1.2 / np.exp(0.1), rel=1e-5)


def test_tasks_that_come_and_go(report):
    assert set(report.outputs) == {"click", "time"}
    assert (report.added, report.removed) == (("save",), ("like",))
    assert report.changes == ("output `like` is gone",)
    failures = report.failures()
    assert failures[0] == "output `like` is gone"
    assert report.failures(changed_signature=True) == failures[1:]


def test_failures_by_output(report):
    click = report.outputs["click"].quality
    text = f"`click`: AUC {click.auc.new:.4f}, {-click.auc.change:.4f} below the old"
    assert any(failure.startswith(text) for failure in report.failures())
    lenient = Thresholds(max_auc_loss=1, max_loss_increase=1)
    by_output = report.failures({"click": lenient}, changed_signature=True)
    assert not any(failure.startswith("`click`") for failure in by_output)
    wide = Thresholds(max_loss_increase=9, max_calibration_loss=9, max_auc_loss=1)
    assert report.failures(wide, changed_signature=True) == ()
    with pytest.raises(
        ValueError, match=r"of the outputs \['click', 'time'\]. Rece.*lik"
    ):
        report.failures({"like": lenient})


def test_print(report):
    lines = str(report).splitlines()
    assert lines[0] == f"{report.old} → {report.new}, 3,000 rows"
    assert lines[2].split() == (
        "labels rows AUC new change ± cal. new loss new".split()
    )
    click, time = (line.split() for line in lines[3:5])
    assert click[:2] == ["click", f"{report.outputs['click'].quality.labelled:,}"]
    assert click[4] == f"{report.outputs['click'].quality.auc.change:+.4f}"
    assert click[-2:] == ["log", "loss"] and time[-1] == "RMSE"
    assert time[2:6] == ["–"] * 4
    assert lines[6].split()[0] == "scores" and lines[7].split()[0] == "click"
    assert lines[-2:] == ["output `save` is new", "output `like` is gone"]
    assert max(map(len, lines[2:])) <= 88


def test_json(report):
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["outputs"]["click"]["quality"]["auc"] == {
        "old": report.outputs["click"].quality.auc.old,
        "new": report.outputs["click"].quality.auc.new,
    }
    assert found["outputs"]["time"]["quality"]["auc"] == {"old": None, "new": None}
    assert found["old"] == str(report.old)
    assert found["removed"] == ["like"]


def test_version_beside_itself(new, labels):
    found = compare_versions(new, new, ROWS_OF_X, labels)
    assert found.failures(Thresholds(0, 0, 0, 0, 1, 0)) == ()
    for compared in found.outputs.values():
        assert compared.drift.max_difference == compared.drift.psi == 0
        assert compared.drift.rank_correlation == 1
    assert found.outputs["click"].quality.auc.change == 0
    assert found.outputs["click"].quality.auc_error == 0


def test_exported_version_beside_itself(exported, rows):
    found = compare_versions(exported.path, exported.path, rows)
    assert sorted(found.outputs) == ["ctr", "order value"]
    assert found.rows == 3
    assert found.failures(Thresholds(0, 0, 0, 0, 1, 0)) == ()
    assert "ctr: no labels" in str(found).splitlines()


def test_batches_are_the_same_rows(old, new, report, labels, monkeypatch):
    monkeypatch.setattr(scoring, "WINDOW", 1500)  # two processes for each version
    batches = data.batches(ROWS_OF_X, labels, batch_size=700)
    found = compare_versions(old, new, batches)
    assert found.rows == ROWS
    for name, compared in report.outputs.items():
        assert found.outputs[name].quality.labelled == compared.quality.labelled
        assert found.outputs[name].quality.auc == compared.quality.auc
        assert found.outputs[name].drift.psi == pytest.approx(compared.drift.psi)


def test_windows_are_scored_as_they_come(old, new, monkeypatch):
    monkeypatch.setattr(scoring, "WINDOW", 2)
    running, read = [], []

    def request(paths, batches, **_):
        running.append((paths[0].name, len(batches), len(read)))
        shape = (sum(len(batch["x"]) for batch in batches), 1)
        return {}, {f"output_{k}": np.ones(shape, "f") for k in range(3)}

    def stream():
        for _ in range(5):
            read.append(1)
            yield {"x": np.ones((1, 1), "f")}

    monkeypatch.setattr(scoring, "request", request)
    assert compare_versions(old, new, stream()).rows == 5
    assert running == [
        ("3", 2, 2), ("4", 2, 2), ("3", 2, 4), ("4", 2, 4), ("3", 1, 5), ("4", 1, 5)
    ]  # fmt: skip


def test_labels_of_some_batches(old):
    x, known = np.array([[0.5], [1.0]], "f"), {"click": np.array([[0.0], [1.0]])}
    found = compare_versions(old, old, [({"x": x}, known), {"x": x}, ({"x": x}, {})])
    assert found.rows == 6
    assert found.outputs["click"].quality.labelled == 2
    assert found.outputs["like"].quality is None


def test_one_class_only_is_said(old):
    x = np.array([[0.5], [1.0]], "f")
    found = compare_versions(
        old, old, {"x": x}, {"click": [1, 1], "like": [np.nan] * 2}
    )
    assert found.outputs["click"].quality.auc == Pair(None, None)
    assert found.outputs["like"].quality is None
    lines = str(found).splitlines()
    assert "click: labels of one class only, no AUC" in lines
    assert "like: no labels" in lines


def test_scores_that_are_not_finite(tmp_path):
    x = np.array([[-1.0], [0.5], [1.0]], "f")
    old = save(tmp_path / "1", lambda x: {"y": tf.abs(x)}, **X)
    new = save(tmp_path / "2", lambda x: {"y": tf.math.log(x)}, **X)
    found = compare_versions(old, new, {"x": x}, {"y": [0, 0, 1]})
    assert found.outputs["y"].not_finite == (0, 1)
    assert found.outputs["y"].quality.labelled == 2
    off = Thresholds(None, None, None, None, None)
    message = "`y`: 1 scores are NaN or infinite, 0 of the old version"
    assert found.failures(off) == (message,)
    assert "y: 0 old and 1 new scores are not finite" in str(found).splitlines()
    assert compare_versions(new, old, {"x": x}).failures(off) == ()
    none = compare_versions(new, new, {"x": -abs(x)}, {"y": [0, 0, 1]})
    assert none.outputs["y"].drift is None and none.outputs["y"].quality is None
    assert str(none).count("not finite") == 1


def test_inputs_of_both_and_further_columns(tmp_path):
    user = {"user": ((None,), "string")}
    old = save(tmp_path / "1", lambda x: {"y": x}, **X)
    new = save(
        tmp_path / "2", lambda x, user: {"y": x + 0 * len(user.shape)}, **X, **user
    )
    rows = {"x": [0.5, 1.0], "user": [["ann"], ["bob"]], "other": [1, 2]}
    found = compare_versions(old, new, rows)
    assert found.outputs["y"].drift.max_difference == 0
    assert found.failures() == ("input `user` is new: requests without it are refused",)
    message = r"should have the columns \['user', 'x'\], which .* without \['user'\]"
    with pytest.raises(ValueError, match=message):
        compare_versions(old, new, {"x": [0.5]})


def test_label_of_several_columns_is_a_class_where_the_signature_says_so(tmp_path):
    spec = tf.TensorSpec((None, 1), tf.float32, name="x")
    call = tf.function(lambda x: {"y": tf.nn.softmax([[1.0, 2.0, -1.0]] * x)})
    function = call.get_concrete_function(spec)
    rows, labels = {"x": [[1.0], [2.0], [-1.0], [0.5]]}, {"y": [2, 1, 1, np.nan]}
    for name, positives in ("classify_y", [0, 2, 1]), ("other", [3, 1, 0]):
        path = str(tmp_path / name)
        tf.saved_model.save(
            tf.Module(), path, {"serving_default": function, name: function}
        )
        found = compare_versions(path, path, rows, labels).outputs
        assert list(found) == ["y[0]", "y[1]", "y[2]"]
        assert [one.quality.positives for one in found.values()] == positives
        assert {one.output for one in found.values()} == {"y"}


def test_another_width_is_told_and_not_compared(tmp_path):
    old = save(tmp_path / "1", lambda x: {"y": x, "z": x}, **X)
    new = save(tmp_path / "2", lambda x: {"y": tf.tile(x, [1, 2]), "z": x}, **X)
    found = compare_versions(old, new, {"x": [[1.0]]})
    assert list(found.outputs) == ["z"]
    assert found.failures() == (
        "output `y` was float32 (batch, 1), is float32 (batch, 2)",
        "output `y` had 1 scores in a row, has 2",
    )


def test_what_does_not_fit(old, tmp_path):
    x = {"x": [[0.5]]}
    for rows in ({"x": np.zeros((0, 1), "f")}, [], iter(())):
        with pytest.raises(ValueError, match="at least one row. Received: none"):
            compare_versions(old, old, rows)
    with pytest.raises(ValueError, match=r"of the outputs \['click', 'like', 'time'\]"):
        compare_versions(old, old, x, {"klick": [1]})
    with pytest.raises(
        ValueError, match="the same number of rows.*'label click': \\(2"
    ):
        compare_versions(old, old, x, {"click": [1, 0]})
    with pytest.raises(ValueError, match="batches are .columns, labels.*type list"):
        compare_versions(old, old, [x], {"click": [1]})
    with pytest.raises(ValueError, match=r"labels by output. Received: \(dict, list\)"):
        compare_versions(old, old, [(x, [1])])
    with pytest.raises(ValueError, match=r"Received: \(dict, dict, list\)"):
        compare_versions(old, old, [(x, {}, [1])])
    with pytest.raises(ValueError, match="`inputs.'x'.` should be of type float32"):
        compare_versions(old, old, {"x": [["a"]]})
    other = save(tmp_path / "1", lambda x: {"other": x}, **X)
    with pytest.raises(ValueError, match="should have an output in common"):
        compare_versions(old, other, x)


def test_output_that_is_not_of_rows(tmp_path):
    path = save(tmp_path / "1", lambda x: {"y": tf.reduce_sum(x)}, **X)
    with pytest.raises(ValueError, match=r"a score for each of 2 rows.*shape=\(\)"):
        compare_versions(path, path, {"x": [[1.0], [2.0]]})
