"""What the proof compares: strings, infinities, and rows of the right structure."""

import keras
import numpy as np
import pytest

from tfmtl.folding import FoldError, fold
from tfmtl.folding.proof import difference, prove
from tfmtl.layers import Experts


def tensor_of(values):
    return {"x": keras.ops.convert_to_tensor(values)}


def model_of(*functions, shape=(2,), dtype="float32"):
    """One model per function of an input x, with the output y."""
    models = []
    for function in functions:
        x = keras.Input(shape, name="x", dtype=dtype)
        models.append(keras.Model({"x": x}, {"y": function(x)}))
    return models


def test_strings_that_pass_through_are_compared():
    inputs = {
        "x": keras.Input((3,), name="x"),
        "id": keras.Input((1,), name="id", dtype="string"),
    }
    outputs = {"a": Experts(2, 3)(inputs["x"])[:, 0], "id": inputs["id"]}
    folded = fold(keras.Model(inputs, outputs))
    assert folded.output["id"].dtype == "string"


def test_other_strings_are_refused():
    same, other = model_of(lambda x: x, lambda x: x[:, ::-1], dtype="string")
    rows = tensor_of([["a", "b"]])
    assert prove(same, same, rows, None) == {"y": 0.0}
    with pytest.raises(FoldError, match="'y' differs by an infinite amount"):
        prove(same, other, rows, None)


def test_no_strings_prove_nothing():
    [same] = model_of(lambda x: x, dtype="string")
    rows = {"x": keras.ops.convert_to_tensor(np.zeros((0, 2), str))}
    with pytest.raises(FoldError, match=r"at least one.*\(0, 2\) with 0 NaN"):
        prove(same, same, rows, None)


def test_equal_infinities_are_equal():
    x = keras.Input((3,), name="x")
    y = keras.ops.log(keras.ops.relu(Experts(2, 3)(x)[:, 0]))
    model = keras.Model({"x": x}, {"y": y})
    rows = {"x": np.random.default_rng(0).normal(size=(64, 3))}
    assert np.isinf(model({"x": rows["x"].astype("f4")})["y"]).any()
    fold(model, rows)  # proves the outputs equal


@pytest.mark.parametrize(
    "value, function",
    [
        (np.inf, keras.ops.negative),
        (np.inf, lambda x: keras.ops.minimum(x, 5.0)),
        (0.0, keras.ops.log),
    ],
)
def test_other_infinities_are_refused(value, function):
    same, other = model_of(lambda x: x, function)
    rows = tensor_of(np.array([[value, 1.0]], "f4"))
    with pytest.raises(FoldError, match="'y' differs by an infinite amount"):
        prove(same, other, rows, None)


def test_a_finite_difference_beside_equal_infinities_counts():
    same, other = model_of(lambda x: x, lambda x: x + 0.5)
    rows = tensor_of(np.array([[np.inf, 10.0]], "f4"))
    assert prove(same, other, rows, 0.1)["y"] == pytest.approx(0.05)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "answer, expected, found",
    [
        ([0.25, 20.0], [0.5, 10.0], 1.0),
        ([INF, -INF, 5.5], [INF, -INF, 5.0], 0.1),
        ([INF], [-INF], INF),
        ([INF], [1.0], INF),
        ([1.0], [INF], INF),
        ([NAN], [NAN], NAN),
        ([NAN, INF], [1.0, INF], NAN),
        ([INF], [NAN], NAN),
        ([[1.0]], [1.0], NAN),
        ([], [], 0.0),
        ([2**60 + 1], [2**60], INF),
        ([True], [True], 0.0),
        (["a"], ["a"], 0.0),
        (["a"], ["b"], INF),
        (np.array([b"a"]), np.array([b"a"], object), 0.0),
    ],
)
def test_difference(answer, expected, found):
    np.testing.assert_equal(difference(answer, expected), found)


def test_nan_in_both_models_proves_nothing():
    [same] = model_of(keras.ops.sqrt)
    rows = tensor_of(np.array([[-1.0, 1.0]], "f4"))
    with pytest.raises(FoldError, match="output 'y' .* with 1 NaN"):
        prove(same, same, rows, None)
