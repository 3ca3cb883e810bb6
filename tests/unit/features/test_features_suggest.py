"""Features that types and shapes of columns suggest."""

import numpy as np
import pytest
import tensorflow as tf

from tfmtl.features import Categorical, Numeric, Sequence, adapt, encode, suggest

COLUMNS = {
    "age": np.array([30, 40, 50], "f8"),
    "price": np.array([[0.5], [1.0], [2.0]], "f2"),
    "vector": np.zeros((3, 4), "f4"),
    "city": np.array(["a", "b", ""]),
    "job": np.array([[b"x"], [b"y"], [None]], object),
    "item": np.array([[3], [1], [-1]], "i4"),
    "adult": np.array([True, False, True]),
    "tags": np.array([["a", "b"], ["b", ""], ["", ""]]),
    "image": np.zeros((3, 2, 2)),
    "when": np.array(["2020-01-01"] * 3, "M8[D]"),
    "titles": [["p", "q"], ["q", ""], ["", ""]],
}
EXPECTED = [
    Numeric("age"),
    Numeric("price"),
    Numeric("vector", width=4),
    Categorical("city"),
    Categorical("job"),
    Categorical("item", dtype="int64"),
    Categorical("adult", dtype="int64"),
    Sequence("tags", length=2),
    Sequence("titles", length=2),
]


def test_of_arrays():
    assert suggest(COLUMNS) == EXPECTED


@pytest.mark.parametrize("labelled", [False, True])
def test_of_a_dataset(labelled):
    columns = {name: c for name, c in COLUMNS.items() if name not in ("when", "job")}
    dataset = tf.data.Dataset.from_tensor_slices(columns).batch(2)
    if labelled:
        dataset = dataset.map(lambda x: (x, {"click": 1.0}))
    found = suggest(dataset)
    expected = [feature for feature in EXPECTED if feature.name != "job"]
    assert sorted(found, key=lambda f: f.name) == sorted(expected, key=lambda f: f.name)


def test_of_any_length():
    spec = {
        "watched": tf.TensorSpec((None, None), tf.int64),
        "tags": tf.RaggedTensorSpec((None, None), tf.string),
        "levels": tf.TensorSpec((None, None), tf.float32),
    }
    assert suggest(spec) == [Sequence("watched", dtype="int64"), Sequence("tags")]


def test_they_can_be_adapted_and_encoded():
    names = {feature.name for feature in EXPECTED}
    columns = {name: COLUMNS[name] for name in names}
    features = adapt(suggest(columns), columns)
    inputs, vector = encode(features)
    assert set(inputs) == names
    assert vector.shape[1] == 1 + 1 + 4 + 8 * 6


@pytest.mark.parametrize("data", [[1, 2], None, tf.data.Dataset.range(3)])
def test_no_columns(data):
    with pytest.raises(ValueError) as error:
        suggest(data)
    assert str(error.value).startswith(
        "`data` should be a dict of columns, or a dataset of these. Received: "
    )
