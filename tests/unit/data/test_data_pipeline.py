"""Batches: every row once, another order in every epoch, the same for a seed."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tfmtl.data import batches

NUM_ROWS = 103


def _columns():
    number = np.arange(NUM_ROWS, dtype=np.float32)
    text = [f"row {i}".encode() for i in range(NUM_ROWS)]
    features = {
        "number": number,
        "fixed": np.array(text),
        "object": np.array(text, dtype=object),
        "unicode": np.array([t.decode() for t in text], dtype=object),
        "vector": np.stack([number, -number], axis=1),
    }
    return features, {"label": number[:, None]}


def _epoch(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([y["label"][:, 0] for _, y in dataset.as_numpy_iterator()])


def test_without_shuffle_keeps_the_order():
    dataset = batches(*_columns(), 10)
    for _ in range(2):
        np.testing.assert_array_equal(_epoch(dataset), np.arange(NUM_ROWS))


@pytest.mark.parametrize("batch_size", [1, 10, NUM_ROWS, 500])
def test_shuffle_gives_every_row_once_per_epoch(batch_size):
    dataset = batches(*_columns(), batch_size, shuffle=True)
    for _ in range(3):
        np.testing.assert_array_equal(np.sort(_epoch(dataset)), np.arange(NUM_ROWS))


def test_shuffle_gives_another_order_in_every_epoch():
    dataset = batches(*_columns(), 10, shuffle=True)
    epochs = [_epoch(dataset) for _ in range(3)] + [np.arange(NUM_ROWS)]
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_repeat_reshuffles():
    epochs = _epoch(batches(*_columns(), 10, shuffle=True).repeat(2))
    first, second = epochs[:NUM_ROWS], epochs[NUM_ROWS:]
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    assert np.any(first != second)


def test_same_seed_same_epochs():
    first = batches(*_columns(), 10, shuffle=True, seed=7)
    second = batches(*_columns(), 10, shuffle=True, seed=7)
    for _ in range(3):
        np.testing.assert_array_equal(_epoch(first), _epoch(second))


def test_another_seed_another_order():
    first = _epoch(batches(*_columns(), 10, shuffle=True, seed=1))
    second = _epoch(batches(*_columns(), 10, shuffle=True, seed=2))
    assert np.any(first != second)


def test_columns_stay_in_step():
    for x, y in batches(*_columns(), 10, shuffle=True).as_numpy_iterator():
        rows = y["label"][:, 0]
        text = [b"row %d" % row for row in rows]
        np.testing.assert_array_equal(x["number"], rows)
        np.testing.assert_array_equal(x["vector"], np.stack([rows, -rows], axis=1))
        for name in ("fixed", "object", "unicode"):
            assert x[name].tolist() == text


@pytest.mark.parametrize("shuffle", [False, True])
def test_last_batch_and_cardinality(shuffle):
    dataset = batches(*_columns(), 10, shuffle=shuffle)
    assert [len(y["label"]) for _, y in dataset] == [10] * 10 + [3]
    assert dataset.cardinality() == 11


@pytest.mark.parametrize("shuffle", [False, True])
def test_drop_remainder_makes_the_batch_size_static(shuffle):
    dataset = batches(*_columns(), 10, shuffle=shuffle, drop_remainder=True)
    assert [len(y["label"]) for _, y in dataset] == [10] * 10
    assert dataset.cardinality() == 10
    assert dataset.element_spec[0]["vector"].shape == (10, 2)


@pytest.mark.parametrize(
    ("features", "labels", "batch_size", "message"),
    [
        (
            {"x": np.ones(3)},
            {},
            0,
            "`batch_size` should be a positive integer. Received: batch_size=0",
        ),
        ({}, {}, 2, "`features` should have at least one column. Received: {}"),
        (
            {"x": np.ones(0)},
            {},
            2,
            "`features` should have at least one row. Received: 0 rows",
        ),
        (
            {"x": np.ones(3)},
            {"y": np.ones(4)},
            2,
            "`features` and `labels` should have the same number of rows in every "
            "column. Received: {'x': 3, 'label y': 4}",
        ),
    ],
)
def test_errors_say_what_came(features, labels, batch_size, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        batches(features, labels, batch_size)


@pytest.mark.parametrize("text", ["a", b"a"])
@pytest.mark.parametrize("first", [False, True])
def test_none_among_strings_is_empty(text, first):
    column = np.array([None, text] if first else [text, None], object)
    nothing = np.array([None, None], object)
    [(columns, _)] = batches({"c": column, "n": nothing}, {"y": np.ones(2)}, 2)
    assert columns["c"].numpy().tolist() == ([b"", b"a"] if first else [b"a", b""])
    assert columns["n"].numpy().tolist() == [b"", b""]
    assert column.tolist().count(None) == 1  # the caller's own is as it was
