"""What a model is given, however it comes: checked, named, and trained on after all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import balancing, models
from tfmtl.features import Categorical, Numeric
from tfmtl.tasks import Binary, LogNormal, MultiClass, MultiLabel, Regression

FEATURES = [
    Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
    Categorical("s", vocabulary=("a", "b")),
]
X = {"x": np.ones((8, 3), "f4"), "s": np.resize(["a", "b", "", "c"], (8, 1))}
Y = {"a": np.ones(8, "f4"), "b": np.arange(8.0)}


class Batches(keras.utils.PyDataset):
    """One batch, three times."""

    def __init__(self, x, y):
        super().__init__()
        self.batch = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.batch


def tensors(x):
    """Columns whose strings are tensors, as a `PyDataset` needs them."""
    return {
        name: tf.constant(column) if column.dtype.kind in "US" else column
        for name, column in x.items()
    }


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def generator(x, y):
    while True:
        yield x, y


FIT = {"shuffle": False, "verbose": 0}
WAYS = {  # of giving columns and labels to a model
    "arrays": lambda model, x, y: model.fit(x, y, **FIT),
    "dataset": lambda model, x, y: model.fit(dataset(x, y), **FIT),
    "generator": lambda model, x, y: model.fit(
        generator(x, y), steps_per_epoch=2, **FIT
    ),
    "PyDataset": lambda model, x, y: model.fit(Batches(tensors(x), y), **FIT),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "evaluate": lambda model, x, y: model.evaluate(generator(x, y), steps=2, verbose=0),
    "validation": lambda model, x, y: model.fit(
        X, Y, validation_data=dataset(x, y), **FIT
    ),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "predict": lambda model, x, y: model.predict(generator(x, y), steps=2, verbose=0),
    "predict_on_batch": lambda model, x, y: model.predict_on_batch(x),
    "call": lambda model, x, y: model(x),
}
UNLABELLED = ["predict", "predict_on_batch", "call"]
each_way = pytest.mark.parametrize("way", WAYS)
each_labelled = pytest.mark.parametrize("way", [w for w in WAYS if w not in UNLABELLED])

COLUMNS = {  # that do not fit
    "missing": (
        {"x": X["x"]},
        "`columns` should have the column 's'. Received: columns=['x']",
    ),
    "width": (
        {**X, "x": X["x"][:, :2]},
        "Column 'x' should be numbers of shape (rows, 3). Received: dtype=float32, "
        "shape=",
    ),
    "text": (
        {**X, "x": np.resize(["a"], (8, 3))},
        "Column 'x' should be numbers of shape (rows, 3). Received: dtype=string, "
        "shape=",
    ),
    "number": (
        {**X, "s": np.ones((8, 1))},
        "Column 's' should be strings of shape (rows, 1). Received: dtype=float64, "
        "shape=",
    ),
}
LABELS = {
    "name": (
        {"c": Y["a"]},
        "Labels should be given by name for tasks among ['a', 'b']. "
        "Received: labels=['c']",
    ),
    "width": (
        {"a": np.ones((8, 2))},
        "The label of task 'a' should be of shape (batch, 1). Received: shape=",
    ),
    "text": (
        {"a": np.resize(["0"], 8)},
        "The label of task 'a' should be numbers. Received: dtype=",
    ),
}


TASKS = [Binary("a"), Regression("b")]


def compiled(tasks=TASKS, **arguments):
    keras.utils.set_random_seed(0)
    model = models.shared_bottom(FEATURES, list(tasks), bottom=(4,), tower={"units": 2})
    model.compile(keras.optimizers.SGD(0.1), **arguments)
    return model


def message(function, *arguments):
    with pytest.raises(ValueError) as error:
        function(*arguments)
    return str(error.value)


@each_way
def test_columns_that_do_not_fit(way):
    model = compiled()
    for columns, expected in COLUMNS.values():
        assert message(WAYS[way], model, columns, Y).startswith(expected)
    WAYS[way](model, X, Y)
    for columns, expected in COLUMNS.values():
        assert message(WAYS[way], model, columns, Y).startswith(expected)


@each_labelled
def test_labels_that_do_not_fit_and_then_those_that_do(way):
    model = compiled()
    for labels, expected in LABELS.values():
        assert message(WAYS[way], model, X, labels).startswith(expected)
    WAYS[way](model, X, Y)


@pytest.mark.parametrize("method", [None, balancing.PCGrad()])
def test_a_model_trains_after_a_step_that_failed(method):
    model = compiled(balancing=method)
    weights = {"c": np.ones(8)}
    batches = tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(4)
    for _ in range(2):
        assert message(lambda: model.fit(batches, **FIT)).startswith(
            "`sample_weight` should be a dict by task name, of ['a', 'b']."
        )
    wide = {"x": np.ones((8, 2), "f4"), "s": X["s"]}
    expected = COLUMNS["width"][1]
    assert message(model.train_step, (wide, Y)).startswith(expected)
    model.fit(dataset(X, Y), **FIT)
    assert int(model.optimizer.iterations) == 2


RANGES = [
    (Binary("a"), 2.0, "from 0 to 1"),
    (LogNormal("a"), -3.0, "from 0 to inf"),
    (MultiClass("a", num_classes=3), 3, "from 0 to 2"),
    (MultiLabel("a", num_labels=2), [0.0, -1.0], "from 0 to 1"),
]
each_range = pytest.mark.parametrize("task, label, expected", RANGES)


@each_range
@pytest.mark.parametrize("way", ["dataset", "generator", "PyDataset", "train_on_batch"])
def test_label_that_the_task_cannot_have(task, label, expected, way):
    model = compiled([task])
    before = model.get_weights()
    labels = {"a": np.stack([np.ones_like(label)] * 2 + [label] * 6)}
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as error:
        WAYS[way](model, X, labels)
    found = f"The label of task 'a' should be {expected}, or missing. Received: from"
    assert found in str(error.value).replace("\\", "")
    for weight, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)
    WAYS[way](model, X, {"a": np.stack([np.ones_like(label)] * 8)})


def test_labels_of_a_dataset_that_are_missing_or_exist_elsewhere():
    tasks = [Binary("a", missing=-1.0), Binary("b", where="a"), Regression("c")]
    labels = {
        "a": np.resize([-1, 0, 1], 8),
        "b": np.where(np.resize([-1, 0, 1], 8) == 1, 1.0, 7.0),
        "c": np.full(8, -9.0),
    }
    whole = tf.data.Dataset.from_tensor_slices((X, labels)).batch(4).repeat(2)
    history = compiled(tasks).fit(whole, validation_data=whole, **FIT).history
    assert np.isfinite([*history["loss"], *history["val_loss"]]).all()
    nan = {"a": np.full(8, np.nan)}
    compiled([Binary("a")]).fit(dataset(X, nan), **FIT)


def test_no_string_among_strings_is_missing():
    model = compiled()
    s = np.array(["a", None, np.nan, b"b", float("nan"), "", "c", "a"], object)[:, None]
    empty = np.array(["a", "", "", "b", "", "", "c", "a"])[:, None]
    expected = model.predict({**X, "s": empty}, verbose=0)
    for given in ({**X, "s": s}, generator({**X, "s": s}, Y)):
        found = model.predict(given, steps=1, verbose=0)
        for name, y in expected.items():
            np.testing.assert_allclose(found[name][:8], y, rtol=1e-6)
    model.fit({**X, "s": s}, Y, **FIT)
    s[3] = 3
    assert message(model.predict, {**X, "s": s}) == (
        "Column 's' should hold values of type str. Received: 3"
    )


def test_strings_of_a_py_dataset():
    assert message(compiled().fit, Batches(X, Y)) == (
        "Column 's' of a PyDataset should be a tensor, as strings are there: use "
        "`keras.ops.convert_to_tensor(…, 'string')`. Received: an array, dtype=<U1"
    )
