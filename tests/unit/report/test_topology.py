import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tfmtl.features import Numeric
from tfmtl.folding import fold
from tfmtl.layers import Experts, Mixture, SoftmaxGate, Tower
from tfmtl.models import (
    adatt,
    cross_stitch,
    mmoe,
    ple,
    shared_bottom,
    single_task,
    snr,
)
from tfmtl.report import Edge, Node, draw, drawing, topology
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


def _x():
    return Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)


def _layers(width=4):
    return [keras.layers.Dense(width), keras.layers.Dense(width, "tanh")]


def _names(found):
    """Per column, the layers that stand in it, from above."""
    return [list(dict.fromkeys(node.layer for node in level)) for level in found.levels]


@pytest.mark.parametrize("prepare", [lambda model: model, fold])
def test_parallel_levels_share_a_column(prepare):
    tasks = [Binary("b"), Binary("a"), Binary("c")]
    found = topology(prepare(single_task([_x()], tasks, bottom=4)))
    bottoms = ["task_b_bottom", "task_a_bottom", "task_c_bottom"]
    assert _names(found) == [bottoms, ["b", "a", "c"]]
    found = topology(prepare(adatt([_x()], tasks, specific=2, levels=[4, 4])))
    assert _names(found) == [
        ["level_1_experts"],
        ["level_1_mixture", "level_1_residual"],
        ["level_2_experts"],
        ["level_2_mixture", "level_2_residual"],
        ["b", "a", "c"],
    ]


def test_a_level_without_an_open_connection_stays_in_its_column(model):
    _open(model, "level_2", np.zeros((2, 3)))
    names = [["level_1"], ["level_2"], ["task_routing"], ["a", "b"]]
    assert _names(topology(model)) == names


def _residual(take):
    """AdaTT with the experts' stack itself as the residual."""
    inputs = keras.Input((3,), name="x")
    stack = Experts(3, 4, name="experts")(inputs)
    weights = SoftmaxGate(2, 3, name="gate")(inputs)
    mixed = Mixture(name="mixture")([stack, weights])
    summed = keras.layers.Add(name="sum")([mixed, take(stack)])
    streams = keras.ops.unstack(summed, 2, axis=1)
    towers = zip("ab", streams, strict=True)
    outputs = {name: Tower(name=f"{name}_tower")(stream) for name, stream in towers}
    return keras.Model({"x": inputs}, outputs)


@pytest.mark.parametrize("prepare", [lambda model: model, fold])
def test_a_residual_may_be_the_stack_of_experts(prepare):
    found = topology(prepare(_residual(lambda stack: stack[:, :2])))
    assert _names(found) == [["experts"], ["mixture"], ["a", "b"]]
    assert len(found.edges) == 6 + 2 + 2
    for k, task in enumerate("ab"):
        assert Edge(Node("experts", k), Node(task, 0), 1.0) in found.edges


@pytest.mark.parametrize("prepare", [lambda model: model, fold])
def test_experts_given_as_layers_are_sub_networks(prepare):
    tasks = [Binary("a"), Binary("b")]
    found = topology(prepare(mmoe([_x()], tasks, _layers(), levels=[4, 4])))
    columns = [
        ["level_1_1", "level_1_2"],
        ["level_2_mixture"],
        ["level_2_1", "level_2_2"],
        ["task_mixture"],
        ["a", "b"],
    ]
    assert _names(found) == columns
    assert [edge for edge in found.edges if edge.target.layer == "level_2_2"] == [
        Edge(Node("level_2_mixture", 1), Node("level_2_2", 0), 1.0)
    ]
    assert set().union(*found.levels) == found.live

    found = topology(prepare(ple([_x()], tasks, _layers(), shared=1, levels=[4])))
    own = [f"level_1_experts_{k}_{e}" for k in (1, 2) for e in (1, 2)]
    columns = [[*own, "level_1_experts_3"], ["level_1_mixture"], ["a", "b"]]
    assert _names(found) == columns
    reads = {
        edge.source.layer
        for edge in found.edges
        if edge.target == Node("level_1_mixture", 1)
    }
    assert reads == {*own[2:], "level_1_experts_3"}

    found = topology(prepare(cross_stitch([_x()], tasks, [4], streams=_layers())))
    columns = [["level_1_1", "level_1_2"], ["level_1_stitch"], ["a", "b"]]
    assert _names(found) == columns


@pytest.mark.parametrize("prepare", [lambda model: model, fold])
def test_a_bottom_given_as_a_layer_is_a_sub_network(prepare):
    tasks, bottom = [Binary("a"), Binary("b")], keras.layers.Dense(8)
    found = topology(prepare(shared_bottom([_x()], tasks, bottom)))
    assert _names(found) == [["level_1_1"], ["a", "b"]]
    found = topology(prepare(single_task([_x()], tasks, bottom)))
    assert _names(found) == [["task_a_bottom_1", "task_b_bottom_1"], ["a", "b"]]


def test_layers_that_snr_closes_are_not_in_the_folded_picture():
    tasks = [Binary("a"), Binary("b")]
    first = [*_layers(), keras.layers.Dense(4, "relu")]
    model = snr([_x()], tasks, levels=[(first, 4), (_layers(), 4)])
    _open(model, "level_2", [[1, 1, 0], [0, 0, 0]])
    _open(model, "task_routing", [[1, 1], [1, 0]])
    found = topology(model)
    assert _names(found) == [
        ["level_1_1", "level_1_2", "level_1_3"],
        ["level_2"],
        ["level_2_expert_1", "level_2_expert_2"],
        ["task_routing"],
        ["a", "b"],
    ]
    assert set().union(*found.levels) - found.live == {Node("level_1_3", 0)}
    assert found.constant == {Node("level_2", 1), Node("level_2_expert_2", 0)}
    assert _names(topology(fold(model))) == [
        ["level_1_1", "level_1_2"],
        ["level_2"],
        ["level_2_expert_1"],
        ["task_routing"],
        ["a", "b"],
    ]


def test_an_expert_of_several_layers_has_the_name_of_the_whole():
    deep = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(4)])
    model = ple([_x()], [Binary("a"), Binary("b")], [deep], [deep], levels=[4])
    inputs = keras.Input((3,), name="x")
    inside = keras.Model({"x": inputs}, model({"x": inputs}))
    experts = [f"level_1_experts_{k}_1" for k in (1, 2, 3)]
    for each in (model, inside):
        assert _names(topology(each)) == [experts, ["level_1_mixture"], ["a", "b"]]
    sizes = [len(level) for level in topology(fold(model)).levels]
    assert sizes == [3, 2, 2]


def test_a_layer_that_is_stacked_twice_has_two_nodes():
    inputs = {name: keras.Input((3,), name=name) for name in ("x", "y")}
    shared = keras.layers.Dense(4, name="shared")
    stack = keras.ops.stack([shared(x) for x in inputs.values()], axis=1)
    mixed = Experts(1, 2, slots=[1], name="experts")(stack)
    found = topology(keras.Model(inputs, {"a": mixed[:, 0]}))
    assert found.levels[0] == [Node("shared", 0), Node("shared", 1)]
    [edge] = [edge for edge in found.edges if edge.target.layer == "experts"]
    assert edge.source in found.live
    assert len(found.live) == 3


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a model and returns the figure."""
    figures = []

    def figure(**arguments):
        figures.append(Figure(**arguments))
        return figures[-1]

    def draw_figure(model):
        draw(topology(model), tmp_path / "picture.png", "title")
        return figures[-1]

    monkeypatch.setattr(drawing, "Figure", figure)
    return draw_figure


@pytest.mark.parametrize(
    "make",
    [
        lambda tasks: single_task([_x()], tasks),
        lambda tasks: adatt([_x()], tasks, specific=2, shared=1, levels=[4, 4]),
        lambda tasks: adatt([_x()], tasks, specific=1, levels=[4, 4]),
        lambda tasks: ple([_x()], tasks, _layers(), shared=1, levels=[4, 4]),
        lambda tasks: mmoe([_x()], tasks, _layers(), levels=[4, 4]),
        lambda tasks: _residual(lambda stack: stack[:, :2]),
    ],
)
def test_nothing_is_drawn_over_a_node_or_a_label(drawn, make):
    figure = drawn(make([Binary("a"), Binary("b"), Binary("c")]))
    [axes] = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
    lines = [line.get_xydata() for line in axes.lines]
    nodes = [tuple(line[0]) for line in lines if len(line) == 1]
    for line in lines:
        for x in np.arange(line[0, 0] + 1, line[-1, 0]):
            y = np.interp(x, *line.T)
            assert not any(np.hypot(x - a, y - b) < 0.3 for a, b in nodes)
            place = axes.transData.transform((x, y))
            assert not any(box.contains(*place) for box in boxes)


def test_levels_of_a_column_are_labelled_one_by_one(drawn):
    tasks = [Binary("a"), Binary("b")]
    figure = drawn(adatt([_x()], tasks, specific=2, levels=[4]))
    places = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    (x, above), (same, below) = places["level 1 mixture"], places["level 1 residual"]
    assert x == same and above > below
