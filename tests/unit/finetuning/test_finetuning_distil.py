"""Distillation: the loss by hand, missing labels, what is trained and saved."""

import keras
import numpy as np
import pytest
from trained_models import FEATURES, network, outputs, rows_of, same

from tfmtl.balancing import PCGrad
from tfmtl.features import Numeric
from tfmtl.finetuning import distil
from tfmtl.folding import fold
from tfmtl.models import shared_bottom
from tfmtl.sparsity import Target, gates
from tfmtl.tasks import Binary, Count, MultiClass, Ordinal, Regression

KINDS = [
    Binary("b"),
    Regression("r"),
    Count("n"),
    MultiClass("m", num_classes=3),
    Ordinal("o", num_levels=4),
]


def by_hand(q, p, name):
    """D of the docstring, mean over examples, in float64."""
    q, p = q.astype("f8"), p.astype("f8")
    if name in ("b", "o"):
        return np.mean(-q * np.log(p) - (1 - q) * np.log(1 - p))
    if name == "m":
        return np.mean(-np.sum(q * np.log(p), axis=1))
    if name == "n":
        return np.mean((np.log(q) - np.log(p)) ** 2)
    return np.mean((q - p) ** 2)


def labels_of(rows, *names):
    count = len(next(iter(rows.values())))
    return {name: np.arange(count, dtype="f4") % 2 for name in names}


def test_the_loss_is_that_of_the_formula():
    keras.utils.set_random_seed(0)
    teacher = shared_bottom(FEATURES, KINDS, [5])
    student = shared_bottom(FEATURES, KINDS, [3])
    weights = {"b": 0.5, "r": 2.0, "n": 1.0, "m": 0.3, "o": 1.5}
    training = distil(student, teacher, weights)
    rows = rows_of(training)
    q, p = outputs(teacher, rows), outputs(student, rows)
    training(rows, training=True)
    found = sum(float(loss) for loss in training.losses)
    expected = sum(w * by_hand(q[name], p[name], name) for name, w in weights.items())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    training(rows, training=False)
    assert not training.losses


def test_a_student_without_labels_learns_the_teacher():
    teacher, student = network("mmoe", "a", "b"), network("shared_bottom", "a", "b")
    training = distil(student, teacher)
    rows = rows_of(teacher)
    before = outputs(teacher, rows)
    start = np.abs(outputs(student, rows)["a"] - before["a"]).mean()
    training.compile(keras.optimizers.Adam(0.02))
    nothing = {"b": np.full(len(rows["x"]), np.nan, "f4")}
    training.fit(rows, nothing, epochs=60, verbose=0)
    end = np.abs(outputs(student, rows)["a"] - before["a"]).mean()
    assert end < start / 2
    assert same(before, outputs(teacher, rows))  # the teacher is not trained
    assert same(outputs(training, rows), outputs(student, rows))


def test_with_sparsity_and_balancing(tmp_path):
    teacher, student = network("snr", "a", "b"), network("snr", "a", "b", seed=1)
    training = distil(student, teacher, {"a": 0.5})
    assert len(gates(training)) == len(gates(student))  # not the teacher's
    rows = rows_of(teacher)
    training.compile("adam", sparsity=Target(0.5), balancing=PCGrad())
    training.fit(rows, labels_of(rows, "a", "b"), epochs=3, verbose=0)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert same(outputs(student, rows), outputs(loaded, rows))
    folded = fold(student)
    assert set(folded.output) == {"a", "b"}


def test_a_teacher_of_more_columns_and_tasks():
    teacher = network("mmoe", "a", "b", "c")
    x = Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    student = shared_bottom([x], [Binary("b"), Binary("z")])
    training = distil(student, teacher)
    assert set(training.input) == {"x", "c"}
    rows = rows_of(training)
    training.compile("adam")
    history = training.fit(rows, labels_of(rows, "b", "z"), verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_the_training_model_is_not_saved(tmp_path):
    teacher = network("mmoe", "a")
    training = distil(network("shared_bottom", "a"), teacher)
    with pytest.raises(NotImplementedError, match="save the student"):
        training.save(tmp_path / "training.keras")


@pytest.mark.parametrize("weight", [0, -1.0, {"a": 0.0}, {"z": 1.0}])
def test_weights(weight):
    with pytest.raises(ValueError, match=r"`weight` should be .*\['a'\].*Received"):
        distil(network("mmoe", "a"), network("mmoe", "a", "b"), weight)


def test_shapes():
    teacher = shared_bottom(FEATURES, [MultiClass("a", num_classes=3)])
    with pytest.raises(
        ValueError, match=r"student=\{'a': \(1,\)\}, teacher=\{'a': \(3"
    ):
        distil(network("mmoe", "a"), teacher)
