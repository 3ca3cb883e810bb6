"""Raw columns: what fits a model and what does not, and filling up."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl.features import Categorical, Encoder, Numeric, Sequence, check_columns, pad

FEATURES = [
    Numeric("n"),
    Numeric("wide", width=3),
    Categorical("s"),
    Categorical("i", dtype="int64"),
    Sequence("q"),
]
GOOD = {
    "n": np.ones(4),
    "wide": np.ones((4, 3), "int32"),
    "s": np.array(["a", "b", "", "c"]),
    "i": np.arange(4)[:, None],
    "q": np.array([["a", ""]] * 4),
}
INPUTS = {
    "n": keras.Input((1,)),
    "wide": keras.Input((3,)),
    "s": keras.Input((1,), dtype="string"),
    "i": keras.Input((1,), dtype="int64"),
    "q": keras.Input((None,), dtype="string"),
}


def tensors(columns):
    return {name: tf.constant(column) for name, column in columns.items()}


@pytest.mark.parametrize("inputs", [FEATURES, Encoder(FEATURES), INPUTS])
@pytest.mark.parametrize(
    "columns",
    [
        GOOD,
        {**GOOD, "unread": None},
        {name: column.tolist() for name, column in GOOD.items()},
        {**GOOD, "s": GOOD["s"].astype("S"), "n": np.array([True] * 4)},
        {**GOOD, "s": GOOD["s"].astype(object)},
        tensors(GOOD),
        tf.data.Dataset.from_tensor_slices(GOOD).batch(3).element_spec,
        {name: tf.TensorSpec(None, tf.constant(c).dtype) for name, c in GOOD.items()},
        {name: keras.ops.convert_to_tensor(c) for name, c in tensors(GOOD).items()},
        INPUTS,
    ],
)
def test_columns_that_fit(inputs, columns):
    check_columns(inputs, columns)


@pytest.mark.parametrize("inputs", [FEATURES, INPUTS])
@pytest.mark.parametrize(
    "name, column, expected, received",
    [
        (
            "n",
            np.array(["a"]),
            "numbers of shape (rows, 1)",
            "dtype=string, shape=(1,)",
        ),
        (
            "n",
            np.ones((4, 2)),
            "numbers of shape (rows, 1)",
            "dtype=float64, shape=(4, 2)",
        ),
        (
            "n",
            np.ones((4, 1, 1)),
            "numbers of shape (rows, 1)",
            "dtype=float64, shape=(4, 1, 1)",
        ),
        (
            "wide",
            tf.TensorSpec((None,), "float32"),
            "numbers of shape (rows, 3)",
            "dtype=float32, shape=(None,)",
        ),
        ("s", np.arange(4), "strings of shape (rows, 1)", "dtype=int64, shape=(4,)"),
        ("i", np.ones(4), "integers of shape (rows, 1)", "dtype=float64, shape=(4,)"),
        (
            "q",
            np.array(["a"]),
            "strings of shape (rows, any length)",
            "dtype=string, shape=(1,)",
        ),
        (
            "q",
            tf.ragged.constant([["a"], []]),
            "strings of shape (rows, any length): use `tfmtl.features.pad`",
            "a ragged column, shape=(2, None)",
        ),
        (
            "s",
            tf.RaggedTensorSpec((None, None), tf.string),
            "strings of shape (rows, 1)",
            "a ragged column, shape=(None, None)",
        ),
    ],
)
def test_columns_that_do_not(inputs, name, column, expected, received):
    with pytest.raises(ValueError) as error:
        check_columns(inputs, {**GOOD, name: column})
    assert str(error.value) == (
        f"Column {name!r} should be {expected}. Received: {received}"
    )


def test_missing_column_and_no_dict():
    with pytest.raises(ValueError) as error:
        check_columns(FEATURES[:1], {"m": 1, "a": 2})
    assert str(error.value) == (
        "`columns` should have the column 'n'. Received: columns=['a', 'm']"
    )
    with pytest.raises(ValueError) as error:
        check_columns(FEATURES[:1], np.ones(3))
    assert str(error.value) == (
        "`columns` should be a dict of columns by name. Received: ndarray"
    )


def test_pad_fills_ragged_columns_up():
    columns = {
        "words": tf.ragged.constant([["a"], [], ["b", "c", "d"]]),
        "ids": tf.ragged.constant([[1], [], [2, 3, 4]], dtype=tf.int64),
        "x": tf.constant([1.0, 2.0, 3.0]),
    }
    padded = pad(columns)
    assert padded["words"].numpy().tolist() == [
        [b"a", b"", b""],
        [b"", b"", b""],
        [b"b", b"c", b"d"],
    ]
    assert padded["ids"].numpy().tolist() == [[1, -1, -1], [-1] * 3, [2, 3, 4]]
    assert padded["x"] is columns["x"]
    cut = pad(columns, 2)
    assert cut["ids"].numpy().tolist() == [[1, -1], [-1, -1], [2, 3]]


def test_pad_in_a_dataset():
    ragged = tf.ragged.constant([["a"], [], ["b", "c", "d"]])
    dataset = tf.data.Dataset.from_tensor_slices(({"q": ragged}, [0, 1, 0])).batch(2)
    dataset = dataset.map(lambda x, y: (pad(x), y))
    check_columns([Sequence("q")], dataset.element_spec[0])
    assert [tuple(x["q"].shape) for x, _ in dataset] == [(2, 1), (1, 3)]
