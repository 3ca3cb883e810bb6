"""Vocabularies are files of the SavedModel, whatever they came from."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import features, models, tasks
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.serving.manifest import read_manifest
from tfmtl.serving.saved_model import read_meta_graph
from tfmtl.serving.vocabularies import vocabularies_in_files

COUNT = 3000
TEXTS = [f"value {k}" for k in range(COUNT)]
IDS = [k * k + 5 for k in range(COUNT)]


def string_model():
    word = keras.Input((1,), dtype="string", name="word")
    rows = keras.layers.StringLookup(vocabulary=TEXTS, name="words")(word)
    table = keras.layers.Embedding(COUNT + 1, 2, "normal", name="table")
    return keras.Model(
        {"word": word}, {"y": keras.layers.Flatten(name="flat")(table(rows))}
    )


def id_model():
    ids = keras.Input((1,), dtype="int64", name="ids")
    lookup = keras.layers.IntegerLookup(
        vocabulary=IDS, mask_token=0, num_oov_indices=2, name="ids_lookup"
    )
    table = keras.layers.Embedding(COUNT + 3, 2, "normal", name="table")
    return keras.Model(
        {"ids": ids}, {"y": keras.layers.Flatten(name="flat")(table(lookup(ids)))}
    )


CASES = {
    "strings": (string_model, {"word": [["value 0"], ["value 2999"], ["?"], [""]]}),
    "ids": (id_model, {"ids": [[5], [IDS[-1]], [0], [1], [2]]}),
}


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_vocabulary_is_a_file(tmp_path, case, reload):
    make, rows = CASES[case]
    keras.utils.set_random_seed(0)
    model = make()
    given = {name: keras.ops.convert_to_tensor(rows[name]) for name in rows}
    expected = model(given)
    if reload:
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    [lookup] = [layer for layer in model.layers if hasattr(layer, "lookup_table")]
    table = lookup.lookup_table
    path = export(model, tmp_path / "models").path
    assert lookup.lookup_table is table
    assert len(list((path / "assets").iterdir())) == 1
    assert b"value 17" not in (path / "saved_model.pb").read_bytes()
    served = run_in_cpp_session(path, rows)["y"]
    np.testing.assert_array_equal(served, np.asarray(expected["y"]))


def _table_names(path):
    graph = read_meta_graph(path).graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {n.attr["shared_name"].s for n in nodes if n.op == "HashTableV2"}


def _two_look_ups(vocabularies):
    word = keras.Input((1,), dtype="string", name="word")
    columns = [
        keras.layers.StringLookup(vocabulary=vocabulary, output_mode="one_hot")(word)
        for vocabulary in vocabularies
    ]
    return keras.Model({"word": word}, dict(zip("ab", columns, strict=True)))


def test_names_of_tables_tell_no_path_and_are_of_one_model_alone(tmp_path):
    """TensorFlow's Python takes tables of one name for one, whatever model has them."""
    (tmp_path / "words.txt").write_text("at\nde\n")
    given = [str(tmp_path / "words.txt"), TEXTS, ["short", "list"]]
    rows = {"word": [["de"], ["value 1"], ["list"]]}
    paths = []
    for number, pair in enumerate([given[:2], given[1::-1], given[1:]]):
        model = _two_look_ups(pair)
        expected = {k: np.asarray(v) for k, v in model(_tensors(rows)).items()}
        path = export(model, tmp_path / str(number), golden=rows).path
        assert str(tmp_path).encode() not in (path / "saved_model.pb").read_bytes()
        assert len(_table_names(path)) == 2
        paths.append((path, expected))
    assert len(set().union(*(_table_names(path) for path, _ in paths))) == 6
    loaded = [tf.saved_model.load(str(path)) for path, _ in paths]
    for one, (_, expected) in zip(loaded, paths, strict=True):
        found = one.signatures["serving_default"](**_tensors(rows))
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


EXPORT = """
import sys
import keras
from test_serving_vocabularies import CASES
from tfmtl.serving import export

keras.utils.set_random_seed(0)
make, rows = CASES["strings"]
export(make(), sys.argv[1], golden=rows)
"""


def test_two_exports_of_one_model_are_equal(tmp_path):
    """But for the manifest, which has a date."""
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, "-c", EXPORT, str(tmp_path / name)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            timeout=300,
        )
    first, second = (
        read_manifest(tmp_path / name / "1")["files"] for name in ("a", "b")
    )
    assert len(first) >= 5 and first == second


def _tensors(rows):
    return {name: tf.convert_to_tensor(values) for name, values in rows.items()}


def test_a_learned_vocabulary_of_a_recipe_is_a_file(tmp_path):
    columns = {"word": np.array(TEXTS * 2, object)[:, None]}
    found = features.adapt([features.Categorical("word")], columns)
    model = models.shared_bottom(found, [tasks.Binary("click")])
    rows = {"word": [["value 1"], ["other"], [""]]}
    path = export(model, tmp_path, golden=rows).path
    [file] = (path / "assets").iterdir()
    assert len(file.read_bytes().splitlines()) == COUNT + 1  # the missing value too


def test_values_with_tabs_are_in_a_file_too(tmp_path):
    word = keras.Input((), dtype="string", name="word")
    lookup = keras.layers.StringLookup(vocabulary=["a\tb", *TEXTS])
    table = keras.layers.Embedding(COUNT + 2, 2, "normal")
    model = keras.Model({"word": word}, {"y": table(lookup(word))})
    path = export(model, tmp_path).path
    assert len(list((path / "assets").iterdir())) == 1
    served = run_in_cpp_session(path, {"word": ["a\tb", "a", "value 4"]})["y"]
    np.testing.assert_array_equal(served, table.get_weights()[0][[1, 0, 6]])


def test_look_ups_of_one_size_are_no_repetition(tmp_path):
    """Their row numbers are the same constant, which is no weight."""
    words = [str(k) for k in range(600)]
    columns = [
        features.Categorical(name, vocabulary=tuple(words)) for name in ("a", "b")
    ]
    model = models.shared_bottom(columns, [tasks.Binary("click")])
    assert export(model, tmp_path).scan.repetitions == ()


def test_a_model_is_as_before_where_a_file_cannot_be_written(tmp_path, monkeypatch):
    model = string_model()
    other = string_model()
    both = keras.Model(
        {"word": model.input["word"]},
        {"y": model.output["y"], "z": other(model.input)["y"]},
    )
    lookups = [model.get_layer("words"), other.get_layer("words")]
    tables = [lookup.lookup_table for lookup in lookups]
    write, written = Path.write_bytes, []

    def once(self, content):
        if written:
            raise OSError("no room")
        written.append(self)
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", once)
    with (
        pytest.raises(OSError, match="no room"),
        vocabularies_in_files(both, tmp_path),
    ):
        pass
    assert [lookup.lookup_table for lookup in lookups] == tables


def test_short_vocabularies_stay_in_the_graph(model, exported):
    assert not list((exported.path / "assets").iterdir())


def test_values_with_line_breaks_stay_in_the_graph(tmp_path):
    word = keras.Input((), dtype="string", name="word")
    lookup = keras.layers.StringLookup(vocabulary=[*TEXTS, "two\nlines"])
    table = keras.layers.Embedding(COUNT + 2, 2, "normal")
    model = keras.Model({"word": word}, {"y": table(lookup(word))})
    path = export(model, tmp_path).path
    assert not list((path / "assets").iterdir())
    served = run_in_cpp_session(path, {"word": ["two\nlines", "value 4"]})["y"]
    weights = table.get_weights()[0]
    np.testing.assert_array_equal(served, weights[[COUNT + 1, 5]])
