"""Vocabularies grow: old rows and scores stay, new ids are known and train."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from trained_models import outputs, same

from tfmtl.features import Categorical, Numeric, Sequence, write_vocabularies
from tfmtl.finetuning import grow_vocabularies, keep_rows, new_values
from tfmtl.folding import fold
from tfmtl.models import mmoe
from tfmtl.serving import export, run_in_cpp_session, verify
from tfmtl.tasks import Binary

VIDEOS = tuple(range(8))


def features(folder=None):
    ids = {"dtype": "int64", "vocabulary": VIDEOS, "table": "video", "units": 3}
    found = [
        Numeric("x", mean=(0.0,), std=(1.0,)),
        Categorical("sex", vocabulary=("a", "b"), units=3),
        Categorical("video", **ids),
        Sequence("seen", length=4, pooling="mean", **ids),
    ]
    return found if folder is None else write_vocabularies(found, folder)


def columns():
    generator = np.random.default_rng(0)
    found = {
        "x": generator.normal(size=(60, 1)).astype("f4"),
        "sex": tf.constant(generator.choice(["a", "b", "new", "other", ""], (60, 1))),
        "video": generator.integers(-1, 12, (60, 1)),
        "seen": generator.integers(-1, 14, (60, 4)),
    }
    return {name: tf.convert_to_tensor(column) for name, column in found.items()}


@pytest.fixture(params=["given", "files", "folded", "loaded"])
def model(request, tmp_path):
    keras.utils.set_random_seed(0)
    folder = tmp_path / "words" if request.param == "files" else None
    made = mmoe(features(folder), [Binary("a"), Binary("b")], 3, [5])
    if request.param == "folded":
        return fold(made)
    if request.param == "loaded":
        made.save(tmp_path / "model.keras")
        return keras.saving.load_model(tmp_path / "model.keras")
    return made


def tables(model):
    return {
        layer.name: keras.ops.convert_to_numpy(layer.embeddings)
        for layer in model.layers
        if hasattr(layer, "embeddings")
    }


def test_new_values_are_those_not_known(model):
    found = new_values(model, columns())
    assert found["sex"] in (["new", "other"], ["other", "new"])
    assert sorted(found["video"]) == [8, 9, 10, 11, 12, 13]
    assert set(found) == {"sex", "video"}
    batches = tf.data.Dataset.from_tensor_slices((columns(), np.zeros(60))).batch(7)
    assert new_values(model, batches) == found
    assert new_values(model, columns(), min_count=1000) == {}


def test_no_score_moves_and_new_ids_train(model, tmp_path):
    rows = columns()
    before, old = outputs(model, rows), tables(model)
    grown = grow_vocabularies(model, new_values(model, rows))
    assert same(before, outputs(grown, rows))
    assert same(before, outputs(model, rows))
    keep_rows(grown, model)
    grown.compile(keras.optimizers.Adam(0.05))
    grown.fit(rows, {"a": np.arange(60, dtype="f4") % 2}, epochs=2, verbose=0)
    for name, table in tables(grown).items():
        assert len(table) > len(old[name])
        kept = len(old[name])
        np.testing.assert_array_equal(table[:kept], old[name])
        unknown = old[name][0 if name.startswith("embedding") else 1]
        assert np.all(np.abs(table[kept:] - unknown).max(axis=1) > 0)
    written = export(grown, tmp_path / "out")
    assert verify(written.path)
    served = run_in_cpp_session(
        written.path, {n: np.asarray(v) for n, v in rows.items()}
    )
    np.testing.assert_allclose(served["a"], outputs(grown, rows)["a"], 1e-5, 1e-6)


def test_saved_and_grown_again(model, tmp_path):
    rows = columns()
    grown = grow_vocabularies(model, {"sex": ["new"], "video": [9]})
    grown.save(tmp_path / "grown.keras")
    loaded = keras.saving.load_model(tmp_path / "grown.keras")
    assert same(outputs(grown, rows), outputs(loaded, rows))
    again = grow_vocabularies(loaded, {"sex": ["other"]})
    words = again.get_layer("sex_lookup").get_vocabulary()
    assert words[-3:] == ["b", "new", "other"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": ["a"]}, r"with a vocabulary, of \['sex', 'video', 'seen'\].*'x'"),
        ({"sex": ["a"]}, r"`values` of 'sex' .* not known yet. Received: \['a'\]"),
        ({"sex": ["new", "new"]}, r"different values .*Received: \['new', 'new'\]"),
        ({"sex": [""]}, r"type str .*Received: \[''\]"),
        ({"video": ["9"]}, r"type int .*Received: \['9'\]"),
        ({"video": [-5]}, "ids of at least 0, since negative ones are missing. .* -5"),
        ({"video": [9], "seen": [10]}, "given once for columns of one table"),
    ],
)
def test_errors(values, message):
    model = mmoe(features(), [Binary("a")], 2, [3])
    with pytest.raises(ValueError, match=message):
        grow_vocabularies(model, values)


def test_tables_that_did_not_grow():
    model = mmoe(features(), [Binary("a")], 2, [3])
    with pytest.raises(ValueError, match="Received: no such table"):
        keep_rows(model, model)
