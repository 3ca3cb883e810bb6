"""Rows: checked, generated, repeated."""

import keras
import numpy as np
import pytest

from tfmtl.serving.rows import coerce, generate, repeat
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
        ("item", [1, 2], "the same number of rows"),
        ("item", 1, "the same number of rows"),
    ],
)
def test_coerce_refuses(infos, rows, name, value, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        coerce({**rows, name: value}, infos)


def test_generated_rows_fit_and_repeat(model, infos):
    first, second = (generate(model.input, ["at"]) for _ in range(2))
    for name, array in coerce(first, infos).items():
        assert len(array) == 8
        np.testing.assert_array_equal(first[name], second[name])
    assert np.isfinite(first["numbers"]).all()
    assert set(first["item"]) <= {0, 1}


def test_generated_strings_are_known_and_unknown():
    text = keras.Input((20,), dtype="string", name="text")
    texts = set(generate({"text": text}, ["at", "de"])["text"].ravel())
    assert {"at", "de", "unknown", ""} <= texts


def test_unknown_sizes_become_one():
    size = keras.Input((None, 3), name="size")
    assert generate({"size": size}, rows=2)["size"].shape == (2, 1, 3)


def test_repeat():
    repeated = repeat({"x": [1, 2], "y": [[1], [2]]}, 5)
    assert repeated["x"].tolist() == [1, 2, 1, 2, 1]
    assert repeated["y"].shape == (5, 1)
