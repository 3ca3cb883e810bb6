"""Arguments that a fold refuses."""

import keras
import numpy as np
import pytest

from tfmtl.folding import fold, with_layers
from tfmtl.layers import Experts

ARRAY = np.ones((2, 3), "f4")


def inputs_of(*names):
    return {name: keras.Input((3,), name=name) for name in names}


def model_of(inputs):
    x = keras.layers.Concatenate()(keras.tree.flatten(inputs))
    return keras.Model(inputs, {"y": Experts(2, 3)(x)[:, 0]})


@pytest.mark.parametrize(
    "rows, text",
    [
        (
            {"x": ARRAY},
            "a dict with the columns ['x', 'z']. Received: the columns ['x']",
        ),
        (ARRAY, "a dict with the columns ['x', 'z']. Received: ndarray"),
        ([ARRAY, ARRAY], "a dict with the columns ['x', 'z']. Received: list"),
    ],
)
def test_rows_of_a_dict(rows, text):
    with pytest.raises(ValueError) as error:
        fold(model_of(inputs_of("x", "z")), rows)
    assert str(error.value) == f"`inputs` should be {text}"


def test_other_columns_are_ignored():
    fold(model_of(inputs_of("x", "z")), {"x": ARRAY, "z": ARRAY, "label": None})


@pytest.mark.parametrize(
    "rows, text",
    [
        ([ARRAY], "Received: list of 1"),
        (ARRAY, "Received: ndarray"),
        ({"x": ARRAY, "z": ARRAY}, "Received: the columns ['x', 'z']"),
    ],
)
def test_rows_of_a_list(rows, text):
    with pytest.raises(ValueError) as error:
        fold(model_of([*inputs_of("x", "z").values()]), rows)
    assert str(error.value) == f"`inputs` should be a list of 2 arrays. {text}"


def test_rows_of_one_input():
    with pytest.raises(ValueError) as error:
        fold(model_of(keras.Input((3,))), {"x": ARRAY})
    assert str(error.value) == (
        "`inputs` should be one array. Received: the columns ['x']"
    )


@pytest.mark.parametrize("tasks", [3, [["y"]], [3], {}])
def test_tasks(tasks):
    with pytest.raises(ValueError, match=r"outputs, of \['y'\]. Received: tasks="):
        fold(model_of(inputs_of("x")), tasks=tasks)


@pytest.mark.parametrize("tolerance", ["a", -1, float("nan"), [0.1]])
def test_tolerance(tolerance):
    with pytest.raises(ValueError) as error:
        fold(model_of(inputs_of("x")), tolerance=tolerance)
    assert str(error.value) == (
        f"`tolerance` should be a number, 0 or more. Received: tolerance={tolerance!r}"
    )


@pytest.mark.parametrize("function", [fold, lambda m: with_layers(m, lambda x: x)])
def test_a_lambda_has_no_copy(function):
    x = keras.Input((3,), name="x")
    doubled = keras.layers.Lambda(lambda x: 2.0 * x, name="doubled")
    model = keras.Model({"x": x}, {"y": Experts(2, 3)(doubled(x))[:, 0]})
    with pytest.raises(ValueError) as error:
        function(model)
    assert str(error.value) == (
        "Layer 'doubled' should be one that its configuration makes again. A Lambda is "
        "none, unless its function is registered by "
        "`keras.saving.register_keras_serializable`: write a subclass of "
        "`keras.layers.Layer` with the function as its `call`. Received: Lambda"
    )


@keras.saving.register_keras_serializable(package="test")
def doubled(x):
    return 2.0 * x


def test_a_lambda_of_a_registered_function_has_one():
    x = keras.Input((3,), name="x")
    y = keras.layers.Lambda(doubled, output_shape=(3,), name="doubled")(x)
    folded = fold(keras.Model({"x": x}, {"y": Experts(2, 3)(y)[:, 0]}))
    assert "doubled" in [layer.name for layer in folded.layers]
