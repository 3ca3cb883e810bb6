"""What is said of a model whose gates did not do what they are for."""

import warnings

import numpy as np
import pytest
from routed import network, rows

from tfmtl.sparsity import L0Ramp, SparsityWarning, findings, gates
from tfmtl.sparsity.reach import Reach


def gated(second, routing):
    model = network()
    for gate, z in zip(gates(model), (second, routing), strict=True):
        gate.set_log_alpha(np.broadcast_to(z, gate.shape))
    return model


def test_nothing_is_closed():
    assert findings(gated(4.0, 4.0)) == [
        "None of the 24 gates is closed: ask for less, or train longer."
    ]


def test_everything_is_closed():
    said = findings(gated(-4.0, -4.0))
    assert said[0] == (
        "All of the 24 gates are closed: ask for more to stay, or raise the pressure "
        "more slowly."
    )
    assert [text.split(" has lost")[0] for text in said[1:]] == [
        "Output 'a'",
        "Output 'b'",
    ]


def test_a_task_that_lost_every_input():
    model = gated(4.0, [[-4.0] * 4, [4.0] * 4])
    said = " ".join(findings(model))
    assert "Output 'a' has lost all of its inputs" in said
    assert "Output 'b' has lost" not in said


def test_sub_networks_that_serve_one_task():
    model = gated(4.0, [[4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, -4.0, 4.0]])
    [of_a, of_b] = findings(model)
    assert of_a.startswith("second[0], second[1] could be shared and serve 'a' alone")
    assert of_b.startswith("second[3] could be shared and serve 'b' alone")


def test_gates_that_never_settle():
    model = gated([[0.0, 0.0, 0.0, 4.0]] * 4, [[4.0, 4.0, 4.0, -4.0]] * 2)
    assert findings(model)[0].startswith("12 of the 24 gates are between")


def test_each_is_a_warning_at_the_end_of_fit():
    model = network()
    model.compile("adam", sparsity=L0Ramp(1e-6))
    with pytest.warns(SparsityWarning, match="Sparsity: None of the 24 gates"):
        model.fit(*rows(64), verbose=0)


def test_no_gates_no_findings():
    model = gated(4.0, 4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert findings(model.get_layer("a_head")) == []


def test_inputs_of_each_task():
    model = gated(4.0, [[4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, -4.0, 4.0]])
    assert Reach(model).inputs_of_outputs() == {"a": 2, "b": 1}


def test_connections_that_pass_nothing_on():
    second = np.full((4, 4), 4.0)
    second[0] = -4.0  # the first is constant
    model = gated(second, [[4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, -4.0, 4.0]])
    found = gates(model)
    of_second, of_routing = Reach(model).passing(found)
    assert of_second.sum(axis=1).tolist() == [0, 4, 0, 4]
    assert of_routing.tolist() == [[False, True, False, False], [False] * 3 + [True]]
