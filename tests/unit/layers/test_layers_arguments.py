"""Arguments that several layers take: refused at once, in one voice."""

import keras
import numpy as np
import pytest

from tfmtl import layers


def message(make, *args, **kwargs):
    with pytest.raises(ValueError) as error:
        make(*args, **kwargs)
    return str(error.value)


# Arguments of a gate


GATED = {
    "softmax": (lambda **gate: layers.SoftmaxGate(2, 3, **gate), "reads, shape"),
    "routing": (lambda **gate: layers.SubNetworkRouting(2, 3, **gate), "shape"),
    "fields": (lambda **gate: layers.FieldGate(["a"], **gate), "shape"),
}
each_gated = pytest.mark.parametrize("kind", GATED)


@each_gated
@pytest.mark.parametrize(
    "given", [{"shape": (3,)}, {"name": "own"}, {"l0": 0.5, "dtype": "float32"}, 3, []]
)
def test_refused_arguments_of_a_gate(kind, given):
    make, taken = GATED[kind]
    assert message(make, hard_concrete=given) == (
        f"`hard_concrete` should be a dict of arguments, without {taken}, name, dtype, "
        f"which are set already. Received: hard_concrete={given!r}"
    )


def test_pairs_of_a_gate_are_those_that_are_read():
    assert "`hard_concrete` should be a dict of arguments, without reads" in message(
        layers.SoftmaxGate, 2, 3, hard_concrete={"reads": [[1, 1, 1]] * 2}
    )


@each_gated
def test_arguments_of_a_gate_are_copied(kind):
    given = {"l0": 0.5}
    layer = GATED[kind][0](hard_concrete=given)
    given["l0"] = 2.0
    assert layer.hard_concrete == {"l0": 0.5}


# Which pairs there are


SHAPES = [
    5,
    "ab",
    [1, 0],
    [[1, 0, 1], [1]],
    [[1, 0, 1]],
    [[1, 0, 1]] * 3,
    np.ones((2, 3, 1)),
    [],
]


@pytest.mark.parametrize("reads", SHAPES, ids=str)
@pytest.mark.parametrize("gate", [layers.SoftmaxGate, layers.DSelectKGate])
def test_refused_shapes_of_pairs(gate, reads):
    assert message(gate, 2, 3, reads=reads) == (
        f"`reads` should be booleans of shape (2, 3). Received: reads={reads!r}"
    )


@pytest.mark.parametrize("gate", [layers.SoftmaxGate, layers.DSelectKGate])
def test_refused_row_without_a_pair(gate):
    reads = [[True, False], [False, False]]
    assert message(gate, 2, 2, reads=reads) == (
        f"`reads` should have a true one in every row. Received: {reads=}"
    )


@pytest.mark.parametrize("reads", SHAPES, ids=str)
def test_refused_shapes_of_a_static_mixture(reads):
    assert message(layers.StaticMixture, 2, reads) == (
        f"`reads` should be booleans of shape (2, None). Received: reads={reads!r}"
    )


def test_static_mixture_refuses_another_number_of_slots():
    layer = layers.StaticMixture(2, np.array([[1, 0, 1], [0, 0, 0]]))
    assert message(layer.build, (None, 2, 5)) == (
        "`reads` should be booleans of shape (2, 2). Received: "
        "reads=[[True, False, True], [False, False, False]]"
    )


# Numbers


@pytest.mark.parametrize("dropout", [None, "a", 1, -0.1, np.nan, [0.5], True])
@pytest.mark.parametrize(
    "make",
    [
        lambda **given: layers.Experts(2, 3, **given),
        lambda **given: layers.SoftmaxGate(2, 3, **given),
        lambda **given: layers.PositionBias(3, **given),
        layers.Tower,
    ],
    ids=["Experts", "SoftmaxGate", "PositionBias", "Tower"],
)
def test_refused_dropout(make, dropout):
    assert message(make, dropout=dropout) == (
        f"`dropout` should be at least 0 and less than 1. Received: dropout={dropout!r}"
    )


@pytest.mark.parametrize("slots", [3, "ab", [0], [0, 1, 1], [0, 0.5], [0, None]])
def test_refused_slots(slots):
    assert message(layers.Experts, 2, 3, slots=slots) == (
        "`slots` should be one input slot for each of 2 experts. "
        f"Received: slots={slots!r}"
    )


@pytest.mark.parametrize("units", ["ab", None, 2.5])
@pytest.mark.parametrize("make", [lambda units: layers.Experts(2, units), layers.Tower])
def test_refused_widths(make, units):
    assert message(make, units) == (
        f"`units` should be a positive integer. Received: units={units!r}"
    )


def test_numbers_of_numpy():
    layer = layers.Experts(
        np.int64(2),
        np.array([4, 3]),
        dropout=np.float32(0.25),
        slots=np.array([1, 0]),
    )
    config = layer.get_config()
    assert (config["units"], config["slots"]) == ((4, 3), [1, 0])
    assert config["dropout"] == 0.25
    assert layers.Experts.from_config(config).get_config() == config


# Inputs


@pytest.mark.parametrize(
    "name, layer", [("Experts", lambda: layers.Experts(2, 3)), ("Tower", layers.Tower)]
)
@pytest.mark.parametrize("several", [False, True])
def test_refused_inputs(name, layer, several):
    x = [keras.Input((3,))] * 2 if several else keras.Input((None,))
    received = [(None, 3)] * 2 if several else (None, None)
    assert message(layer(), x) == (
        f"{name} should be called on one tensor of known width. "
        f"Received: shape={received}"
    )
