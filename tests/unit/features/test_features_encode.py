"""The encoding against NumPy, and what it refuses."""

import keras
import numpy as np
import pytest

from tfmtl.features import Bucketized, Categorical, Numeric, adapt, encode

FEATURES = [
    Categorical("job", units=3, min_count=2),
    Numeric("pay", log=True),
    Bucketized("age", units=3, buckets=4),
    Numeric("age"),
    Categorical("city", units=2),
    Numeric("pair", width=2),
    Bucketized("pay", units=5, buckets=8),
]
TRAIN = {
    "job": np.array(["cook", "smith", "cook", "smith", "smith", "rare"])[:, None],
    "city": np.array(["Wien", "Graz", "Linz", "Wien", "Linz", "Wien"])[:, None],
    "pay": np.array([0.0, -50.0, 1e6, 3.0, np.nan, 7.0])[:, None],
    "age": np.array([20.0, 30.0, 30.0, 45.0, 70.0, np.inf])[:, None],
    "pair": np.arange(12.0).reshape(6, 2),
}
ROWS = {
    "job": np.array([["smith"], ["rare"], ["cook"], [""]]),
    "city": np.array([["Linz"], ["wien"], ["Wien"], ["[UNK]"]]),
    "pay": np.array([[np.nan], [1e30], [-np.inf], [7.0]], "f4"),
    "age": np.array([[30.0], [29.9], [np.nan], [1e9]], "f4"),
    "pair": np.array([[0, 1], [np.inf, 1], [2, np.nan], [4, 4]], "f4"),
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
    values = column.astype("f8")
    if feature.log:
        values = np.sign(values) * np.log1p(np.abs(values))
    return np.where(np.isfinite(column), (values - feature.mean) / feature.std, 0)


def row_of(feature, value):
    """The embedding's row for one value."""
    if isinstance(feature, Categorical):
        known = value in feature.vocabulary
        return 1 + feature.vocabulary.index(value) if known else 0
    if not np.isfinite(value):
        return 0
    return 1 + sum(value >= boundary for boundary in feature.boundaries)


def embedded(features, model, units):
    group = [f for f in features if getattr(f, "units", None) == units]
    group.sort(key=lambda feature: isinstance(feature, Bucketized))
    table = model.get_layer(f"embedding_{units}").get_weights()[0]
    columns = []
    for feature in group:
        ids = [row_of(feature, value) for value in ROWS[feature.name][:, 0]]
        columns.append(table[: feature.rows][ids])
        table = table[feature.rows :]
    assert len(table) == 0
    return np.concatenate(columns, axis=1)


def test_encoding_equals_numpy(features, model):
    numeric = [f for f in features if isinstance(f, Numeric)]
    expected = np.concatenate(
        [
            *(standardized(feature, ROWS[feature.name]) for feature in numeric),
            *(embedded(features, model, units) for units in (2, 3, 5)),
        ],
        axis=1,
    )
    rows = {name: keras.ops.convert_to_tensor(v.tolist()) for name, v in ROWS.items()}
    got = keras.ops.convert_to_numpy(model(rows))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_one_input_per_column(model):
    assert set(model.input) == set(TRAIN)
    assert model.input["job"].dtype == "string"
    assert model.input["pair"].shape == (None, 2)


def test_equal_widths_share_one_table(features, model):
    tables = [tuple(w.shape) for w in model.weights]
    rows = {2: 0, 3: 0, 5: 0}
    for feature in features:
        if not isinstance(feature, Numeric):
            rows[feature.units] += feature.rows
    assert sorted(tables) == sorted((count, units) for units, count in rows.items())


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f"{type(f).__name__}")
def test_one_feature_alone(feature):
    [feature] = adapt([feature], TRAIN)
    inputs, vector = encode([feature])
    assert list(inputs) == [feature.name]
    assert vector.shape == (None, getattr(feature, "units", feature.width))
    assert vector.dtype == "float32"


def test_keras_file_keeps_vocabulary_and_boundaries(model, tmp_path):
    model.save(tmp_path / "encoding.keras")
    reloaded = keras.saving.load_model(tmp_path / "encoding.keras", safe_mode=True)
    rows = {name: keras.ops.convert_to_tensor(v.tolist()) for name, v in ROWS.items()}
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(reloaded(rows)),
        keras.ops.convert_to_numpy(model(rows)),
    )


def test_not_adapted():
    with pytest.raises(ValueError) as error:
        encode([Numeric("a", mean=(0.0,), std=(1.0,)), Categorical("b")])
    assert str(error.value) == (
        "`features` should be adapted to data: call `tfmtl.features.adapt`. "
        "Received: not adapted=['b']"
    )


@pytest.mark.parametrize("kinds", [[], [("a", "Numeric"), ("a", "Numeric")]])
def test_none_or_twice(kinds):
    with pytest.raises(ValueError) as error:
        encode([Numeric(name) for name, _ in kinds])
    assert str(error.value) == (
        "`features` should be one or more features, each column once per kind. "
        f"Received: {kinds}"
    )


def test_one_column_of_two_types():
    features = [
        Numeric("a", mean=(0.0,), std=(1.0,)),
        Categorical("a", vocabulary=("x",)),
    ]
    with pytest.raises(ValueError) as error:
        encode(features)
    assert str(error.value) == (
        "`features` of one column should have one type and width. Received: "
        "'a' as ('float32', 1) and as ('string', 1)"
    )
