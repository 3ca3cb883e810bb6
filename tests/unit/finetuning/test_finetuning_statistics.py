"""New statistics of numeric columns: what they are, and that no score moves."""

import keras
import keras_rs
import numpy as np
import pytest
import tensorflow as tf
from trained_models import RECIPES, network, outputs, random_model, rows_of

from tfmtl.features import Categorical, Encoder, Numeric, adapt
from tfmtl.finetuning import add_task, drift, readapt
from tfmtl.folding import fold
from tfmtl.layers import (
    DSelectKGate,
    Experts,
    FieldGate,
    Mixture,
    SoftmaxGate,
    Standardize,
    Tower,
)
from tfmtl.models import MultiTaskModel, mmoe, shared_bottom
from tfmtl.serving import export, verify
from tfmtl.sparsity import gates
from tfmtl.tasks import Binary

NUMERIC = [
    Numeric("x", width=3, mean=(0.0, 1.0, -1.0), std=(1.0, 2.0, 0.5)),
    Numeric("n", mean=(0.5,), std=(1.5,), clip=(-2.0, 2.5), missing=-1.0),
    Numeric("heavy", log=True, mean=(0.3,), std=(0.7,)),
]
FEATURES = [*NUMERIC, Categorical("c", vocabulary=("a", "b"), units=4)]


def drifted(model, seed=0):
    """Rows of which numbers have other means and deviations, some of them missing."""
    generator = np.random.default_rng(seed)
    found = dict(rows_of(model))
    for name, tensor in model.input.items():
        if tensor.dtype == "float32":
            rows, width = found[name].shape
            mean, std = generator.normal(size=width), generator.uniform(0.3, 3.0, width)
            values = generator.normal(mean, std, (rows, width)).astype("f4")
            values[generator.random(values.shape) < 0.1] = np.nan
            found[name] = values
    return found


def given(model, seed=1):
    """Rows of numbers near and far, with what is missing, and anything else."""
    rows = dict(rows_of(model))
    generator = np.random.default_rng(seed)
    for name, tensor in model.input.items():
        if tensor.dtype == "float32":
            shape = rows[name].shape
            values = generator.normal(0.5, 3.0, shape)
            odd = generator.choice([np.nan, np.inf, -1.0], shape)
            odd = np.where(generator.random(shape) < 0.2, odd, values)
            rows[name] = odd.astype("f4")
    return rows


def assert_same(model, other, rows, rtol=1e-5):
    before, after = outputs(model, rows), outputs(other, rows)
    assert set(before) == set(after)
    for name in before:
        scale = max(1.0, float(np.abs(before[name]).max()))
        np.testing.assert_allclose(after[name], before[name], rtol, rtol * scale)


def standardized(model):
    return [layer for layer in model.layers if isinstance(layer, Standardize)]


def experts_of(model):
    [found] = [layer for layer in model.layers if isinstance(layer, Experts)]
    return found


def random_biases(model, seed=0):
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if "bias" in weight.name or weight.name in ("z", "alpha"):
            weight.assign(generator.normal(size=weight.shape))
    return model


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_score_moves(recipe):
    model = random_biases(network(recipe, "a", "ab", features=FEATURES))
    rows, data = given(model), drifted(model)
    before = outputs(model, rows)
    newer = readapt(model, data)
    assert_same(model, newer, rows)
    assert_same(model, newer, data)
    for name, value in outputs(model, rows).items():
        np.testing.assert_array_equal(value, before[name])  # the old one is left alone
    for old, new in zip(standardized(model), standardized(newer), strict=True):
        assert not set(old.mean) & set(new.mean)
        assert new.fill is not None
    assert_same(newer, readapt(newer, rows), data)  # and once more


@pytest.mark.parametrize("seed", range(30))
def test_random_models(seed):
    model = random_model(seed)
    if not standardized(model):
        model = random_model(seed + 200)
    if not standardized(model):
        pytest.skip("a random model without numeric columns")
    rows, data = given(model), drifted(model, seed)
    newer = readapt(model, data)
    assert_same(model, newer, rows)
    assert [gate.name for gate in gates(model)] == [gate.name for gate in gates(newer)]
    for old, new in zip(gates(model), gates(newer), strict=True):
        np.testing.assert_array_equal(old.theta, new.theta)
        np.testing.assert_array_equal(old.l0, new.l0)
    folded = fold(model)
    if standardized(folded):
        assert_same(model, readapt(folded, data), rows)
    assert_same(model, fold(newer), rows)


def test_statistics_are_those_that_adapt_learns():
    model = network("mmoe", "a", features=FEATURES)
    data = drifted(model)
    data["n"][::7] = -1.0
    plain = [
        Numeric("x", width=3),
        Numeric("n", clip=(-2.0, 2.5), missing=-1.0),
        Numeric("heavy", log=True),
    ]
    x, n, heavy = adapt(plain, data)
    newer = readapt(model, data)
    three, one = newer.get_layer("standardized_3"), newer.get_layer("standardized_1")
    np.testing.assert_allclose(three.mean, x.mean, rtol=1e-12)
    np.testing.assert_allclose(three.std, x.std, rtol=1e-12)
    np.testing.assert_allclose(one.mean, n.mean + heavy.mean, rtol=1e-12)
    np.testing.assert_allclose(one.std, n.std + heavy.std, rtol=1e-12)
    kept = model.get_layer("standardized_1")
    assert (one.log, one.clip, one.missing) == (kept.log, kept.clip, kept.missing)
    old = model.get_layer("standardized_3")
    fill = (np.array(old.mean) - three.mean) / three.std
    np.testing.assert_allclose(three.fill, fill)


def test_of_batches_the_same_as_of_arrays():
    model = network("shared_bottom", "a", features=FEATURES)
    data = drifted(model)
    numbers = {name: data[name] for name in ("x", "n", "heavy")}
    dataset = tf.data.Dataset.from_tensor_slices((numbers, np.zeros(64))).batch(10)
    one = readapt(model, data).get_layer("standardized_3")
    for batches in (dataset, list(dataset), [numbers]):
        other = readapt(model, batches).get_layer("standardized_3")
        assert (one.mean, one.std) == (other.mean, other.std)
    with pytest.raises(ValueError, match="should be finite: use `take`. Received: an"):
        readapt(model, dataset.repeat())


def test_some_columns():
    model = network("mmoe", "a", "b", features=FEATURES)
    newer = readapt(model, {"heavy": np.array([[1.0], [5.0]])}, columns=["heavy"])
    old, new = (each.get_layer("standardized_1") for each in (model, newer))
    assert new.mean[0] == old.mean[0] and new.std[0] == old.std[0]
    assert new.mean[1] == pytest.approx(np.log([2, 6]).mean())
    assert new.fill[0] == 0 and new.fill[1] != 0
    assert model.get_layer("standardized_3").mean == [0.0, 1.0, -1.0]
    assert_same(model, newer, given(model))
    kernels = [each.get_layer("level_1").kernels[0] for each in (model, newer)]
    moved = np.any(np.asarray(kernels[0]) != np.asarray(kernels[1]), axis=(0, 2))
    assert moved.tolist() == [False] * 4 + [True] + [False] * 4


def test_scores_move_where_asked():
    model = network("mmoe", "a", features=FEATURES)
    rows, data = given(model), drifted(model)
    newer = readapt(model, data, keep_scores=False)
    assert newer.get_layer("standardized_3").fill is None
    kept = readapt(model, data).get_layer("standardized_3")
    assert newer.get_layer("standardized_3").mean == kept.mean
    for old, new in zip(model.weights, newer.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.abs(outputs(model, rows)["a"] - outputs(newer, rows)["a"]).max() > 1e-2


def test_it_trains_as_it_did():
    hard = {"hard_concrete": {"l0": 0.5}, "dropout": 0.2}
    expert = {"dropout": 0.3, "kernel_regularizer": keras.regularizers.L2(0.5)}
    tasks = [Binary("a"), Binary("b")]
    model = mmoe(FEATURES, tasks, 4, [6], gate=hard, expert=expert)
    model.get_layer("level_1").kernels[0].trainable = False
    model.get_layer("b_tower").trainable = False
    gates(model)[0].set_log_alpha(np.linspace(-4, 4, gates(model)[0].shape[0]))
    newer = readapt(model, drifted(model))
    gate, experts = newer.get_layer("task_gate"), newer.get_layer("level_1")
    assert gate.use_bias and gate.dropout == 0.2
    assert np.all(np.asarray(gate.gate.l0) == 0.5)
    np.testing.assert_array_equal(gate.gate.theta, gates(model)[0].theta)
    assert experts.dropout == 0.3 and float(experts.kernel_regularizer.l2) == 0.5
    old, new = (
        {weight.path.split("/", 1)[1] for weight in each.trainable_weights}
        for each in (model, newer)
    )
    assert new - old == {"bias"} and old <= new
    assert [task.name for task in newer.tasks] == ["a", "b"] and not newer.compiled
    newer.compile("adam")
    rows = given(newer)
    labels = {name: np.arange(len(rows["x"]), dtype="f4") % 2 for name in "ab"}
    newer.fit(rows, labels, verbose=0)


def test_frozen_gates_get_a_frozen_bias():
    model = network("mmoe", "a", "b", features=FEATURES)
    model.get_layer("task_gate").trainable = False
    gate = readapt(model, drifted(model)).get_layer("task_gate")
    assert gate.bias is not None and not gate.trainable_weights


@pytest.mark.parametrize("closed", [False, True])
def test_gates_on_fields(closed):
    encoder = Encoder(FEATURES, hard_concrete={})
    model = shared_bottom(encoder, [Binary("a")])
    gate = model.get_layer("numeric_1_gate")
    gate.gate.set_log_alpha([-4.0 if closed else -0.5, 4.0])
    rows, data = given(model), drifted(model)
    newer = readapt(model, data)
    assert_same(model, newer, rows)
    folded = fold(model)
    assert_same(model, readapt(folded, data), rows)
    old, new = (experts_of(each).kernels[0].numpy()[:, 3] for each in (model, newer))
    scale = newer.get_layer("standardized_1").std[0] / NUMERIC[1].std[0]
    np.testing.assert_allclose(new, scale * old, rtol=1e-5)  # also where it is closed


@pytest.mark.parametrize("gamma", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_a_batch_normalisation_takes_its_statistics(gamma, trainable):
    norm = keras.layers.BatchNormalization(scale=gamma, name="norm")
    model = shared_bottom(Encoder(FEATURES, [norm]), [Binary("a")])
    layer = model.get_layer("interaction_1")
    generator = np.random.default_rng(0)
    layer.moving_mean.assign(generator.normal(size=9))
    layer.moving_variance.assign(generator.uniform(0.5, 2, 9))
    layer.beta.assign(generator.normal(size=9))
    layer.trainable = trainable
    newer = readapt(model, drifted(model))
    assert_same(model, newer, given(model))
    new = newer.get_layer("interaction_1")
    assert new.trainable is trainable
    scale = np.divide(newer.get_layer("standardized_3").std, [1.0, 2.0, 0.5])
    epsilon = 0 if gamma else layer.epsilon
    old, made = (each.moving_variance.numpy()[:3] + epsilon for each in (layer, new))
    np.testing.assert_allclose(made, old / scale**2, rtol=1e-5)
    kernels = [experts_of(each).kernels[0].numpy() for each in (model, newer)]
    np.testing.assert_array_equal(*kernels)


def composed(behind):
    inputs = {name: keras.Input((2,), name=name) for name in "xz"}
    log = [True, False, True, True]
    x = Standardize([0.5, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 0.5], log, name="scaled")(
        [inputs["x"], inputs["z"]]
    )
    return keras.Model(inputs, {"a": behind(x)})


def flat(x):
    return keras.layers.Flatten(name="flat")(x)


def gated(gate):
    def behind(x):
        x = flat(x)
        return keras.layers.Flatten()(Mixture()([Experts(3, 4)(x), gate(x)]))

    return behind


def rows(x):
    x = keras.layers.Flatten()(x)
    return keras.ops.stack([x, x], axis=1)


BEHIND = {
    "dense": lambda x: keras.layers.Dense(3, "relu")(flat(x)),
    "no_bias": lambda x: keras.layers.Dense(3, use_bias=False)(flat(x)),
    "dropout": lambda x: Tower((3,))(keras.layers.Dropout(0.5)(flat(x))),
    "head": lambda x: Tower(())(flat(x)),
    "reshape": lambda x: Tower()(keras.layers.Reshape((4,))(x)),
    "reshape_operation": lambda x: Tower()(keras.ops.reshape(x, (-1, 4))),
    "parts": lambda x: keras.ops.concatenate(
        [Tower()(part) for part in keras.ops.unstack(x, 2, axis=1)], axis=1
    ),
    "some": lambda x: Tower()(x[:, 1]),
    "taken": lambda x: Tower()(flat(keras.ops.take(x, [1, 0, 1], axis=1))),
    "split": lambda x: Tower()(keras.ops.split(flat(x), 2, axis=1)[1]),
    "turned": lambda x: Tower()(flat(keras.ops.transpose(x, (0, 2, 1)))),
    "nested": lambda x: keras.Sequential([keras.layers.Flatten(), Tower()])(x),
    "gate": gated(SoftmaxGate(2, 3)),
    "gate_bias": gated(SoftmaxGate(2, 3, use_bias=True)),
    "one_expert": gated(SoftmaxGate(2, 3, reads=[[True, False, False]] * 2)),
    "dselect_k": gated(DSelectKGate(2, 3)),
    "static": gated(DSelectKGate(2, 3, per_example=False)),
    "single": gated(DSelectKGate(2, 3, k=1)),
    "rows": lambda x: flat(Experts(2, 3)(rows(x))),
}


def twice(x, tower):
    x = flat(x)
    return keras.ops.concatenate([tower(x), tower(keras.layers.Dense(4)(x))], axis=1)


@pytest.mark.parametrize("behind", BEHIND)
def test_composed_models(behind):
    keras.utils.set_random_seed(1)
    model = random_biases(composed(BEHIND[behind]))
    data = drifted(model)
    newer = readapt(model, data)
    assert newer.get_layer("scaled").mean != model.get_layer("scaled").mean
    assert_same(model, newer, given(model))


def test_a_tensor_in_place_of_fields():
    x = keras.Input((3,), name="x")
    clip = [[None, None], [0.0, 1.0], [None, 2.0]]
    layer = Standardize([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [True, False, True], clip)
    model = keras.Model({"x": x}, {"a": Tower()(layer(x))})
    data = {"x": np.random.default_rng(0).normal(size=(200, 3)).astype("f4") * 3}
    newer = readapt(model, data)
    assert_same(model, newer, {"x": data["x"][:50]})
    [new] = standardized(newer)
    np.testing.assert_allclose(new.mean[1], np.clip(data["x"][:, 1], 0, 1).mean())
    logged = np.sign(data["x"]) * np.log1p(np.abs(data["x"]))
    np.testing.assert_allclose(new.mean[0], logged[:, 0].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("behind", "message"),
    [
        (lambda x: keras_rs.layers.FeatureCross(name="cross")(flat(x)), "'cross', wh"),
        (lambda x: keras.layers.LayerNormalization(name="norm")(flat(x)), "'norm', w"),
        (lambda x: keras.layers.Activation("relu", name="relu")(flat(x)), "'relu', w"),
        (lambda x: Tower(name="fields")(x[:, :2]), "'fields', which has no first ker"),
        (flat, "Flatten 'flat', which gives them as an output of the model"),
        (lambda x: twice(x, Tower(name="shared")), "'shared', which is called on oth"),
    ],
)
def test_what_cannot_make_up_for_it_is_named(behind, message):
    model = composed(behind)
    data = drifted(model)
    with pytest.raises(
        ValueError, match=f"starts with a kernel .*Received: .*{message}"
    ):
        readapt(model, data)
    with pytest.raises(ValueError, match="`keep_scores=False` moves the scores"):
        readapt(model, data)
    moved = readapt(model, data, keep_scores=False)
    assert moved.get_layer("scaled").mean != model.get_layer("scaled").mean


@pytest.mark.parametrize(
    ("columns", "data", "message"),
    [
        (["c"], {}, r"of \['x', 'n', 'heavy'\]. Received: \['c'\]"),
        ([], {}, r"of \['x', 'n', 'heavy'\]. Received: \[\]"),
        (["n"], {"x": np.ones((3, 3))}, "should have the column 'n'. Received"),
        (["n"], {"n": np.ones((3, 2))}, r"'n' should be numbers of shape \(rows, 1\)"),
        (["n"], {"n": np.full((3, 1), -1.0)}, "'n' should have a finite value .* none"),
        (["n"], [], "'n' should have a finite value in the data to adapt to. .* none"),
    ],
)
def test_errors(columns, data, message):
    model = network("shared_bottom", "a", features=FEATURES)
    with pytest.raises(ValueError, match=message):
        readapt(model, data, columns)


def test_a_model_without_numeric_columns():
    model = network("shared_bottom", "a", features=FEATURES[-1:])
    with pytest.raises(ValueError, match=r"standardises, of \[\]. Received: \[\]"):
        drift(model, {"c": np.array([["a"]])})


def test_saved_loaded_and_exported(tmp_path):
    model = network("mmoe", "a", "b", features=FEATURES)
    rows = given(model)
    newer = readapt(model, drifted(model))
    newer.save(tmp_path / "newer.keras")
    loaded = keras.saving.load_model(tmp_path / "newer.keras")
    assert_same(model, loaded, rows)
    again = readapt(loaded, drifted(model, seed=3))
    assert_same(model, again, rows)
    written = export(again, tmp_path / "served", fold=True)
    assert verify(written.path)
    served = tf.saved_model.load(str(written.path)).signatures["serving_default"]
    found = served(**{name: tf.constant(rows[name]) for name in model.input})
    np.testing.assert_allclose(
        found["a"], outputs(model, rows)["a"], rtol=1e-5, atol=1e-5
    )
    assert set(add_task(again, Binary("new")).output) == {"a", "b", "new"}


def test_scores_of_large_drifts():
    x = Numeric("x", mean=(0.0,), std=(1.0,))
    model = shared_bottom([x], [Binary("a")])
    newer = readapt(model, {"x": np.array([[90.0], [110.0]])})
    rows = {"x": np.array([[0.0], [-3.0], [100.0], [np.nan]], "f4")}
    assert_same(model, newer, rows)
    assert newer.get_layer("standardized_1").fill == [-10.0]


def test_drift_is_a_table():
    model = network("shared_bottom", "a", features=FEATURES)
    found = drift(model, {"n": np.array([[0.0], [2.0], [np.nan]])}, ["n"])
    [row] = found.columns
    assert (row.column, row.value, row.mean, row.std) == ("n", 0, 0.5, 1.5)
    assert (row.new_mean, row.new_std) == (1.0, 1.0)
    head, line = str(found).split("\n")
    assert head.split() == ["column", *"mean std new mean new std moved by".split()]
    assert line.split() == ["n[0]", "0.5", "1.5", "1", "1", "+0.33", "std"]


def test_multi_task_models_stay_what_they_are():
    model = network("ple", "a", "b", features=FEATURES)
    newer = readapt(model, drifted(model))
    assert type(newer) is MultiTaskModel and newer.name == model.name
    assert [x.name for x in newer.layers] == [x.name for x in model.layers]
    assert not any(isinstance(x, FieldGate) for x in newer.layers)


def test_missing_values_are_filled_by_field():
    arguments = [1.0] * 3, [2.0] * 3, [False] * 3
    layer = Standardize(*arguments, missing=[None, None, -1.0], fill=[0.5, -1.0, 2.0])
    x = [np.array([[value]], "f4") for value in (np.nan, 5.0, -1.0)]
    assert np.ravel(layer(x)).tolist() == [0.5, 2.0, 2.0]
    folded, order = layer.fold(np.array([2, 0]), np.array([2, 0]), np.zeros((3, 1)))
    assert order.tolist() == [2, 0] and folded.fill == [2.0, 0.5]
    assert np.ravel(folded([x[2], x[0]])).tolist() == [2.0, 0.5]
    with pytest.raises(ValueError, match="one entry per column.*'fill': 2"):
        Standardize(*arguments, fill=[0.0, 1.0])
