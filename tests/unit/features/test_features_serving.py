"""The same scores in Keras, after a reload, folded, and in the C++ session."""

import keras
import keras_rs
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import models
from tfmtl.features import (
    Bucketized,
    Categorical,
    Cross,
    Encoder,
    Numeric,
    OfFields,
    Sequence,
    adapt,
    encode,
    pad,
)
from tfmtl.folding import fold
from tfmtl.layers import FieldGate
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.tasks import Binary, Regression

TRAIN = {
    "age": np.array([20.0, 30.0, 40.0, np.nan]),
    "job": np.array(["cook", "smith", "cook", "übergröße"]),
    "city": np.array(["a", "b", "", "c"]),
    "video": np.array([700, 2**40, 5, -1]),
    "seen": np.array([[700, 5], [5, -1], [-1, -1], [2**40, 700]]),
    "tags": np.array([["x", "y", "z"], ["", "", ""], ["x", "", ""], ["y", "x", ""]]),
}
ROWS = {
    "age": np.array([[np.nan], [np.inf], [-np.inf], [1e38], [-1e38], [25.0]], "f4"),
    "job": np.array([["cook"], [""], ["unknown"], ["übergröße"], ["[UNK]"], ["smith"]]),
    "city": np.array([["a"], [""], ["zz"], ["b"], ["c"], ["a"]]),
    "video": np.array([[700], [-1], [-(2**63)], [2**63 - 1], [6], [2**40]]),
    "seen": np.array(
        [
            [700, 5, 700, 5],
            [-1, -1, -1, -1],
            [-9, 2**62, -9, 5],
            [6, 6, 6, 700],
            [5, -1, -1, -1],
            [-1, -1, -1, 700],
        ]
    ),
    "tags": np.array(
        [["x", "y"], ["", ""], ["", "z"], ["w", "w"], ["w", ""], ["x", "x"]]
    ),
}


def text_file(folder, name, values):
    path = folder / name
    path.write_text("\n".join(map(str, values)) + "\n", "utf-8")
    return str(path)


def scored(features, **arguments):
    keras.utils.set_random_seed(0)
    inputs, x = encode(Encoder(features, **arguments))
    model = keras.Model(inputs, {"score": keras.layers.Dense(2)(x)})
    for weight in model.weights:
        if weight.name == "embeddings":
            weight.assign(keras.random.normal(weight.shape, seed=1))
    return model


@pytest.fixture(scope="module")
def model():
    features = [
        Numeric("age", log=True, clip=(0, 200)),
        Bucketized("age"),
        Categorical("job"),
        Categorical("city", hash_bins=4),
        Categorical("video", dtype="int64", table="video"),
        Sequence(
            "seen",
            dtype="int64",
            table="video",
            length=3,
            pooling="attention",
            target="video",
        ),
        Sequence("tags", pooling="max"),
        Cross("where", columns=("job", "city"), hash_bins=9),
    ]
    return scored(adapt(features, TRAIN), hard_concrete={})


def answer(model, rows=ROWS):
    rows = {n: tf.constant(rows[n].tolist(), model.input[n].dtype) for n in rows}
    return keras.ops.convert_to_numpy(model(rows, training=False)["score"])


def served(model, folder, rows=ROWS):
    path = export(model, folder, golden=rows).path
    return run_in_cpp_session(path, rows)["score"], path


def test_scores_are_finite_and_those_of_the_cpp_session(model, tmp_path):
    expected = answer(model)
    assert np.isfinite(expected).all()
    scores, _ = served(model, tmp_path / "model")
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)


def test_sequences_of_any_length_in_the_cpp_session(model, tmp_path):
    _, path = served(model, tmp_path / "model")
    for length in (0, 1, 9):
        filled = {
            "seen": np.full((6, length), 700),
            "tags": np.full((6, length), "x"),
        }
        rows = {**ROWS, **filled}
        tensors = {n: tf.constant(rows[n], model.input[n].dtype) for n in rows}
        expected = model(tensors, training=False)["score"]
        got = run_in_cpp_session(path, rows)["score"]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_padding_and_what_is_cut_do_not_matter(model):
    longer = {
        **ROWS,
        "seen": np.pad(ROWS["seen"], [(0, 0), (0, 5)], constant_values=5),
        "tags": np.concatenate([ROWS["tags"], np.full((6, 3), "")], axis=1),
    }
    np.testing.assert_allclose(answer(model, longer), answer(model), rtol=1e-6)


def test_an_empty_sequence_is_zeros():
    tags = Sequence("tags", vocabulary=("x",), units=2)
    inputs, vector = encode([tags])
    rows = tf.constant([["", ""], ["x", ""]])
    got = keras.ops.convert_to_numpy(keras.Model(inputs, vector)({"tags": rows}))
    assert not got[0].any() and got[1].any()


def test_missing_and_unknown_values_have_rows_of_their_own():
    for feature, values in [
        (Categorical("c", vocabulary=("a", "b")), ["a", "b", "", "z"]),
        (Categorical("c", dtype="int64", vocabulary=(0, 9)), [0, 9, -5, 3]),
    ]:
        inputs, vector = encode([feature])
        column = tf.constant(values)[:, None]
        got = keras.ops.convert_to_numpy(keras.Model(inputs, vector)({"c": column}))
        assert len(np.unique(got, axis=0)) == 4


def test_a_saved_and_a_folded_model_give_the_same(model, tmp_path):
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(answer(reloaded), answer(model))
    for layer in reloaded.layers:
        if isinstance(layer, FieldGate):
            numbers = np.arange(len(layer.fields))
            layer.gate.set_log_alpha(np.where(numbers % 2, 4.0, -4.0))
    folded = fold(reloaded)
    scores, _ = served(folded, tmp_path / "folded")
    np.testing.assert_allclose(scores, answer(reloaded), rtol=1e-6, atol=1e-6)


def test_trains_on_a_dataset_of_ragged_columns(model):
    columns = {
        "seen": tf.ragged.constant([[700], [], [5, 5, 5, 5]], dtype=tf.int64),
        "tags": tf.ragged.constant([["x"], [], ["y", "z"]]),
        **{n: tf.constant(TRAIN[n][:3].tolist()) for n in ("age", "job", "city")},
        "video": tf.constant([700, 5, -1], tf.int64),
    }
    labels = np.ones((3, 2), "f4")
    dataset = tf.data.Dataset.from_tensor_slices((columns, {"score": labels}))

    batches = dataset.batch(2).map(lambda x, y: (pad(x), y))
    copy = keras.models.clone_model(model)
    copy.compile("adam", "mse")
    losses = copy.fit(batches, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[1] < losses[0]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_any_number_is_served(policy, tmp_path):
    train = np.random.default_rng(0).random((1000, 3))
    features = adapt(
        [Numeric("x", width=3), Numeric("seen", missing=-1)],
        {"x": train, "seen": np.maximum(train[:, :1] * 4 - 2, -1)},
    )
    assert features[1].mean[0] > 0
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        model = models.mmoe(features, [Binary("a"), Regression("b")])
    finally:
        keras.config.set_dtype_policy(before)
    values = [3e38, -3e38, 1e5, -1e5, np.inf, -np.inf, np.nan, 0.5]
    rows = {
        "x": np.repeat(np.array(values, "f4")[:, None], 3, axis=1),
        "seen": np.array(
            [3e38, -1, -np.inf, -1, 0, 1, np.nan, features[1].mean[0]], "f4"
        )[:, None],
    }
    path = export(model, tmp_path / "model").path
    served = run_in_cpp_session(path, rows)
    expected = model.predict(rows, verbose=0)
    atol = 1e-5 if policy == "float32" else 1e-2
    for name, scores in served.items():
        assert np.isfinite(scores).all(), name
        np.testing.assert_allclose(scores, expected[name], rtol=1e-3, atol=atol)
    assert np.ptp(served["b"][:4]) > 0


def test_hashed_ids_are_arithmetic(tmp_path):
    features = [
        Categorical("id", dtype="int64", hash_bins=1000, units=1),
        Sequence("ids", dtype="int64", hash_bins=5, pooling="sum"),
    ]
    model = scored(features, hard_concrete={})
    ids = np.array([[-1], [-(2**63)], [2**63 - 1], [0], [7], [2**40], [2**40 + 2**31]])
    rows = {"id": ids, "ids": np.concatenate([ids, ids[::-1]], axis=1)}
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    expected = answer(model, rows)
    np.testing.assert_array_equal(answer(reloaded, rows), expected)
    scores, path = served(fold(reloaded), tmp_path / "served", rows)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    graph = (path / "saved_model.pb").read_bytes()
    assert b"BitwiseXor" in graph
    assert b"AsString" not in graph and b"StringToHash" not in graph


@pytest.mark.parametrize("step", [1, 64, 2**31, 2**40])
def test_hashed_ids_are_spread(step):
    feature = Categorical("id", dtype="int64", hash_bins=512)
    lookup = feature.look_up("lookup", padded=False)
    column = tf.range(-9, 2**14, dtype=tf.int64)[:, None] * step
    found = keras.ops.convert_to_numpy(lookup(column))[:, 0]
    assert (found[:9] == 0).all()
    counts = np.bincount(found[9:], minlength=513)[1:]
    assert len(counts) == feature.rows(lookup) - 1 == 512
    assert counts.min() > 4 and counts.max() < 75  # 32 each


@pytest.mark.parametrize("closed", ["c", "i", "x"])
def test_interactions_of_keras_rs_with_a_closed_field(closed, tmp_path):
    features = [
        Categorical("c", vocabulary=("a", "b"), units=4),
        Categorical("i", dtype="int64", vocabulary=(5, 7), units=4),
        Numeric("x", mean=(0.0,), std=(1.0,)),
    ]
    layers = [
        OfFields(keras_rs.layers.DotInteraction()),
        keras_rs.layers.FeatureCross(),
    ]
    model = scored(features, interactions=layers, hard_concrete={})
    for layer in model.layers:
        if isinstance(layer, FieldGate):
            given = [-4.0 if name == closed else 4.0 for name in layer.fields]
            layer.gate.set_log_alpha(given)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    rows = {
        "c": np.array([["a"], ["b"], ["z"], [""]]),
        "i": np.array([[5], [7], [1], [-4]]),
        "x": np.array([[1.0], [2.0], [np.nan], [np.inf]], "f4"),
    }
    expected = answer(model, rows)
    folded = fold(reloaded)
    np.testing.assert_allclose(answer(folded, rows), expected, rtol=1e-6, atol=1e-6)
    scores, _ = served(folded, tmp_path / "served", rows)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    lookups = [layer.name for layer in folded.layers if "lookup" in layer.name]
    assert f"{closed}_lookup" not in lookups


WORDS = [f"word {k}" for k in range(500)]
IDS = [10**9 + 7 * k for k in range(500)]


@pytest.mark.parametrize("reload", [False, True])
def test_a_vocabulary_file_is_an_asset(tmp_path, reload):
    features = [
        Categorical("word", vocabulary=text_file(tmp_path, "words.txt", WORDS)),
        Sequence("words", vocabulary=text_file(tmp_path, "words.txt", WORDS)),
        Categorical(
            "id", dtype="int64", vocabulary=text_file(tmp_path, "ids.txt", IDS)
        ),
    ]
    model = scored(features, hard_concrete={})
    given = scored(
        [
            Categorical("word", vocabulary=WORDS),
            Sequence("words", vocabulary=WORDS),
            Categorical("id", dtype="int64", vocabulary=IDS),
        ],
        hard_concrete={},
    )
    rows = {
        "word": np.array([[WORDS[3]], [""], ["unknown"], [WORDS[-1]]]),
        "words": np.array([["", WORDS[7]], ["", ""], ["unknown", ""], WORDS[:2]]),
        "id": np.array([[IDS[3]], [-5], [4], [IDS[-1]]]),
    }
    assert [w.shape for w in model.weights] == [w.shape for w in given.weights]
    before = answer(model, rows)
    if reload:
        model.save(tmp_path / "model.keras")
        for file in ("words.txt", "ids.txt"):
            (tmp_path / file).unlink()
        model = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    folded = fold(model)
    np.testing.assert_array_equal(answer(model, rows), before)
    np.testing.assert_allclose(answer(folded, rows), before, rtol=1e-6)
    scores, path = served(folded, tmp_path / "served", rows)
    np.testing.assert_allclose(scores, before, rtol=1e-6, atol=1e-6)
    assets = [file.read_text("utf-8") for file in (path / "assets").iterdir()]
    assert {tuple(text.splitlines()) for text in assets} == {
        tuple(WORDS),
        tuple(map(str, IDS)),
    }
    assert b"word 77" not in (path / "saved_model.pb").read_bytes()
