"""Export: parity in the C++ session, names, storage, refusals, nothing left behind."""

import dataclasses
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import features, folding, models, tasks
from tfmtl.cli import main
from tfmtl.serving import (
    CppSessionError,
    ExportError,
    export,
    run_in_cpp_session,
    written,
)
from tfmtl.serving.manifest import read_manifest
from tfmtl.serving.saved_model import read_signature

export_module = importlib.import_module("tfmtl.serving.export")


def answers(model, rows):
    """The Keras model's outputs."""
    tensors = {
        name: tf.convert_to_tensor(rows[name], tensor.dtype)
        for name, tensor in model.input.items()
    }
    outputs = model(tensors, training=False)
    return {task: np.asarray(output) for task, output in outputs.items()}


def assert_serves(path, model, rows):
    """The C++ session answers as the Keras model does."""
    served, expected = run_in_cpp_session(path, rows), answers(model, rows)
    assert sorted(served) == sorted(expected)
    for task in expected:
        assert served[task].dtype == np.float32
        np.testing.assert_allclose(served[task], expected[task], atol=1e-6)


def test_cpp_session_equals_keras(exported, model, rows):
    assert exported.difference <= 1e-6
    assert_serves(exported.path, model, rows)


def test_known_strings_differ_from_unknown_ones(exported, rows):
    same = {name: np.repeat(array[:1], 3, axis=0) for name, array in rows.items()}
    same["country"] = rows["country"]
    served = run_in_cpp_session(exported.path, same)["order value"]
    assert len(np.unique(served)) == 3


def test_reloaded_keras_file(model, rows, tmp_path):
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    result = export(reloaded, tmp_path / "models")
    assert result.difference <= 1e-6
    assert_serves(result.path, model, rows)


def test_files_and_signature(exported, model):
    names = {str(path.relative_to(exported.path)) for path in exported.path.iterdir()}
    assert {"saved_model.pb", "variables", "assets"} <= names
    assert (exported.path / "variables" / "variables.index").is_file()
    signature = read_signature(exported.path)
    assert set(signature.inputs) == set(model.input)
    assert set(signature.outputs) == {"ctr", "order value"}
    for name, tensor in model.input.items():
        info = signature.inputs[name]
        assert [dim.size for dim in info.tensor_shape.dim] == [-1, *tensor.shape[1:]]
        assert tf.as_dtype(info.dtype).name == tensor.dtype


def test_unused_input_is_kept_and_changes_nothing(exported, rows):
    other = dict(rows, unused=rows["unused"] + 5)
    first, second = (run_in_cpp_session(exported.path, r) for r in (rows, other))
    np.testing.assert_array_equal(first["ctr"], second["ctr"])


def test_each_weight_is_stored_once(exported, model):
    size = sum(np.asarray(weight).nbytes for weight in model.weights)
    assert exported.scan.weight_bytes == size
    assert size < exported.bytes < size + 100_000


def test_large_table_is_the_only_variable(exported):
    assert exported.scan.variable_bytes == 40_000 * 8 * 4
    assert [stored.variable for stored in exported.scan.large] == [True]


def test_model_of_constants_alone_has_a_variables_index(small_model, tmp_path):
    result = export(small_model, tmp_path)
    assert result.scan.variable_bytes == 0
    assert result.scan.weight_bytes == 12
    assert (result.path / "variables" / "variables.index").is_file()


def test_tables_of_one_name_stay_apart(tmp_path):
    def make_part(seed):
        ids = keras.Input((), dtype="int32", name="ids")
        start = keras.initializers.RandomNormal(seed=seed)
        table = keras.layers.Embedding(40_000, 8, start, name="table")
        return keras.Model(ids, table(ids), name=f"part_{seed}")

    ids = keras.Input((), dtype="int32", name="ids")
    both = [make_part(1)(ids), make_part(2)(ids)]
    model = keras.Model({"ids": ids}, {"y": keras.layers.Concatenate()(both)})
    result = export(model, tmp_path)
    assert_serves(result.path, model, {"ids": [1, 2, 39_999]})


def test_equal_weights_of_two_layers_are_no_repetition(tmp_path):
    x = keras.Input((64,), name="x")
    first, second = (keras.layers.Dense(64, name=name) for name in ("a", "b"))
    model = keras.Model({"x": x}, {"y": second(first(x))})
    second.set_weights(first.get_weights())
    assert export(model, tmp_path).scan.problems == ()


def test_vocabulary_file_becomes_an_asset(tmp_path):
    (tmp_path / "words.txt").write_text("at\nde\n")
    word = keras.Input((), dtype="string", name="word")
    lookup = keras.layers.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    table = keras.layers.Embedding(3, 4)
    model = keras.Model({"word": word}, {"y": table(lookup(word))})
    result = export(model, tmp_path / "models")
    (tmp_path / "words.txt").unlink()
    assert [path.name for path in (result.path / "assets").iterdir()] == ["words.txt"]
    assert_serves(result.path, model, {"word": ["de", "zz"]})


def test_half_precision_output_is_cast(tmp_path):
    x = keras.Input((4,), name="x")
    dense = keras.layers.Dense(1, dtype="mixed_bfloat16")
    result = export(keras.Model({"x": x}, {"y": dense(x)}), tmp_path)
    info = read_signature(result.path).outputs["y"]
    assert info.dtype == tf.float32.as_datatype_enum


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_ranker_is_exported(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        x = features.Numeric("x", width=6, mean=(0.0,) * 6, std=(1.0,) * 6)
        both = [tasks.Binary("click"), tasks.Regression("time")]
        model = models.ple([x], both, levels=[32, 16])
    finally:
        keras.config.set_dtype_policy("float32")
    assert export(model, tmp_path).difference < 5e-2


def test_next_version_and_given_version(small_model, tmp_path):
    assert export(small_model, tmp_path).version == 1
    result = export(small_model, tmp_path, version=7)
    assert result.path == tmp_path / "7"
    assert export(small_model, tmp_path).version == 8


def test_existing_version_is_refused(small_model, tmp_path):
    (tmp_path / "3").mkdir()
    message = r"`version` should be none of \[3\].* Received: version=3"
    with pytest.raises(FileExistsError, match=message):
        export(small_model, tmp_path, version=3)
    assert list((tmp_path / "3").iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_are_refused(small_model, tmp_path, value):
    kernel, bias = small_model.get_weights()
    small_model.set_weights([np.full_like(kernel, value), bias])
    message = "finite weights. Received: 2 NaN or infinite numbers in 'ctr/kernel'"
    with pytest.raises(ValueError, match=message):
        export(small_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_outputs_without_names_are_refused(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model({"x": x}, [keras.layers.Dense(1)(x)])
    with pytest.raises(ValueError, match="`model.output` should be a dict"):
        export(model, tmp_path)


def test_inputs_without_names_are_refused(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model([x], {"y": keras.layers.Dense(1)(x)})
    with pytest.raises(ValueError, match="`model.input` should be a dict"):
        export(model, tmp_path)


def test_unbuilt_model_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="should be a built Keras model"):
        export(model, tmp_path)


@pytest.mark.parametrize("name", ["user id", "_id", "class", "self"])
def test_names_that_a_signature_would_change_are_refused(tmp_path, name):
    x = keras.Input((4,), name=name)
    model = keras.Model({name: x}, {"y": keras.layers.Dense(1)(x)})
    with pytest.raises(ValueError, match=f"names of `model.input`.*'{name}'"):
        export(model, tmp_path)


@pytest.mark.parametrize("name", ["user-id", "user.id", "7th", "K1"])
def test_other_names_are_kept(tmp_path, name):
    x = keras.Input((4,), name=name)
    model = keras.Model({name: x}, {"click/through rate é": keras.layers.Dense(1)(x)})
    signature = read_signature(export(model, tmp_path).path)
    assert list(signature.inputs) == [name]
    assert list(signature.outputs) == ["click/through rate é"]


@pytest.mark.parametrize("folded", [False, True])
def test_sub_networks_are_known_of_every_version(tmp_path, folded):
    """Of a model that was not folded, and of one that was folded before."""
    x = features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
    model = models.snr([x], [tasks.Binary("click")], [(3, 4), (2, 4)])
    gate = model.get_layer("level_2").gate
    gate.set_log_alpha([[4.0, -4.0, -4.0], [-4.0, -4.0, 4.0]])
    if folded:
        model = folding.fold(model)
    facts = read_manifest(export(model, tmp_path).path)["facts"]
    assert [tuple(found.values()) for found in facts["sub_networks"]] == [
        (2 if folded else 3, "level_1", 2 if folded else 3),
        (2, "level_2", 2),
        (2, "task_routing", 1),
    ]


def test_golden_rows_are_used(small_model, tmp_path):
    with pytest.raises(ValueError, match=r"the names \['number'\]"):
        export(small_model, tmp_path, golden={"other": [1.0]})
    result = export(small_model, tmp_path, golden={"number": [[1.0, 2.0]]})
    assert result.difference <= 1e-6


def test_failing_golden_rows_leave_nothing(tmp_path):
    ids = keras.Input((), dtype="int32", name="ids")
    model = keras.Model({"ids": ids}, {"y": keras.layers.Embedding(4, 2)(ids)})
    export(model, tmp_path)
    with pytest.raises(Exception, match="indices"):
        export(model, tmp_path, golden={"ids": [9]})
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_other_answers_in_the_cpp_session_leave_nothing(
    small_model, tmp_path, monkeypatch
):
    def wrong(path, inputs):
        outputs = run_in_cpp_session(path, inputs)
        return {task: output + 1e-3 for task, output in outputs.items()}

    monkeypatch.setattr(export_module, "run_in_cpp_session", wrong)
    with pytest.raises(ExportError, match="'ctr' should differ by at most 1e-05"):
        export(small_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_problem_of_the_scan_leaves_nothing(small_model, tmp_path, monkeypatch):
    scan = written.scan

    def strict(path, weights):
        return dataclasses.replace(scan(path, weights=weights), problems=("bad",))

    monkeypatch.setattr(written, "scan", strict)
    with pytest.raises(ExportError, match="The SavedModel is unfit: bad"):
        export(small_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_failed_load_leaves_nothing(small_model, tmp_path, monkeypatch):
    def fail(path, inputs):
        raise CppSessionError("no")

    monkeypatch.setattr(export_module, "run_in_cpp_session", fail)
    with pytest.raises(CppSessionError, match="no"):
        export(small_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_foreign_variable_is_refused(tmp_path):
    foreign = tf.Variable(2.0)

    @keras.saving.register_keras_serializable("test_serving")
    class Scale(keras.layers.Layer):
        def call(self, inputs):
            return inputs * foreign

    x = keras.Input((1,), name="x")
    model = keras.Model({"x": x}, {"y": Scale()(x)})
    with pytest.raises(ExportError, match="variable or table that is none of its own"):
        export(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("with_position", [False, True])
def test_a_position_is_no_input_of_the_signature(tmp_path, with_position, fold):
    position = tasks.Position("shown_at", num_positions=5)
    model = models.mmoe(
        [features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))],
        [tasks.Binary("click", position=position), tasks.Binary("like")],
        experts=2,
    )
    model.get_layer("click_position_bias").bias.assign([[3.0], *[[-9.0]] * 5])
    rows = {"x": np.random.default_rng(0).normal(size=(4, 2)).astype("float32")}
    shown = {"shown_at": np.array([[0], [1], [4], [9]], "int32")}
    golden = {**rows, **shown} if with_position else rows
    written = export(model, tmp_path / "ranker", golden=golden, fold=fold)
    assert list(read_signature(written.path).inputs) == ["x"]
    served = run_in_cpp_session(written.path, rows)
    for name, expected in answers(model, {**rows, **shown}).items():
        np.testing.assert_allclose(served[name], expected, atol=1e-6)
    assert sorted(model.input) == ["shown_at", "x"]


def test_a_fold_is_proven_on_the_golden_rows(tmp_path):
    x = keras.Input((3,), name="x")
    y = keras.layers.Dense(1)(keras.ops.log(x))
    model = keras.Model({"x": x}, {"y": y})
    golden = {"x": np.ones((2, 3), "float32")}
    assert export(model, tmp_path, fold=True, golden=golden).version == 1


@pytest.mark.parametrize(
    ("golden", "message"),
    [
        ({}, r"the names \['number'\]"),
        ({"number": np.zeros((0, 2), "float32")}, "one row or more. Received: none"),
        (
            {"number": [1.0, 2.0]},
            r"`golden\['number'\]` should have the shape \(any, 2",
        ),
        ({"number": [["a", "b"]]}, r"`golden\['number'\]` should be of type float32"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"fold": True}, {"tables": "int8"}])
def test_golden_rows_that_do_not_fit(small_model, tmp_path, golden, message, options):
    with pytest.raises(ValueError, match=message):
        export(small_model, tmp_path, golden=golden, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("a-b", "a_b"), ("X", "x")])
def test_names_that_tensorflow_takes_for_the_same_are_refused(tmp_path, names):
    inputs = {name: keras.Input((1,), name=name) for name in names}
    both = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, {"y": both})
    with pytest.raises(ValueError, match="should differ in letters or digits"):
        export(model, tmp_path)


def test_inputs_that_no_client_can_send_are_refused(tmp_path):
    x = keras.Input((1,), dtype="bfloat16", name="x")
    model = keras.Model({"x": x}, {"y": keras.ops.cast(x, "float32")})
    with pytest.raises(ValueError, match="of a type that clients have"):
        export(model, tmp_path)


def test_identifiers_are_served_as_they_are(tmp_path):
    ids = keras.Input((1,), dtype="int64", name="ids")
    name = keras.Input((1,), dtype="string", name="name")
    written = export(
        keras.Model({"ids": ids, "name": name}, {"id": ids + 0, "same": name}), tmp_path
    )
    rows = {
        "ids": np.array([[2**40 + 1], [16777217]]),
        "name": np.array([["ü"], [""]], object),
    }
    found = run_in_cpp_session(written.path, rows)
    np.testing.assert_array_equal(found["id"], rows["ids"])
    assert found["same"].ravel().tolist() == ["ü".encode(), b""]


def test_outputs_without_rows_are_refused(tmp_path):
    x = keras.Input((2,), name="x")
    model = keras.Model({"x": x}, {"y": keras.ops.sum(x)})
    message = r"`model.output\['y'\]` should have one row for each example. Received: "
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path)


def test_object_stores_are_refused(model):
    message = "`base` should be a folder; .* Received: base=gs://bucket/ranker"
    with pytest.raises(ValueError, match=message):
        export(model, "gs://bucket/ranker")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_micro_batches_change_no_answer(model, rows, tmp_path, count):
    """Parts of 3 rows: a short one, one, one and a bit, also of strings."""
    path = export(model, tmp_path, micro_batch=3).path
    given = {name: np.resize(x, (count, *x.shape[1:])) for name, x in rows.items()}
    assert_serves(path, model, given)
    assert read_manifest(path)["facts"]["micro_batch"] == 3


def test_the_command_takes_a_micro_batch(small_model, tmp_path):
    small_model.save(tmp_path / "model.keras")
    words = [str(tmp_path / "model.keras"), str(tmp_path), "--micro-batch", "4"]
    assert main(["export", *words]) == 0
    assert read_manifest(tmp_path / "1")["facts"]["micro_batch"] == 4


def test_a_micro_batch_of_no_rows(model, rows, tmp_path):
    path = export(model, tmp_path, micro_batch=2).path
    served = run_in_cpp_session(path, {name: x[:0] for name, x in rows.items()})
    assert {y.shape for y in served.values()} == {(0, 1)}


def test_micro_batches_of_identifiers_and_strings(tmp_path):
    ids = keras.Input((1,), dtype="int64", name="ids")
    name = keras.Input((1,), dtype="string", name="name")
    outputs = {"id": ids + 0, "same": name}
    written = export(
        keras.Model({"ids": ids, "name": name}, outputs), tmp_path, micro_batch=2
    )
    rows = {
        "ids": np.array([[2**40 + 1], [16777217], [3]]),
        "name": np.array([["ü"], [""], ["b"]], object),
    }
    found = run_in_cpp_session(written.path, rows)
    np.testing.assert_array_equal(found["id"], rows["ids"])
    assert found["same"].ravel().tolist() == ["ü".encode(), b"", b"b"]


def test_micro_batches_of_what_mixes_rows_are_refused(tmp_path):
    x = keras.Input((1,), name="x")
    centred = x - keras.ops.mean(x, axis=0, keepdims=True)
    model = keras.Model({"x": x}, {"y": centred})
    export(model, tmp_path)
    with pytest.raises(ExportError, match="'y' should differ by at most"):
        export(model, tmp_path, micro_batch=16)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize("rows", [0, 1.5, "all", True])
def test_micro_batch_is_a_number_of_rows(small_model, tmp_path, rows):
    with pytest.raises(ValueError, match="`micro_batch` should be a positive integer"):
        export(small_model, tmp_path, micro_batch=rows)
