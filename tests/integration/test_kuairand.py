"""KuaiRand-Pure, where its files are: one pass over the training days, scored once."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from tfmtl import demo
from tfmtl.serving import run_in_cpp_session

BARS = {"click": 0.733, "long_view": 0.731, "like": 0.80, "profile_enter": 0.715}


@pytest.fixture(scope="module")
def source(kuairand_folder, tmp_path_factory):
    source = demo.from_folder(kuairand_folder, tmp_path_factory.mktemp("kuairand"))
    assert len(source.train[1]["click"]) == 171_671
    assert len(source.test[1]["click"]) == 56_658
    return source


@pytest.fixture(scope="module")
def outcome(source, tmp_path_factory):
    return demo.run(source, tmp_path_factory.mktemp("outcome"))


@pytest.mark.parametrize("task", BARS)
def test_auc_on_the_days_after(outcome, task):
    assert outcome.after[task].auc >= BARS[task]
    assert outcome.after[task].group_auc > 0.5
    assert 0.7 < outcome.after[task].calibration < 1.5


def test_connections_are_closed_and_scores_are_the_same(outcome):
    before, after = outcome.report[:2]
    assert after.connections <= outcome.open_connections < before.connections
    assert outcome.fold_difference <= 1e-5
    assert outcome.serving_difference <= 1e-5


def test_unknown_and_missing_values_are_served_as_keras_scores_them(outcome, source):
    rows = {name: values[:6].copy() for name, values in source.test[0].items()}
    for k, name in enumerate(rows):
        column = rows[name]
        if column.dtype.kind == "f":
            column[k % 6] = [np.nan, np.inf, -np.inf][k % 3]
        elif column.dtype.kind == "i":
            column[k % 6] = [-1, -(2**62), 2**62][k % 3]
        else:
            column[k % 6] = [b"", b"never seen"][k % 2]
    model = keras.saving.load_model(outcome.picture.parent / "folded.keras")
    tensors = {
        name: keras.ops.convert_to_tensor(rows[name], tensor.dtype)
        for name, tensor in model.input.items()
    }
    served = run_in_cpp_session(outcome.export_after.path, rows)
    for task, expected in model(tensors, training=False).items():
        assert np.isfinite(served[task]).all()
        np.testing.assert_allclose(served[task], expected, atol=1e-6)


SEEDS = 3  # of one seed alone, the AUC of 3,000 positives differs by .01


@pytest.fixture(scope="module")
def trained(source):
    """Test AUC of the network trained on all labels, by seed."""
    return [aucs(source, seed) for seed in range(SEEDS)]


def aucs(source, seed):
    model = demo.train(source, seed)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert all(np.isfinite(values).all() for values in model.history.history.values())
    found = demo.quality(demo.predict(model, source.test), source)
    return {task: quality.auc for task, quality in found.items()}


# Where half of the clicks were missing, profile entries, 1.8 % positives, lost .0038 in
# the mean of twelve seeds, with a standard deviation of .0053: three may lose .0125.
LIMITS = {("click", "profile_enter"): 0.0125}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["click", "profile_enter"])
def test_half_of_one_task_s_labels_missing(trained, source, task):
    """The other tasks lose at most .005, in the mean of pairs of one seed."""
    features, labels = source.train
    others = sorted(set(BARS) - {task})
    lost = []
    for seed, before in enumerate(trained):
        missing = np.random.default_rng(seed).random(labels[task].shape) < 0.5
        fewer = {**labels, task: np.where(missing, np.nan, labels[task])}
        after = aucs(replace(source, train=(features, fewer)), seed)
        lost.append([before[other] - after[other] for other in others])
    limits = [LIMITS.get((task, other), 0.005) for other in others]
    assert (np.mean(lost, axis=0) <= limits).all(), (others, lost)
