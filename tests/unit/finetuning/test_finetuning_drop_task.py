"""A model without a task: smaller, and the other tasks as they were."""

import keras
import numpy as np
import pytest
from trained_models import FEATURES, RECIPES, network, outputs, random_model, rows_of

from tfmtl.finetuning import drop_task
from tfmtl.layers import HardConcreteGate
from tfmtl.models import mmoe, ple, shared_bottom, with_score
from tfmtl.sparsity import gates
from tfmtl.tasks import Binary, Position


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_the_model_that_was_built_without(recipe):
    model = network(recipe, "a", "ab", "shared_x")
    rows = rows_of(model)
    smaller = drop_task(model, "ab")
    assert [task.name for task in smaller.tasks] == ["a", "shared_x"]
    before, after = outputs(model, rows), outputs(smaller, rows)
    assert set(after) == {"a", "shared_x"}
    for name in after:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=1e-6)
    if recipe.split("_")[0] not in ("adatt", "cross", "ple"):
        # there, what the task had of its own others read too
        assert smaller.count_params() == network(recipe, "a", "shared_x").count_params()
    assert smaller.count_params() < model.count_params()


@pytest.mark.parametrize("seed", range(10))
def test_random_models_keep_the_other_outputs(seed):
    model = random_model(seed + 100)
    names = [task.name for task in model.tasks]
    if len(names) == 1:
        model = random_model(seed + 1000)
        names = [task.name for task in model.tasks]
    if len(names) == 1:
        pytest.skip("a random model of one task")
    rows = rows_of(model)
    dropped = str(np.random.default_rng(seed).choice(names))
    smaller = drop_task(model, dropped)
    after, before = outputs(smaller, rows), outputs(model, rows)
    assert dropped not in after
    for name in after:
        np.testing.assert_allclose(after[name], before[name], rtol=2e-5, atol=2e-5)
    trained = smaller(
        {name: rows[name] for name in smaller.input}, training=True
    )  # dropout, noise of gates and batch normalisation are there
    assert set(trained) == set(after)


def test_gates_and_dropout_stay():
    hard = {"hard_concrete": {"l0": 0.5}, "dropout": 0.2}
    model = ple(
        FEATURES,
        [Binary("a"), Binary("b")],
        gate=hard,
        expert={"dropout": 0.3},
    )
    smaller = drop_task(model, "b")
    assert len(gates(smaller)) == 2
    assert all(isinstance(gate, HardConcreteGate) for gate in gates(smaller))
    gate = smaller.get_layer("level_2_gate")
    assert gate.dropout == 0.2 and gate.num_outputs == 1 and gate.num_experts == 4
    assert np.all(keras.ops.convert_to_numpy(gate.gate.l0) == 0.5)
    assert smaller.get_layer("level_2_experts").dropout == 0.3


def test_it_trains_on_and_saves(tmp_path):
    model = mmoe(FEATURES, [Binary("a"), Binary("b")], gate={"hard_concrete": {}})
    smaller = drop_task(model, "b")
    rows = rows_of(smaller)
    labels = {"a": np.arange(len(rows["x"]), dtype="f4") % 2}
    smaller.compile("adam")
    smaller.fit(rows, labels, verbose=0)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.saving.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(
        outputs(smaller, rows)["a"], outputs(loaded, rows)["a"]
    )


def test_the_first_step_of_a_funnel():
    tasks = [Binary("click"), Binary("buy", after="click"), Binary("like")]
    model = mmoe(FEATURES, tasks)
    rows = rows_of(model)
    smaller = drop_task(model, "click")
    assert [task.name for task in smaller.tasks] == ["buy", "like"]
    assert smaller.tasks[0].after is None
    np.testing.assert_allclose(
        outputs(smaller, rows)["buy"], outputs(model, rows)["buy"], rtol=1e-6
    )


def test_the_last_step_of_a_funnel_goes_with_its_conditional():
    tasks = [Binary("click"), Binary("buy", after="click")]
    assert set(drop_task(mmoe(FEATURES, tasks), "buy").output) == {"click"}


def test_columns_of_what_is_dropped():
    tasks = [Binary("a"), Binary("b", position=Position("shown_at", 5))]
    model = shared_bottom(FEATURES, tasks)
    assert set(drop_task(model, "b").input) == {"x", "c"}
    assert set(drop_task(model, "a").input) == {"x", "c", "shown_at"}
    single = network("single_task", "a", "b")
    assert set(drop_task(single, "b", drop_inputs=True).input) == {"x", "c"}


def test_a_score_goes_by_its_name():
    model = with_score(network("mmoe", "a", "b"), {"a": 1.0, "b": 2.0})
    assert set(drop_task(model, "b").output) == {"a", "score"}
    assert set(drop_task(model, "b", "score").output) == {"a"}


@pytest.mark.parametrize("names", [(), ("z",), ("a", "b")])
def test_errors(names):
    model = network("mmoe", "a", "b")
    expected = r"some of the model's outputs, \['a', 'b'\], but not all .*Received: \["
    with pytest.raises(ValueError, match=expected):
        drop_task(model, *names)
