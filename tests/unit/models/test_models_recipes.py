"""What all recipes share: columns in, tasks out, training, folding, refusals."""

import functools

import keras
import keras_rs
import numpy as np
import pytest

from tfmtl import layers, models
from tfmtl.features import Categorical, Numeric, Sequence
from tfmtl.folding import fold, structure
from tfmtl.sparsity import gates
from tfmtl.tasks import Binary, Position, Regression, compile_arguments

FEATURES = [Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)]
COLOUR = Categorical("colour", units=2, vocabulary=("red", "blue"))
SHOWN = Position("shown_at", num_positions=5)
TASKS = [Binary("a", position=SHOWN), Regression("ab"), Binary("shared_x", weight=2.0)]
NAMES = [task.name for task in TASKS]
OWN = {"a": 2, "ab": 1, "shared_x": 0}
RECIPES = {
    "single_task": {"bottom": (4, 3)},
    "shared_bottom": {"bottom": 4},
    "omoe": {"experts": 2, "levels": [4]},
    "mmoe": {"experts": 2, "levels": [4, (3, 4)]},
    "snr": {"levels": [(2, 4), (3, 3)]},
    "snr average": {"kind": "average", "levels": [(2, 4), (3, 4)]},
    "cgc": {"specific": OWN, "shared": 2, "units": 4},
    "ple": {"specific": OWN, "shared": 2, "levels": [4, (3, 4)]},
    "adatt": {"specific": 1, "levels": [4, 3]},
    "adatt shared": {"specific": OWN, "shared": 2, "levels": [4]},
    "cross_stitch": {"levels": [4, 3]},
}
each_recipe = pytest.mark.parametrize("name", RECIPES)


def rows(count=12):
    generator = np.random.default_rng(0)
    return {
        "x": generator.normal(size=(count, 3)).astype("f4"),
        "shown_at": np.resize(np.arange(7) - 1, (count, 1)).astype("i4"),
    }


def labels(count=12):
    generator = np.random.default_rng(1)
    return {name: generator.integers(0, 2, (count, 1)).astype("f4") for name in NAMES}


def network(recipe, tasks=TASKS, **arguments):
    keras.utils.set_random_seed(0)
    build = getattr(models, recipe.split()[0])
    arguments = {"tower": {"units": (3,)}, **RECIPES[recipe], **arguments}
    return build(FEATURES, tasks, **arguments)


built = functools.cache(network)  # for tests that leave the model as it is


def answers(model, count=12):
    read = {column: rows(count)[column] for column in model.input}
    outputs = model(read, training=False)
    return {name: keras.ops.convert_to_numpy(y) for name, y in outputs.items()}


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@each_recipe
def test_columns_in_tasks_out(name):
    model = built(name)
    assert isinstance(model, keras.Model)
    assert sorted(model.input) == ["shown_at", "x"]
    outputs = answers(model)
    assert list(outputs) == NAMES
    assert all(y.shape == (12, 1) for y in outputs.values())
    assert all(y.dtype == "float32" for y in outputs.values())
    for task in ("a", "shared_x"):
        assert ((outputs[task] > 0) & (outputs[task] < 1)).all()


@each_recipe
def test_name_of_the_model(name):
    assert built(name).name == name.split()[0]


@each_recipe
def test_one_task_without_position(name):
    counts = {"specific": 2} if "specific" in RECIPES[name] else {}
    model = network(name, [Regression("ab")], name="ranker", **counts)
    assert sorted(model.input) == ["x"]
    assert list(answers(model)) == ["ab"]
    assert model.name == "ranker"


@pytest.mark.parametrize("name", ["single_task", "shared_bottom"])
def test_embeddings(name):
    model = getattr(models, name)([COLOUR], TASKS)
    found = [layer.name for layer in layers_of(model, layers.FieldEmbedding)]
    own = [f"task_{task}_embedding_2" for task in NAMES]
    assert found == (own if name == "single_task" else ["embedding_2"])


@each_recipe
def test_an_example_does_not_depend_on_the_others(name):
    one, many = answers(built(name), 1), answers(built(name), 12)
    for task in NAMES:
        np.testing.assert_allclose(one[task], many[task][:1], atol=1e-6)


@pytest.mark.parametrize("name", ["single_task", "snr", "mmoe", "ple", "cross_stitch"])
def test_arguments_reach_the_layers(name):
    expert = {"activation": "tanh", "dropout": 0.25}
    model = network(name, expert=expert, tower={"units": (5, 2), "dropout": 0.5})
    for level in layers_of(model, layers.Experts):
        assert level.activation is keras.activations.tanh
        assert level.dropout == 0.25
    assert layers_of(model, layers.Experts)
    towers = layers_of(model, layers.Tower)
    assert [tower.name for tower in towers] == [f"{task}_tower" for task in NAMES]
    assert all((tower.units, tower.dropout) == ((5, 2), 0.5) for tower in towers)


@pytest.mark.parametrize("name", ["mmoe", "ple", "adatt"])
def test_gate_arguments_reach_every_gate(name):
    gate = {"dropout": 0.25, "use_bias": True, "hard_concrete": {"l0": 0.5}}
    model = network(name, gate=gate)
    found = layers_of(model, layers.SoftmaxGate)
    assert len(found) == len(RECIPES[name].get("levels", [4]))
    for own in found:
        assert (own.dropout, own.use_bias) == (0.25, True)
        assert own.gate.initial_l0 == 0.5


@pytest.mark.parametrize("name", ["omoe", "cgc", "ple", "adatt"])
def test_another_gate(name):
    made = []

    def gate(num_outputs, num_experts, reads=None, name=None):
        made.append((num_outputs, num_experts, reads, name))
        return layers.SoftmaxGate(num_outputs, num_experts, reads, True, name=name)

    model = network(name, gate=gate)
    assert list(answers(model)) == NAMES
    plain = layers_of(built(name), layers.SoftmaxGate)
    for (outputs, experts, reads, called), own in zip(made, plain, strict=True):
        assert called == own.name
        assert (outputs, experts) == (own.num_outputs, own.num_experts)
        assert reads is None or np.array_equal(reads, own.open_pairs())


@each_recipe
def test_fit(name):
    model = built(name)
    model.compile(keras.optimizers.SGD(0.01), metrics={}, run_eagerly=True)
    before = model.get_weights()
    history = model.fit(rows(), labels(), batch_size=12, verbose=0).history
    assert set(history) == {"loss", *(f"{task}_loss" for task in NAMES)}
    assert all(np.isfinite(found).all() for found in history.values())
    assert any(map(np.any, map(np.not_equal, before, model.get_weights())))
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    model.set_weights(before)


def test_fit_as_a_graph():
    gate = {"dropout": 0.2, "hard_concrete": {"l0": 1e-3}}
    model = network("cgc", gate=gate, expert={"dropout": 0.1})
    model.compile("sgd", **compile_arguments(TASKS), jit_compile=False)
    history = model.fit(rows(), labels(), batch_size=6, verbose=0).history
    assert all(np.isfinite(found).all() for found in history.values())


# Unlike experts


@keras.saving.register_keras_serializable(package="tfmtl_tests")
class Scaled(keras.layers.Layer):
    """A layer of one's own: each column times a weight."""

    def build(self, input_shape):
        self.scale = self.add_weight(
            name="scale", shape=(input_shape[-1],), initializer="random_normal"
        )

    def call(self, inputs):
        return self.scale * inputs


def unlike(count=5):
    """A cross, a layer of one's own, a network, one of our layers, and a Dense."""
    dense = keras.layers.Dense
    return [
        keras_rs.layers.FeatureCross(),
        Scaled(),
        keras.Sequential([dense(5, "tanh"), dense(3, "relu")]),
        layers.Tower((4,), 3),
        dense(3, "relu"),
    ][:count]


UNLIKE = {
    "single_task": lambda: {"bottom": unlike()[0]},
    "shared_bottom": lambda: {"bottom": unlike()[1]},
    "omoe": lambda: {"experts": unlike()},
    "mmoe": lambda: {"experts": unlike(), "levels": [3, 3]},
    "snr": lambda: {"levels": [(unlike(), 3), (unlike(), 3)]},
    "snr average": lambda: {"levels": [(unlike(2), 3), (unlike(2), 3)]},
    "cgc": lambda: {
        "specific": {**OWN, "ab": unlike()},
        "shared": unlike(1),
        "units": 3,
    },
    "ple": lambda: {
        "specific": {"a": unlike(), "ab": 1, "shared_x": 0},
        "shared": unlike(2),
        "levels": [3, 3],
    },
    "adatt": lambda: {"specific": unlike(2), "levels": [3, 3]},
    "adatt shared": lambda: {
        "specific": {**OWN, "a": unlike()},
        "shared": unlike(1),
        "levels": [3],
    },
    "cross_stitch": lambda: {"streams": unlike(3), "levels": [3, 3]},
}


@each_recipe
def test_unlike_experts(name, tmp_path):
    model = network(name, **UNLIKE[name]())
    assert len({weight.path for weight in model.weights}) == len(model.weights)
    expected = answers(model)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for other, tolerance in [(reloaded, 0), (fold(model), 1e-6)]:
        got = answers(other)
        assert list(got) == NAMES
        for task in NAMES:
            np.testing.assert_allclose(
                got[task], expected[task], rtol=0, atol=tolerance
            )


def test_layers_that_were_given_are_left_alone():
    given = unlike()
    network("mmoe", experts=given)
    assert [layer.built for layer in given] == [False] * len(given)


def test_each_stream_of_cross_stitch_has_its_own_layer_in_every_level():
    given = unlike(3)
    model = network("cross_stitch", streams=given, levels=[3, 3])
    for level in (1, 2):
        kinds = [type(model.get_layer(f"level_{level}_{k}")) for k in (1, 2, 3)]
        assert kinds == [type(layer) for layer in given]


@pytest.mark.parametrize("levels", [[7], [7, (7, 8)]])
def test_unlike_experts_keep_their_own_widths(levels):
    model = network("mmoe", experts=unlike(), levels=levels)
    assert model.get_layer("task_mixture").output.shape == (None, 3, 3)


@pytest.mark.parametrize("name", ["ple", "adatt"])
def test_unlike_experts_read_the_stream_of_their_module(name):
    own = {"a": [keras.layers.Dense(4, "tanh")], "ab": 2, "shared_x": 1}
    model = network(name, specific=own, shared=0, levels=[4, 4])
    readers = [model.get_layer(f"level_2_experts_{k}") for k in (2, 3)]
    assert [reader.slots for reader in readers] == [[1, 1], [2]]
    before = answers(model)
    kernel = model.get_layer("level_1_experts_1_1").kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) + 1)
    after = answers(model)
    moved = [task for task in NAMES if not np.array_equal(after[task], before[task])]
    assert moved == (["a"] if name == "ple" else NAMES)


# Folding


def half_closed(model):
    """Closes pairs at random and the last expert's, but no gate's first pair."""
    generator = np.random.default_rng(0)
    for own in layers_of(model, layers.SoftmaxGate):
        reads = own.open_pairs()
        closed = generator.random(reads.shape) < 0.3
        closed[:, -1] = True
        closed[np.arange(len(reads)), reads.argmax(axis=1)] = False
        own.gate.set_log_alpha(np.where(closed, -4.0, 1.0)[reads])


def experts_of(model):
    """Number of experts, those given as layers among them."""
    stacked = sum(level.num_experts for level in layers_of(model, layers.Experts))
    apart = (keras.layers.Dense, keras_rs.layers.FeatureCross, Scaled)
    return stacked + len(layers_of(model, apart))


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("omoe", {"experts": 3}),
        ("mmoe", {"experts": 3}),
        ("cgc", {"specific": 0, "shared": 3}),
        ("ple", {"specific": 1, "shared": 2}),
        ("ple", {"specific": 0, "shared": [keras.layers.Dense(4) for _ in range(3)]}),
        ("mmoe", {"experts": [keras.layers.Dense(3), *unlike(2)[::-1]]}),
    ],
)
def test_fold_without_closed_pairs_and_experts(name, arguments):
    if name != "cgc":
        arguments = {"levels": [4, 4], **arguments}
    model = network(name, gate={"hard_concrete": {}}, **arguments)
    half_closed(model)
    folded = fold(model)
    expected, got = answers(model), answers(folded)
    assert list(got) == NAMES
    for task in NAMES:
        np.testing.assert_allclose(got[task], expected[task], atol=1e-6)
    assert gates(folded) == []
    assert experts_of(folded) < experts_of(model)
    before, after = structure(model), structure(folded)
    assert after.connections < before.connections
    assert after.parameters < before.parameters
    assert after.flops < before.flops


@pytest.mark.parametrize("name", ["omoe", "mmoe"])
def test_fold_keeps_the_experts_that_a_gate_reads(name):
    model = network(name, experts=4, levels=[4], gate={"hard_concrete": {}})
    gate = model.get_layer("task_gate")
    closed = np.zeros((gate.num_outputs, 4), bool)
    closed[:, [0, 2]] = True
    gate.gate.set_log_alpha(np.where(closed, -4.0, 1.0).ravel())
    folded = fold(model)
    [experts] = layers_of(folded, layers.Experts)
    assert experts.num_experts == 2
    count = structure(folded).sub_networks - structure(model).sub_networks
    assert count == -2
    for task in NAMES:
        got, expected = answers(folded)[task], answers(model)[task]
        np.testing.assert_allclose(got, expected, atol=1e-6)


# Refusals


ONE = "`levels` should be the widths of an expert for each level, one or more. "
HAVE = "Each task should have an expert of its own or a shared one to read. "


@pytest.mark.parametrize("levels", [[], (), 4, "44"])
@pytest.mark.parametrize("name", ["omoe", "mmoe", "ple", "adatt", "cross_stitch"])
def test_refused_levels(name, levels):
    with pytest.raises(ValueError) as error:
        getattr(models, name)(FEATURES, TASKS, levels=levels)
    assert str(error.value) == f"{ONE}Received: levels={levels!r}"


@pytest.mark.parametrize("name", ["cgc", "ple", "adatt"])
@pytest.mark.parametrize("own", [["a"], ["a", "ab", "b"], ["a", "ab", "shared_x", "b"]])
def test_refused_names(name, own):
    with pytest.raises(ValueError) as error:
        getattr(models, name)(FEATURES, TASKS, dict.fromkeys(own, 1))
    assert str(error.value) == (
        "`specific` should have an entry for each of the tasks "
        f"['a', 'ab', 'shared_x']. Received: {sorted(own)}"
    )


@pytest.mark.parametrize("name", ["cgc", "ple", "adatt"])
@pytest.mark.parametrize(
    "own, shared, counts",
    [
        (0, 0, "specific=[0, 0, 0], shared=0"),
        ({"a": 1, "ab": 0, "shared_x": 2}, 0, "specific=[1, 0, 2], shared=0"),
        ({"a": [], "ab": 1, "shared_x": 2}, [], "specific=[0, 1, 2], shared=0"),
        (-1, 2, "specific=[-1, -1, -1], shared=2"),
        (1, -1, "specific=[1, 1, 1], shared=-1"),
    ],
)
def test_refused_counts(name, own, shared, counts):
    with pytest.raises(ValueError) as error:
        getattr(models, name)(FEATURES, TASKS, own, shared)
    assert str(error.value) == f"{HAVE}Received: {counts}"


@pytest.mark.parametrize("level", [models.extraction, models.fusion])
@pytest.mark.parametrize(
    "shape, shared, modules",
    [((2, 4), 1, 3), ((3, 4), 0, 2), ((4, 4), 1, 3), ((2, 4, 4), 0, 2)],
)
def test_refused_streams(level, shape, shared, modules):
    with pytest.raises(ValueError) as error:
        level(keras.Input(shape), [1, 1], shared, last=False)
    assert str(error.value) == (
        "The streams should be of shape (batch, d), or of shape "
        f"(batch, {modules}, d) with one for each module. "
        f"Received: shape={(None, *shape)}"
    )


WIDE = [keras.layers.Dense(4), keras.layers.Dense(5)]


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("omoe", {"experts": WIDE}),
        ("mmoe", {"experts": WIDE}),
        ("snr", {"levels": [(WIDE, 4)]}),
        ("cgc", {"specific": WIDE}),
        ("ple", {"shared": WIDE}),
        ("adatt", {"specific": WIDE}),
        ("cross_stitch", {"streams": [*WIDE, WIDE[0]]}),
    ],
)
def test_refused_widths(name, arguments):
    count = 3 if name == "cross_stitch" else 2
    shapes = [(None, 4), (None, 5), (None, 4)][:count]
    with pytest.raises(ValueError) as error:
        getattr(models, name)(FEATURES, TASKS, **arguments)
    assert str(error.value) == (
        "Experts of a level should all have outputs of one shape (batch, d). "
        f"Received: shapes={shapes}"
    )


@pytest.mark.parametrize("name", ["cgc", "ple", "adatt"])
def test_refused_width_beside_layers(name):
    own = {"a": [keras.layers.Dense(4)], "ab": 1, "shared_x": 1}
    widths = {"units": 5} if name == "cgc" else {"levels": [5]}
    with pytest.raises(ValueError) as error:
        getattr(models, name)(FEATURES, TASKS, own, 0, **widths)
    assert str(error.value) == (
        "Experts of a level should all have outputs of one shape (batch, d). "
        "Received: shapes=[(None, 4), (None, 5), (None, 5)]"
    )


@pytest.mark.parametrize("no_layer", [3, "dense", keras.layers.Dense, None])
@pytest.mark.parametrize(
    "name, argument",
    [("mmoe", "experts"), ("cgc", "specific"), ("ple", "shared"), ("adatt", "shared")],
)
def test_refused_experts(name, argument, no_layer):
    with pytest.raises(ValueError) as error:
        getattr(models, name)(FEATURES, TASKS, **{argument: [no_layer]})
    assert str(error.value) == (
        f"Experts should be a number, or a list of Keras layers. Received: {no_layer!r}"
    )


@each_recipe
def test_refused_position(name):
    tasks = [Regression("ab"), Binary("a", position=Position("x", 3))]
    counts = {"specific": 1} if "specific" in RECIPES[name] else {}
    with pytest.raises(ValueError) as error:
        network(name, tasks, **counts)
    assert str(error.value) == (
        "A position should be no feature, since it is not known when serving. "
        "Received: column='x' for both"
    )


@pytest.mark.parametrize(
    "name, column",
    [
        *((name, "ab_tower") for name in RECIPES),
        *(("mmoe", column) for column in ("level_1", "task_gate", "a_score")),
    ],
)
def test_column_named_like_a_layer(name, column):
    feature = Numeric(column, mean=(0.0,), std=(1.0,))
    message = f'"{column}" is used 2 times in the model'
    with pytest.raises(ValueError, match=message) as error:
        getattr(models, name.split()[0])([feature], TASKS, **RECIPES[name])
    assert str(error.value).startswith(
        "Columns should have other names than the layers of the model. "
        f"Received: column={column!r}, but "
    )


@each_recipe
@pytest.mark.parametrize("column", ["task_id", "level_9", "level_of_noise", "tower"])
def test_column_named_like_no_layer(name, column):
    feature = Numeric(column, mean=(0.0,), std=(1.0,))
    model = getattr(models, name.split()[0])([feature], TASKS, **RECIPES[name])
    assert column in model.input


@each_recipe
def test_refused_tasks(name):
    build = getattr(models, name.split()[0])
    with pytest.raises(ValueError, match="`tasks` should be one or more tasks"):
        build(FEATURES, [])
    with pytest.raises(ValueError, match="`features` should be adapted to data"):
        build([Numeric("x")], TASKS)


@pytest.mark.parametrize("name", ["single_task", "shared_bottom"])
@pytest.mark.parametrize(
    "bottom, text",
    [
        ((), "`bottom` should be one or more widths. Received: bottom=()"),
        (0, "`bottom` should be a positive integer. Received: bottom=0"),
        ((4, "a"), "`bottom` should be a positive integer. Received: bottom='a'"),
    ],
)
def test_refused_bottom(name, bottom, text):
    with pytest.raises(ValueError) as error:
        getattr(models, name)(FEATURES, TASKS, bottom)
    assert str(error.value) == text


EXPERTS = "Experts should be a number, or a list of Keras layers. Received: "
DENSE = keras.layers.Dense(4)


@pytest.mark.parametrize(
    "recipe, arguments, text",
    [
        ("mmoe", {"experts": []}, EXPERTS + r"\[\]"),
        ("snr", {"levels": [([], 4)]}, EXPERTS + r"\[\]"),
        ("ple", {"specific": 1.5}, EXPERTS + "1.5"),
        ("mmoe", {"experts": DENSE}, EXPERTS + "<Dense"),
        ("mmoe", {"gate": 3}, "`gate` should be a dict .* Received: gate=3"),
        ("mmoe", {"gate": layers.SoftmaxGate(3, 8)}, "`gate` should .*=<SoftmaxGate"),
        ("mmoe", {"gate": {"reads": None}}, "`gate` should be a dict .*, reads, name"),
        ("mmoe", {"gate": {"hard_concrete": True}}, "`hard_concrete` .*=True"),
        (
            "mmoe",
            {"gate": {"hard_concrete": {"shape": 3}}},
            "`hard_concrete` should be a dict of arguments, without reads, shape, name",
        ),
        ("mmoe", {"gate": lambda *a, **k: None}, "`gate` should make a Keras .* None$"),
        ("ple", {"expert": {"slots": [1]}}, "`expert` should .* without num_experts"),
        ("cgc", {"expert": [("activation", "relu")]}, "`expert` should be a dict"),
        ("mmoe", {"tower": {"output_units": 2}}, "`tower` .* without output_units"),
        ("mmoe", {"tower": 16}, "`tower` should be a dict .* Received: tower=16"),
        ("mmoe", {"tower": (16,)}, r"`tower` .* Received: tower=\(16,\)"),
        ("mmoe", {"experts": [DENSE], "expert": {"dropout": 0.1}}, "`expert` .* left"),
        (
            "shared_bottom",
            {"bottom": DENSE, "expert": {"dropout": 0.1}},
            "`expert` .* l",
        ),
        (
            "cgc",
            {"specific": [DENSE], "shared": 0, "expert": {"dropout": 0.1}},
            "left out",
        ),
        ("mmoe", {"levels": 64}, "`levels` should be the widths .*=64"),
        ("mmoe", {"levels": [64.0]}, "`levels` should be a positive .*levels=64.0$"),
        ("mmoe", {"levels": [4, ()]}, r"`levels` should be one or more .*levels=\(\)"),
        ("ple", {"levels": [64.0]}, "`levels` should be a positive .*levels=64.0$"),
        ("cross_stitch", {"levels": [64.0]}, "`levels` should be a positive integer"),
        (
            "mmoe",
            {"gate": {"hard_concrete": {"lambda": 1}}},
            "`hard_concrete` should be a dict of arguments of a HardConcreteGate, of "
            r"\['beta', .*'zeta'\]. Received: hard_concrete={'lambda': 1}",
        ),
        (
            "ple",
            {"specific": [1, 2]},
            r"`specific` should .* tasks \['a', 'ab', 'shared_x'\]. .*=\[1, 2\]",
        ),
        ("omoe", {"levels": np.array(64)}, "`levels` should be the widths .*y\\(64"),
        ("ple", {"levels": (k for k in ())}, "`levels` should be the widths .*<gen"),
        ("snr", {"levels": np.array(64)}, "`levels` should be one or more pairs .*64"),
        ("snr", {"levels": [(3, [4, 5])]}, "`levels` should be one or more pairs .*5"),
        (
            "snr",
            {"levels": [(3, [4, 5])], "kind": "average"},
            "`levels` should be one or more pairs",
        ),
        ("snr", {"dropout": "a"}, "`dropout` should be at least 0 .*=.a."),
        ("mmoe", {"expert": {"dropout": None}}, "`dropout` should .*=None"),
        ("snr", {"levels": 64}, "`levels` should be one or more pairs .*=64"),
        ("snr", {"levels": [64]}, "`levels` should be one or more pairs"),
        ("snr", {"levels": (6, 48)}, "`levels` should be one or more pairs"),
        (
            "snr",
            {"routing": {"hard_concrete": {"dtype": "float32"}}},
            "`hard_concrete` .* without shape, name, dtype",
        ),
        ("snr", {"routing": {"units": 3}}, "`routing` .* num_outputs, units, kind, n"),
        ("snr", {"routing": 3}, "`routing` should be a dict .* Received: routing=3"),
        ("cross_stitch", {"own_share": 3}, "`own_share` should be from 0 to 1.*=3"),
        ("cross_stitch", {"own_share": "a"}, "`own_share` should be from 0 to 1.*=.a"),
        ("cross_stitch", {"streams": DENSE}, "`streams` should be a list .*<Dense"),
        ("cross_stitch", {"streams": np.int64(2)}, "`streams` should be a list .*2"),
        ("cross_stitch", {"streams": 3}, "`streams` should be .* Received: streams=3"),
        ("cross_stitch", {"streams": [DENSE]}, "one for each of 3 tasks"),
        (
            "shared_bottom",
            {"bottom": keras.layers.Reshape((-1, 1))},
            r"outputs of one shape \(batch, d\).*1\)\]",
        ),
    ],
)
def test_refused_parts_of_a_network(recipe, arguments, text):
    with pytest.raises(ValueError, match=text):
        getattr(models, recipe)(FEATURES, TASKS, **arguments)


@pytest.mark.parametrize("level", [models.extraction, models.fusion])
def test_a_level_refuses_a_number_for_all_tasks(level):
    with pytest.raises(ValueError, match="`specific` should be a list.*specific=2"):
        level(keras.Input((6,)), 2, 1, last=True)


def test_numpy_numbers_are_numbers():
    ints = np.array([4, 3])
    own = {"a": ints[1], "ab": ints[0], "shared_x": 1}
    model = models.ple(FEATURES, TASKS, own, np.int64(2), levels=ints)
    assert model.get_layer("level_2_experts").num_experts == 10
    model = models.snr(FEATURES, TASKS, levels=np.array([[3, 4], [2, 5]]))
    assert model.get_layer("task_routing").input.shape == (None, 2, 5)
    models.mmoe(FEATURES, TASKS, ints[0], levels=[ints])


@pytest.mark.parametrize("name", ["mmoe", "ple", "cross_stitch", "snr"])
def test_levels_may_be_generated(name):
    levels = RECIPES[name]["levels"]
    model = network(name, levels=(level for level in levels))
    assert model.count_params() == built(name).count_params()


def test_a_position_named_like_a_layer_is_refused():
    tasks = [Binary("a", position=Position("level_1", 9)), Binary("b")]
    with pytest.raises(ValueError, match='"level_1" is used 2 times'):
        models.mmoe(FEATURES, tasks)


def test_an_initialiser_without_configuration_is_used_as_it_is():
    class Filled(keras.initializers.Initializer):
        def __init__(self, value):
            self.value = value

        def __call__(self, shape, dtype=None):
            return keras.ops.full(shape, self.value, dtype)

    model = models.mmoe(FEATURES, TASKS, expert={"kernel_initializer": Filled(0.5)})
    assert (
        keras.ops.convert_to_numpy(model.get_layer("level_1").kernels[0]) == 0.5
    ).all()


def test_a_list_of_a_number_for_each_task():
    counts = [1, 2, 3]
    by_name = dict(zip(NAMES, counts, strict=True))
    models_of = [
        models.ple(FEATURES, TASKS, own, 1, levels=[4]) for own in (counts, by_name)
    ]
    first, second = (model.get_layer("level_1_gate") for model in models_of)
    assert first.get_config() == second.get_config()


class WithoutName(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = units


class Subclassed(keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = units


@pytest.mark.parametrize("kind", [WithoutName, Subclassed])
@pytest.mark.parametrize("recipe", ["mmoe", "shared_bottom"])
def test_a_layer_that_cannot_be_copied_is_named(recipe, kind):
    own = kind(keras.layers.Dense(5) if kind is Subclassed else 5)
    given = {"experts": [own]} if recipe == "mmoe" else {"bottom": own}
    with pytest.raises(ValueError) as error:
        getattr(models, recipe)(FEATURES, TASKS, **given)
    assert str(error.value) == (
        "A layer to copy should be one that its configuration makes, with `get_config` "
        "and a constructor that takes `**kwargs`, since a copy is made from it. "
        f"Received: {own.name!r} of class {kind.__name__}"
    )


def of_sequences(columns, tasks):
    features = [
        Sequence(column, vocabulary=("u", "v"), units=2, length=3) for column in columns
    ]
    return models.single_task(features, [Binary(task) for task in tasks], bottom=3)


def test_names_of_tasks_and_columns_that_would_meet():
    model = of_sequences(["history", "long_history"], ["view", "view_long"])
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert "task_1_view_long_history_values_table" in names
    assert "task_2_view_long_history_values_table" in names
    names = [x.name for x in of_sequences(["history"], ["view", "view_long"]).layers]
    assert "task_view_long_history_values_table" in names  # as none meet
