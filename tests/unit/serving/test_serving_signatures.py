"""Signatures: names, methods, numbers, and what each computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import features, folding, models, tasks
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.serving.saved_model import read_meta_graph, read_signature

WORDS = ("at", "de", "ch")
KINDS = [
    tasks.Binary("click"),
    tasks.Binary("buy", after="click"),
    tasks.Regression("time"),
    tasks.Count("plays"),
    tasks.MultiClass("mood", num_classes=3),
    tasks.Ordinal("stars", num_levels=4),
]
METHODS = {
    "classify_click": "classify",
    "classify_buy": "classify",
    "classify_mood": "classify",
    "regress_time": "regress",
    "regress_plays": "regress",
}


def make_ranker():
    """Every kind of column, tasks of every method, and a score."""
    keras.utils.set_random_seed(1)
    columns = [
        features.Numeric("age", mean=(40.0,), std=(10.0,)),
        features.Numeric("wide", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
        features.Categorical("country", vocabulary=WORDS),
        features.Categorical("item", dtype="int64", hash_bins=50),
        features.Bucketized("hour", boundaries=(6.0, 12.0, 18.0)),
        features.Sequence("seen", dtype="int64", hash_bins=20, length=4),
    ]
    ranker = models.snr(columns, KINDS)
    return models.with_score(ranker, {"click": 1.0, "buy": 5.0})


ROWS = {
    "age": [[31.0], [np.nan], [64.0]],
    "wide": [[0.5, 1.0, -2.0], [np.nan] * 3, [3.0, 2.0, 1.0]],
    "country": np.array([["de"], [""], ["zz"]], object),
    "item": np.array([[7], [-1], [2**40]]),
    "hour": [[3.0], [np.nan], [23.0]],
    "seen": np.array([[1, 2, -1, -1], [-1] * 4, [9, 8, 7, 6]]),
}


def examples():
    """The same rows, each without what it has no value of."""

    def feature(values):
        if isinstance(values[0], str):
            texts = [value.encode() for value in values if value]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        ids = [value for value in values if value >= 0]
        return tf.train.Feature(int64_list=tf.train.Int64List(value=ids))

    rows = [
        {name: np.asarray(column, object)[k].tolist() for name, column in ROWS.items()}
        for k in range(3)
    ]
    for name in ("age", "wide", "hour", "country"):
        del rows[1][name]
    return np.array(
        [
            tf.train.Example(
                features=tf.train.Features(
                    feature={name: feature(values) for name, values in row.items()}
                )
            ).SerializeToString()
            for row in rows
        ],
        object,
    )


@pytest.fixture(scope="module")
def ranker():
    return make_ranker()


@pytest.fixture(scope="module")
def path(ranker, tmp_path_factory):
    base = tmp_path_factory.mktemp("signatures")
    return export(ranker, base, golden=ROWS).path


@pytest.fixture(scope="module")
def served(path):
    return run_in_cpp_session(path, ROWS)


def test_names_and_methods(path, ranker):
    found = read_meta_graph(path).signature_def
    each = set(ranker.output)
    assert {"score", "buy_conditional"} <= each or "score" in each
    assert set(found) == {"serving_default", "serving_examples", *METHODS, *each}
    for name, signature in found.items():
        method = METHODS.get(name, "predict")
        assert signature.method_name == f"tensorflow/serving/{method}"


def test_each_output_has_a_signature_that_gives_it_alone(path, ranker, served):
    assert set(served) == set(ranker.output)
    for name in ranker.output:
        assert set(read_signature(path, name).inputs) == set(ROWS)
        alone = run_in_cpp_session(path, ROWS, name)
        assert list(alone) == [name]
        np.testing.assert_allclose(alone[name], served[name], atol=1e-6)


def test_the_score_is_the_formula(path, served):
    score = run_in_cpp_session(path, ROWS, "score")["score"]
    np.testing.assert_allclose(score, served["click"] + 5 * served["buy"], atol=1e-6)


def test_examples_are_rows(path, served):
    found = run_in_cpp_session(path, {"examples": examples()}, "serving_examples")
    assert set(found) == set(served)
    for name, values in served.items():
        np.testing.assert_array_equal(found[name], values)


def test_no_examples_give_no_rows(path):
    given = {"examples": np.array([], object)}
    for values in run_in_cpp_session(path, given, "serving_examples").values():
        assert len(values) == 0


def test_a_list_longer_than_its_column_is_cut(path, served):
    example = tf.train.Example.FromString(examples()[2])
    example.features.feature["seen"].int64_list.value.extend([1, 2, 3])
    given = {"examples": np.array([example.SerializeToString()], object)}
    found = run_in_cpp_session(path, given, "serving_examples")
    np.testing.assert_array_equal(found["click"], served["click"][2:])


@pytest.mark.parametrize("task", ["time", "plays"])
def test_regression(path, served, task):
    given = {"inputs": examples()}
    found = run_in_cpp_session(path, given, f"regress_{task}")
    np.testing.assert_array_equal(found["outputs"], served[task])


@pytest.mark.parametrize("task", ["click", "buy", "mood"])
def test_classification(path, served, task):
    # The C++ session's script gives back numbers only; TensorFlow reads the texts.
    signature = tf.saved_model.load(str(path)).signatures[f"classify_{task}"]
    found = signature(inputs=tf.constant(examples()))
    scores = served[task]
    if task != "mood":
        scores = np.concatenate([1 - scores, scores], axis=1)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
    names = [str(k).encode() for k in range(scores.shape[1])]
    assert found["classes"].numpy().tolist() == [names] * 3


def test_weights_are_stored_once_for_all_signatures(path, ranker):
    sizes = {tuple(weight.shape): weight for weight in ranker.weights}
    assert len(sizes) > 3
    constants = [
        node.attr["value"].tensor
        for function in read_meta_graph(path).graph_def.library.function
        for node in function.node_def
        if node.op == "Const"
    ]
    kernel = ranker.get_layer("task_routing").weights[0].numpy()
    same = [c for c in constants if np.array_equal(tf.make_ndarray(c), kernel)]
    assert len(same) == 1


def test_a_large_version_is_its_weights(tmp_path):
    """All files of all signatures, on 102 MB of weights."""
    columns = [
        features.Categorical(
            "id", dtype="int64", hash_bins=400_000, units=64, initializer="zeros"
        )
    ]
    of_tasks = [tasks.Binary("click"), tasks.Regression("time")]
    model = models.shared_bottom(columns, of_tasks, bottom=[8])
    weights = sum(weight.numpy().nbytes for weight in model.weights)
    assert weights > 10**8
    path = export(model, tmp_path).path
    assert len(read_meta_graph(path).signature_def) == 2 + 2 * 2
    disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert disk <= 1.02 * weights


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_tasks_signature_runs_its_sub_graph_only(tmp_path, micro_batch):
    """An input that would fail the other task is never looked at."""
    x = keras.Input((2,), name="x")
    ids = keras.Input((1,), dtype="int32", name="ids")
    table = keras.layers.Embedding(3, 1, name="table")(ids)
    outputs = {
        "cheap": keras.layers.Dense(1, name="dense")(x),
        "table": keras.layers.Flatten(name="flat")(table),
    }
    model = keras.Model({"x": x, "ids": ids}, outputs)
    written = export(model, tmp_path, micro_batch=micro_batch)
    rows = {"x": np.ones((1, 2), "float32"), "ids": np.array([[99]], "int32")}
    assert run_in_cpp_session(written.path, rows, "cheap")["cheap"].shape == (1, 1)
    with pytest.raises(RuntimeError, match="99 is not in"):
        run_in_cpp_session(written.path, rows, "table")


def test_no_fingerprint_of_another_graph_is_left(path):
    """Loaders do without, and it would not be that of the graph on disk."""
    assert not (path / "fingerprint.pb").exists()


def test_signatures_share_one_graph(path):
    """A server copies graph and functions several times while it loads."""
    meta_graph = read_meta_graph(path)
    nodes, functions = meta_graph.graph_def.node, meta_graph.graph_def.library.function
    placeholders = [node.name for node in nodes if node.op == "Placeholder"]
    of_columns = {
        info.name for info in meta_graph.signature_def["click"].inputs.values()
    }
    assert len(of_columns) == len(ROWS)
    assert len(placeholders) == len(ROWS) + 2  # the examples, the checkpoint's name
    assert sum("signature_wrapper" in f.signature.name for f in functions) == 1
    assert sum(len(f.node_def) > 100 for f in functions) == 1  # the model
    assert not meta_graph.HasField("object_graph_def")


def _ran(path, signature, given):
    """What a session runs for a signature, node by node."""
    ends = read_signature(path, signature)
    feeds = {ends.inputs[name].name: values for name, values in given.items()}
    fetches = [info.name for info in ends.outputs.values()]
    ran = tf.compat.v1.RunMetadata()
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        session.run(fetches, feeds, options=options, run_metadata=ran)
    return [node.op for graph in ran.partition_graphs for node in graph.node]


def _products(ops):
    return sum("MatMul" in op for op in ops)


@pytest.mark.parametrize("micro_batch", [None, 1])
def test_towers_of_other_tasks_are_not_run(tmp_path, micro_batch):
    columns = [features.Numeric("x", width=4, mean=(0.0,) * 4, std=(1.0,) * 4)]
    names = [f"task_{k}" for k in range(4)]
    of_tasks = [tasks.Binary(name) for name in names]
    model = models.shared_bottom(columns, of_tasks, bottom=[8], tower={"units": [8, 8]})
    path = export(model, tmp_path, micro_batch=micro_batch).path
    rows = {"x": np.ones((2, 4), "f4")}
    whole = _ran(path, "serving_default", rows)
    assert _products(whole) == 1 + 4 * 3  # the bottom, and layers of four towers
    for name in names:
        alone = _ran(path, name, rows)
        assert _products(alone) == 1 + 3
        assert len(alone) < len(whole)


def test_micro_batches_of_examples(ranker, served, tmp_path):
    path = export(ranker, tmp_path, golden=ROWS, micro_batch=2).path
    found = run_in_cpp_session(path, {"examples": examples()}, "serving_examples")
    assert set(found) == set(served)
    for name, values in served.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)


@pytest.mark.parametrize("signature", ["serving_default", "click", "classify_click"])
def test_a_session_puts_the_model_in_line(path, signature):
    """A called function is slower, and computes what nobody asked for."""
    given = {"inputs": examples()} if signature == "classify_click" else ROWS
    ops = set(_ran(path, signature, given))
    assert ops & {"MatMul", "_MklMatMul", "_FusedMatMul", "_MklFusedMatMul"}
    assert not ops & {"StatefulPartitionedCall", "PartitionedCall"}


@pytest.mark.parametrize("count", [0, 1500])
def test_only_what_has_look_ups_is_initialised(tmp_path, count):
    words = tuple(f"word {k}" for k in range(count))
    columns = [features.Numeric("x", mean=(0.0,), std=(1.0,))]
    if words:
        columns.append(features.Categorical("word", vocabulary=words))
    written = export(models.mmoe(columns, [tasks.Binary("click")]), tmp_path)
    found = read_meta_graph(written.path)
    assert ("saved_model_main_op" in found.collection_def) == bool(words)
    assert len(found.asset_file_def) == bool(words)
    rows = {"x": np.ones((2, 1), "f4")}
    if words:
        rows["word"] = np.array([["word 3"], ["?"]], object)
    served = run_in_cpp_session(written.path, rows)["click"]
    loaded = tf.saved_model.load(str(written.path)).signatures["click"]
    found = loaded(**{name: tf.constant(values) for name, values in rows.items()})
    np.testing.assert_allclose(found["click"], served, atol=1e-6)


@pytest.mark.parametrize("name", ["serving_default", "serving_examples"])
def test_names_of_signatures_are_refused_as_outputs(tmp_path, name):
    x = keras.Input((2,), name="x")
    model = keras.Model({"x": x}, {name: keras.layers.Dense(1)(x)})
    with pytest.raises(ValueError, match=rf"which are signatures. Received: \['{name}"):
        export(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_shapes_beyond_columns_are_parsed(tmp_path):
    image = keras.Input((2, 3), name="image")
    flag = keras.Input((), dtype="bool", name="flag")
    flat = keras.layers.Flatten()(image)
    both = keras.layers.Concatenate()([flat, keras.ops.cast(flag, "float32")[:, None]])
    model = keras.Model({"image": image, "flag": flag}, {"y": both})
    written = export(model, tmp_path)
    example = tf.train.Example()
    example.features.feature["image"].float_list.value.extend(range(6))
    example.features.feature["flag"].int64_list.value.append(1)
    given = {"examples": np.array([example.SerializeToString()], object)}
    found = run_in_cpp_session(written.path, given, "serving_examples")["y"]
    assert found.tolist() == [[0, 1, 2, 3, 4, 5, 1]]


def test_fold_in_export_equals_fold_before(ranker, tmp_path):
    first = export(ranker, tmp_path, fold=True, golden=ROWS, batch_sizes=[64])
    second = export(
        folding.fold(ranker, batch_size=64), tmp_path, golden=ROWS, batch_sizes=[64]
    )
    assert first.scan.weight_bytes == second.scan.weight_bytes
    answers = [run_in_cpp_session(written.path, ROWS) for written in (first, second)]
    for name, values in answers[0].items():
        np.testing.assert_array_equal(values, answers[1][name])


def example_of(**columns):
    example = tf.train.Example()
    for name, values in columns.items():
        kind = "float_list" if isinstance(values[0], float) else "int64_list"
        getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString()


def test_a_list_that_does_not_fill_its_shape_fails_no_batch(tmp_path):
    pairs = keras.Input((None, 4), name="pairs")
    largest = keras.ops.max(keras.ops.nan_to_num(pairs), axis=(1, 2))
    model = keras.Model({"pairs": pairs}, {"y": largest[:, None]})
    path = export(model, tmp_path).path
    records = [example_of(pairs=[7.0] * 7), example_of(pairs=[1.0] * 4)]
    given = {"examples": np.array(records, object)}
    found = run_in_cpp_session(path, given, "serving_examples")["y"]
    assert found.tolist() == [[7.0], [1.0]]


def test_what_is_missing_of_flags_and_unsigned_numbers_is_0(tmp_path):
    flag = keras.Input((1,), dtype="bool", name="flag")
    small = keras.Input((1,), dtype="uint8", name="small")
    both = [keras.ops.cast(x, "float32") for x in (flag, small)]
    model = keras.Model(
        {"flag": flag, "small": small}, {"y": keras.layers.Concatenate()(both)}
    )
    given = {"examples": np.array([b"", example_of(small=[5])], object)}
    path = export(model, tmp_path).path
    found = run_in_cpp_session(path, given, "serving_examples")["y"]
    assert found.tolist() == [[0, 0], [0, 5]]
