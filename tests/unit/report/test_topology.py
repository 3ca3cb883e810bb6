import keras
import numpy as np
import pytest
from matplotlib.image import imread

from tfmtl.features import Numeric
from tfmtl.folding import fold
from tfmtl.models import adatt, ple, snr
from tfmtl.report import Node, draw, topology
from tfmtl.report.topology import Edge
from tfmtl.tasks import Binary


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    x = Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = snr([x], [Binary("a"), Binary("b")], levels=[(3, 4), (2, 4)], dropout=0.1)
    _open(model, "level_2", [[1, 1, 0], [0, 1, 0]])
    _open(model, "task_routing", [[1, 0], [1, 1]])
    return model


def _open(model, layer, z):
    gate = model.get_layer(layer).gate
    gate.set_log_alpha(np.where(np.array(z) > 0, 4.0, -4.0))


def test_levels_and_edges_are_those_of_the_open_gates(model):
    found = topology(model)
    assert [len(level) for level in found.levels] == [3, 2, 2, 2]
    assert found.levels[-1] == [Node("a", 0), Node("b", 0)]
    edges = {
        (e.source.layer, e.source.slot, e.target.layer, e.target.slot)
        for e in found.edges
    }
    assert edges == {
        ("level_1", 0, "level_2", 0),
        ("level_1", 1, "level_2", 0),
        ("level_1", 1, "level_2", 1),
        ("level_2", 0, "task_routing", 0),
        ("level_2", 0, "task_routing", 1),
        ("level_2", 1, "task_routing", 1),
        ("task_routing", 0, "a", 0),
        ("task_routing", 1, "b", 0),
    }


def test_strength_is_the_gate_times_the_norm_of_its_kernel(model):
    routing = model.get_layer("level_2")
    kernel, z = np.array(routing.kernel), np.array(routing.gate(training=False))
    found = {
        (e.target.slot, e.source.slot): e.strength
        for e in topology(model).edges
        if e.target.layer == "level_2"
    }
    for (i, j), strength in found.items():
        expected = z[i, j] * np.linalg.norm(kernel[j, :, i])
        assert strength == pytest.approx(expected, rel=1e-5)


def test_what_reaches_no_task_is_not_live(model):
    dead = set().union(*topology(model).levels) - topology(model).live
    assert dead == {Node("level_1", 2)}


def test_a_sub_network_without_a_live_input_is_a_constant(model):
    _open(model, "level_2", [[1, 1, 0], [0, 0, 0]])
    assert topology(model).constant == {Node("level_2", 1)}
    _open(model, "task_routing", [[0, 1], [1, 1]])
    assert Node("a", 0) in topology(model).constant


def test_outputs_should_be_named():
    inputs = keras.Input((2,))
    with pytest.raises(ValueError, match="dict of outputs by task name"):
        topology(keras.Model(inputs, inputs))


def test_the_folded_model_has_the_live_part_only(model):
    found = topology(fold(model))
    assert [len(level) for level in found.levels] == [2, 2, 2, 2]
    assert len(found.edges) == len(topology(model).edges)


def test_the_picture_is_written_in_one_step(model, tmp_path):
    path = draw(topology(model), tmp_path / "topology.png", "title")
    assert path == tmp_path / "topology.png"
    picture = imread(path)
    assert picture.std() > 0
    assert [file.name for file in tmp_path.iterdir()] == ["topology.png"]


def test_what_a_gate_reads_reaches_the_task():
    x = Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    tasks = [Binary("a"), Binary("b")]
    model = ple([x], tasks, specific={"a": 1, "b": 0}, shared=2, levels=[4, 4])
    found = topology(model)
    stream = Node("level_1_mixture", 1)  # of b, which has no expert of its own
    [edge] = [edge for edge in found.edges if edge.source == stream]
    assert edge == Edge(stream, Node("level_2_mixture", 1), 1.0, selects=True)
    assert stream in found.live
    passed_on = [edge for edge in found.edges if not edge.selects]
    assert all(edge.source.layer != edge.target.layer for edge in passed_on)
    assert not [e for e in found.edges if e.selects and "level_1" in e.target.layer]


def test_negative_weights_can_be_drawn(tmp_path):
    keras.utils.set_random_seed(0)
    x = Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = adatt([x], [Binary("a"), Binary("b")], specific=2, levels=[4])
    model.get_layer("level_1_residual").z.assign([-1.0, -2.0, -0.5, 0.0])
    assert draw(topology(model), tmp_path / "picture.png").stat().st_size > 10_000
