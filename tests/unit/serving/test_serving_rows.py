"""Rows: checked, repeated."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.serving.rows import coerce, repeat
from tfmtl.serving.saved_model import read_signature


@pytest.fixture
def infos(exported):
    """The exported signature's inputs."""
    return read_signature(exported.path).inputs


def test_coerce_turns_lists_into_the_types(infos):
    lists = {
        "country": ["de", b"at"],
        "item": [1, 2],
        "numbers": [[1, 2, 3], [4, 5, 6]],
        "unused": [[1], [2]],
    }
    arrays = coerce(lists, infos)
    assert arrays["country"].tolist() == [b"de", b"at"]
    assert arrays["item"].dtype == np.int64
    assert arrays["numbers"].dtype == np.float32
    assert arrays["unused"].dtype == np.int32


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("item", [0.5, 1.0, 2.0], r"`inputs\['item'\]` should be of type int64"),
        ("country", [1, 2, 3], r"`inputs\['country'\]` should hold strings"),
        ("unused", [[1], [2**40], [3]], "should be of type int32. Received: 1099511"),
        ("item", [1, 2], "the same number of rows"),
        ("item", 1, "the same number of rows"),
    ],
)
def test_coerce_refuses(infos, rows, name, value, message):
    with pytest.raises(ValueError, match=message):
        coerce({**rows, name: value}, infos)


def test_repeat():
    repeated = repeat({"x": [1, 2], "y": [[1], [2]]}, 5)
    assert repeated["x"].tolist() == [1, 2, 1, 2, 1]
    assert repeated["y"].shape == (5, 1)


def test_zero_bytes_at_the_end_of_a_text_stay():
    infos = {"x": meta_graph_pb2.TensorInfo(dtype=tf.string.as_datatype_enum)}
    for given in ([b"a\x00", b"\x00\x00"], [["a\x00"], ["\x00\x00"]]):
        found = coerce({"x": given}, infos)["x"].ravel().tolist()
        assert found == [b"a\x00", b"\x00\x00"]
        assert len(repeat({"x": given}, 3)["x"].ravel()[2]) == 2


@pytest.mark.parametrize("value", [None, float("nan"), 3])
def test_what_is_no_text_is_refused(value):
    infos = {"x": meta_graph_pb2.TensorInfo(dtype=tf.string.as_datatype_enum)}
    given = {"x": np.array([["a"], [value]], object)}
    message = rf"`inputs\['x'\]` should hold strings. Received: {value}"
    with pytest.raises(ValueError, match=message):
        coerce(given, infos)
