"""The encoding against NumPy, and what it refuses."""

import dataclasses

import keras
import keras_rs
import numpy as np
import pytest

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
    encode_apart,
)
from tfmtl.layers import FieldGate, HashedCross

FEATURES = [
    Categorical("job", units=3, min_count=2),
    Numeric("pay", log=True),
    Bucketized("age", units=3, buckets=4),
    Numeric("age", clip=(None, 60)),
    Categorical("city", units=2),
    Numeric("pair", width=2),
    Bucketized("pay", units=5, buckets=8),
    Categorical("id", units=3, dtype="int64"),
    Categorical("video", units=2, dtype="int64", table="video"),
    Categorical("next", units=2, dtype="int64", table="video"),
    Categorical("started", units=5, initializer="zeros"),
    Sequence("tags", units=5, length=2),
    Cross("job_age", units=3, columns=("job", "age"), hash_bins=7),
]
TRAIN = {
    "job": np.array(["cook", "smith", "cook", "smith", "smith", "rare"])[:, None],
    "city": np.array(["Wien", "Graz", "Linz", "Wien", "Linz", "Wien"])[:, None],
    "pay": np.array([0.0, -50.0, 1e6, 3.0, np.nan, 7.0])[:, None],
    "age": np.array([20.0, 30.0, 30.0, 45.0, 70.0, np.inf])[:, None],
    "pair": np.arange(12.0).reshape(6, 2),
    "id": np.array([700, 700, 2**40, 5, 5, -3])[:, None],
    "video": np.array([1, 2, 3, 1, 1, 0])[:, None],
    "next": np.array([4, 4, 4, 4, 0, -1])[:, None],
    "started": np.array(["x", "y", "x", "x", "x", "x"])[:, None],
    "tags": np.array([["x", "y", "z"]] * 3 + [["", "y", ""]] * 3),
}
ROWS = {
    "job": np.array([["smith"], ["rare"], ["cook"], [""]]),
    "city": np.array([["Linz"], ["wien"], ["Wien"], ["[UNK]"]]),
    "pay": np.array([[np.nan], [1e30], [-np.inf], [7.0]], "f4"),
    "age": np.array([[30.0], [29.9], [np.nan], [1e9]], "f4"),
    "pair": np.array([[0, 1], [np.inf, 1], [2, np.nan], [4, 4]], "f4"),
    "id": np.array([[2**40], [6], [-(2**62)], [2**62]]),
    "video": np.array([[3], [4], [9], [-1]]),
    "next": np.array([[1], [-2], [4], [5]]),
    "started": np.array([["y"], ["x"], [""], ["z"]]),
    "tags": np.array([["y", "x"], ["", "w"], ["", ""], ["x", ""]]),
}


@pytest.fixture(scope="module")
def features():
    return adapt(FEATURES, TRAIN)


@pytest.fixture(scope="module")
def model(features):
    inputs, vector = encode(features)
    model = keras.Model(inputs, vector)
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=w.shape) for w in model.weights])
    return model


def standardized(feature, column):
    lower, upper = feature.clip
    with np.errstate(invalid="ignore"):
        values = np.clip(column.astype("f8"), lower, upper)
    if feature.log:
        values = np.sign(values) * np.log1p(np.abs(values))
    return np.where(np.isfinite(column), (values - feature.mean) / feature.std, 0)


def row_of(feature, value):
    """The embedding's row for one value: unknown, missing, known ones."""
    if isinstance(feature, Bucketized):
        buckets = 1 + sum(value >= boundary for boundary in feature.boundaries)
        return buckets if np.isfinite(value) else 0
    if value == "" or not isinstance(value, str) and value < 0:
        return 1
    known = value in feature.vocabulary
    return 2 + feature.vocabulary.index(value) if known else 0


def padded_row_of(feature, value):
    """As `row_of`, with the missing value first and the unknown one after it."""
    return {0: 1, 1: 0}.get(row_of(feature, value), row_of(feature, value))


def row_numbers(feature):
    column = ROWS[feature.name][:, 0].tolist()
    return [row_of(feature, value) for value in column]


def size(feature):
    if isinstance(feature, Bucketized):
        return len(feature.boundaries) + 2
    return (
        feature.hash_bins if isinstance(feature, Cross) else 2 + len(feature.vocabulary)
    )


def joint(model, name, group, rows):
    """Embeddings of several features in one table."""
    table = model.get_layer(name).get_weights()[0]
    columns = []
    for feature in group:
        columns.append(table[: size(feature)][rows[feature.name, type(feature)]])
        table = table[size(feature) :]
    assert len(table) == 0
    return np.concatenate(columns, axis=1)


def expected_encoding(features, model):
    by_name = {(f.name, type(f)): f for f in features}
    rows = {
        key: row_numbers(feature)
        for key, feature in by_name.items()
        if key[1] in (Categorical, Bucketized)
    }
    job, age = by_name["job", Categorical], by_name["age", Bucketized]
    crossed = np.array([rows["job", Categorical], rows["age", Bucketized]]).T
    rows["job_age", Cross] = [int(b) for b in HashedCross(7)(crossed)[:, 0]]
    numeric = [
        standardized(f, ROWS[f.name])
        for width in (1, 2)
        for f in features
        if isinstance(f, Numeric) and f.width == width
    ]
    of_two = [joint(model, "embedding_2", [by_name["city", Categorical]], rows)]
    table = model.get_layer("video_table").get_weights()[0]
    for name in ("video", "next"):
        of_two.append(table[rows[name, Categorical]])
    of_three = [job, age, by_name["id", Categorical], by_name["job_age", Cross]]
    of_five = [
        joint(model, "embedding_5", [by_name["pay", Bucketized]], rows),
        joint(model, "embedding_5_2", [by_name["started", Categorical]], rows),
    ]
    tags, table = by_name["tags", Sequence], model.get_layer("tags_values_table")
    pooled = np.zeros((4, 5))
    for k, values in enumerate(ROWS["tags"].tolist()):
        known = [padded_row_of(tags, value) for value in values if value]
        if known:
            pooled[k] = table.get_weights()[0][known].mean(axis=0)
    return np.concatenate(
        [
            *numeric,
            *of_two,
            joint(model, "embedding_3", of_three, rows),
            *of_five,
            pooled,
        ],
        axis=1,
    )


def answer(model):
    rows = {name: keras.ops.convert_to_tensor(v.tolist()) for name, v in ROWS.items()}
    return keras.ops.convert_to_numpy(model(rows))


def test_encoding_equals_numpy(features, model):
    np.testing.assert_allclose(
        answer(model), expected_encoding(features, model), rtol=1e-6, atol=1e-6
    )


def test_a_number_that_is_missing_has_the_missing_bucket(tmp_path):
    features = [
        Bucketized("a", units=2, boundaries=(0.0, 2.0), missing=-1),
        Bucketized("b", units=2, boundaries=(0.0,)),
    ]
    inputs, vector = encode(features)
    keras.Model(inputs, vector).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    column = np.array([[np.nan], [-1.0], [-2.0], [1.0]], "f4")
    found = loaded.predict({"a": column, "b": column}, verbose=0)
    a, b = found[:, :2], found[:, 2:]
    np.testing.assert_array_equal(a[1], a[0])
    assert len(np.unique(a, axis=0)) == len(np.unique(b, axis=0)) == 3
    np.testing.assert_array_equal(b[1], b[2])


def test_one_input_per_column(model):
    assert set(model.input) == set(TRAIN)
    assert model.input["job"].dtype == "string"
    assert model.input["id"].dtype == "int64"
    assert model.input["pair"].shape == (None, 2)
    assert model.input["tags"].shape == (None, None)


def test_one_table_for_each_kind_of_embedding(model):
    assert {layer.name for layer in model.layers if layer.weights} == {
        "embedding_2",
        "embedding_3",
        "embedding_5",
        "embedding_5_2",
        "tags_values_table",
        "video_table",
    }


def test_initializer_and_regularizer_of_each_feature(features):
    [started] = [f for f in features if f.name == "started"]
    regularized = dataclasses.replace(
        started, regularizer={"class_name": "L2", "config": {"l2": 0.5}}
    )
    inputs, vector = encode([regularized])
    [table] = keras.Model(inputs, vector).weights
    assert not table.numpy().any()
    assert table.regularizer.l2 == 0.5


def test_tables_of_one_seeded_initializer_start_apart():
    seeded = keras.initializers.RandomNormal(seed=3)
    features = [
        Sequence(name, vocabulary=("x", "y"), initializer=seeded) for name in "ab"
    ]
    inputs, vectors = encode_apart(features, ["p_", "q_"])
    tables = [w.numpy() for w in keras.Model(inputs, vectors).weights]
    assert len(tables) == 4
    assert len({table.tobytes() for table in tables}) == 4


def test_apart_shares_look_ups_and_no_weight(features):
    inputs, vectors = encode_apart(features, ["a_", "b_"])
    first, second = (keras.Model(inputs, vector) for vector in vectors)
    assert len(first.weights) == len(second.weights) == 6
    assert not {id(w) for w in first.weights} & {id(w) for w in second.weights}
    assert first.get_layer("job_lookup") is second.get_layer("job_lookup")


@pytest.mark.parametrize("feature", FEATURES[:-1], ids=lambda f: type(f).__name__)
def test_one_feature_alone(feature):
    [feature] = adapt([feature], TRAIN)
    inputs, vector = encode([feature])
    assert list(inputs) == [feature.name]
    assert vector.shape == (None, getattr(feature, "units", feature.width))
    assert vector.dtype == "float32"


def test_keras_file_keeps_vocabulary_and_boundaries(model, tmp_path):
    model.save(tmp_path / "encoding.keras")
    reloaded = keras.saving.load_model(tmp_path / "encoding.keras", safe_mode=True)
    np.testing.assert_array_equal(answer(reloaded), answer(model))


def test_interactions_follow_each_other(features):
    _, vector = encode(features)
    width = vector.shape[1]
    cross = keras_rs.layers.FeatureCross(name="mine")
    encoder = Encoder(features, [cross, keras.layers.Dense(3)])
    inputs, vector = encode(encoder)
    model = keras.Model(inputs, vector)
    assert vector.shape == (None, 3)
    assert model.get_layer("interaction_1").weights[0].shape == (width, width)
    assert not cross.built  # a copy was called
    [first, second] = encode_apart(encoder, ["a_", "b_"])[1]
    assert first.shape == second.shape == (None, 3)


def test_interactions_of_fields(features, model):
    dot = keras_rs.layers.DotInteraction()
    inputs, vector = encode(Encoder(features, [OfFields(dot, units=3)]))
    interacting = keras.Model(inputs, vector)
    interacting.set_weights(model.get_weights())
    plain, got = answer(model), answer(interacting)
    np.testing.assert_array_equal(got[:, : plain.shape[1]], plain)
    start = 2 + 2 + 3 * 2  # numbers, and fields of width 2
    fields = plain[:, start : start + 12].reshape(4, 4, 3)
    products = np.einsum("bid,bjd->bij", fields, fields)
    below = np.tril_indices(4, -1)
    np.testing.assert_allclose(
        got[:, plain.shape[1] :], products[:, *below], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("units", [None, 4])
def test_fields_of_no_one_width(features, units):
    dot = keras_rs.layers.DotInteraction()
    with pytest.raises(ValueError) as error:
        encode(Encoder(features, [OfFields(dot, units)]))
    assert str(error.value) == (
        "`units` of OfFields should be the width of some embedded features, and may be "
        f"left out where all have one width. Received: units={units}, widths=[2, 3, 5]"
    )


def test_an_interaction_gives_a_vector(features):
    with pytest.raises(ValueError) as error:
        encode(Encoder(features, [keras.layers.Reshape((-1, 1))]))
    assert "`interactions` should give a vector of shape (batch, d)." in str(
        error.value
    )


@pytest.mark.parametrize("interaction", ["relu", OfFields(keras.ops.relu)])
def test_refused_interactions(features, interaction):
    with pytest.raises(ValueError, match="`interactions` should be Keras layers"):
        Encoder(features, [interaction])


def test_refused_gates(features):
    with pytest.raises(ValueError, match="`hard_concrete` should be a dict"):
        Encoder(features, hard_concrete=1e-3)


def test_one_gate_for_each_field(features, model):
    inputs, vector = encode(Encoder(features, hard_concrete={"l0": 0.25, "seed": 1}))
    gated = keras.Model(inputs, vector)
    gates = [layer for layer in gated.layers if isinstance(layer, FieldGate)]
    assert sorted(name for gate in gates for name in gate.fields) == sorted(
        feature.name for feature in features
    )
    first, second = (gate.gate.theta.numpy() for gate in gates[:2])
    assert not np.array_equal(first[:2], second[:2])  # seeds of their own
    tables = iter(model.get_weights())
    for weight in gated.weights:
        if weight.name in ("embeddings",):
            weight.assign(next(tables))
    for gate in gates:
        gate.gate.set_log_alpha([4.0 if k else -4.0 for k in range(len(gate.fields))])
    plain, got = answer(model), answer(gated)
    closed = {0, 2, 3, 4, 5, 10, 11, 12, 22, 23, 24, 25, 26}
    for column in range(plain.shape[1]):
        expected = 0 if column in closed else plain[:, column]
        np.testing.assert_allclose(got[:, column], expected, rtol=1e-6)
