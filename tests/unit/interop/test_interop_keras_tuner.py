"""Search spaces: what each asks for and builds, budget, resume, the best model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

import tfmtl
from tfmtl import features
from tfmtl.interop.keras_tuner import SearchSpace
from tfmtl.sparsity import L0Ramp
from tfmtl.tasks import Binary

TASKS = [Binary("task_1"), Binary("task_2")]
NETWORK = {"width", "depth", "learning_rate"}
MIXTURE = NETWORK | {"experts", "gate_dropout", "keep"}
EXTRACTION = NETWORK | {"specific", "shared", "gate_dropout", "keep"}
ASKED = {
    "single_task": NETWORK,
    "shared_bottom": NETWORK,
    "cross_stitch": NETWORK,
    "omoe": MIXTURE,
    "mmoe": MIXTURE,
    "cgc": EXTRACTION,
    "ple": EXTRACTION,
    "adatt": EXTRACTION,
    "snr": NETWORK | {"experts", "keep"},
}
SMALL = {"experts": [2, 3], "specific": 1, "shared": 1, "width": [4, 8], "depth": 2}
OBJECTIVE = [keras_tuner.Objective(f"val_{task.name}_auc", "max") for task in TASKS]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


@pytest.fixture(scope="module")
def data():
    train = tfmtl.data.make_tasks(1024, num_features=6, correlation=0.5, seed=1)
    test = tfmtl.data.make_tasks(512, num_features=6, correlation=0.5, seed=2)
    return train, test


def space(architecture, data, **search):
    specs = [features.Categorical("group", vocabulary=("a", "b"), units=2)]
    specs += features.adapt([features.Numeric("x", width=6)], data[0].features)
    small = {name: SMALL[name] for name in SMALL if name in ASKED[architecture]}
    return SearchSpace(
        architecture, specs, TASKS, small | search, tower={"units": (4,)}
    )


def batches(data):
    train, test = (
        tfmtl.data.batches(
            {
                "x": d.features["x"],
                "group": np.resize([b"a", b"b", b""], len(d[0]["x"])),
            },
            d.labels,
            batch_size=128,
        )
        for d in data
    )
    return {"x": train, "validation_data": test, "shuffle": False, "verbose": 0}


def by_random(hypermodel, folder, max_trials, objective=OBJECTIVE, **arguments):
    return keras_tuner.RandomSearch(
        hypermodel,
        objective=objective,
        max_trials=max_trials,
        directory=folder,
        project_name="ranker",
        seed=1,
        **arguments,
    )


def test_every_architecture_has_a_space():
    others = {"MultiTaskModel", "extraction", "fusion", "with_score"}
    assert set(ASKED) == set(tfmtl.models.__all__) - others


@pytest.mark.parametrize("architecture", ASKED)
def test_values_become_a_model(architecture, data):
    specs = features.adapt([features.Numeric("x", width=6)], data[0].features)
    hypermodel = SearchSpace(architecture, specs, TASKS)
    hp = keras_tuner.HyperParameters()
    default = hypermodel.build(hp)
    assert {one.name for one in hp.space} == ASKED[architecture]
    assert all(one.conditions == [] for one in hp.space)
    for name in ASKED[architecture]:
        # another value is another model, or another training of it
        changed = hp.copy()
        changed.values[name] = next(o for o in hp.space if o.name == name).values[-1]
        other = hypermodel.build(changed)
        assert description(other) != description(default), name
        assert [task.name for task in other.tasks] == ["task_1", "task_2"]


def description(model):
    """What the model is, without the names and seeds that each has of its own."""
    compiled = model.get_compile_config()
    gates = [
        getattr(layer, "dropout", None)
        for layer in model.layers
        if type(layer).__name__ == "SoftmaxGate"
    ]
    shapes = [tuple(w.shape) for w in model.weights]
    rate = float(model.optimizer.learning_rate)
    return json.dumps([shapes, gates, rate, str(compiled["sparsity"])])


def test_ways_to_search(data):
    hypermodel = space(
        "snr",
        data,
        experts=3,
        width=[4, 16],
        l0=lambda hp: hp.Float("l0", 1e-3, 1e-1, sampling="log"),
        learning_rate=lambda hp: hp.Float("rate", 1e-4, 1e-2, sampling="log"),
    )
    hp = keras_tuner.HyperParameters()
    hp.values = {"width": 16, "l0": 0.05, "rate": 0.002}
    model = hypermodel.build(hp)
    assert "keep" not in hp.values and hp.values["experts"] == 3
    np.testing.assert_allclose(model.optimizer.learning_rate, 0.002)
    [ramp] = keras.saving.deserialize_keras_object(
        model.get_compile_config()["sparsity"]
    )
    assert isinstance(ramp, L0Ramp) and ramp.l0 == 0.05
    assert model.get_layer("level_1").output.shape == (None, 3, 16)


def test_interrupted_search_goes_on(data, tmp_path):
    """The first trials stay; what was running when the process died runs again."""
    folder, given = tmp_path / "search", batches(data)
    first = by_random(space("shared_bottom", data), folder, 2)
    first.search(**given, epochs=2)
    before = finished(folder)
    assert len(before) == 2

    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise keras_tuner.errors.FatalError("killed")

    third = by_random(space("shared_bottom", data), folder, 4)
    with pytest.raises(keras_tuner.errors.FatalError):
        third.search(**given, epochs=2, callbacks=[Killed()])
    assert finished(folder) == before

    again = by_random(space("shared_bottom", data), folder, 4)
    assert again.remaining_trials <= 2
    again.search(**given, epochs=2)
    after = finished(folder)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    again.search(**given, epochs=2)  # the budget is spent
    assert finished(folder) == after


def finished(folder):
    """The bytes of each trial that has a score."""
    found = {p.parent.name: p.read_text() for p in folder.rglob("trial.json")}
    return {n: text for n, text in found.items() if json.loads(text)["score"]}


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_best_model_is_the_one_that_was_scored(keep, data, tmp_path):
    given = batches(data)
    tuner = by_random(
        space("mmoe", data, keep=keep), tmp_path, 1, executions_per_trial=2
    )
    tuner.search(**given, epochs=4)
    [best] = tuner.get_best_models()
    [trial] = tuner.oracle.get_best_trials()
    found = best.evaluate(given["validation_data"], verbose=0, return_dict=True)
    share = tfmtl.sparsity.open_share(best)
    # the score is a mean of two executions, the model the better one
    total = sum(found[f"{task.name}_auc"] for task in TASKS)
    assert total >= -trial.score - 1e-5
    if keep < 1:
        assert share.served / share.total == pytest.approx(keep, abs=0.1)
    folded = tfmtl.folding.fold(best)
    x = next(iter(given["validation_data"]))[0]
    for name, values in best.predict(x, verbose=0).items():
        np.testing.assert_allclose(
            folded.predict(x, verbose=0)[name], values, atol=2e-6
        )
    assert (folded.count_params() < best.count_params()) == (keep < 1)


def test_a_sparse_trial_counts_by_its_last_epoch(data, tmp_path):
    """Whatever was better before: here the first epoch, as the worst is looked for."""
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(dict(logs))

        def __deepcopy__(self, memo):
            return self

    name = "val_task_1_auc"
    tuner = by_random(
        space("snr", data, keep=0.5),
        tmp_path,
        1,
        objective=keras_tuner.Objective(name, "min"),
    )
    tuner.search(**batches(data), epochs=4, callbacks=[Seen()])
    assert seen[0][name] < seen[-1][name] - 0.01
    [trial] = tuner.oracle.get_best_trials()
    assert trial.score == pytest.approx(seen[-1][name], abs=1e-6)
    assert trial.metrics.get_last_value("open_share") == seen[-1]["open_share"]
    [best] = tuner.get_best_models()
    found = best.evaluate(batches(data)["validation_data"], verbose=0, return_dict=True)
    np.testing.assert_allclose(found["task_1_auc"], seen[-1][name], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_hyperband(keep, data, tmp_path):
    tuner = keras_tuner.Hyperband(
        space("mmoe", data, keep=keep),
        objective="val_loss",
        max_epochs=2,
        factor=2,
        directory=tmp_path,
        seed=1,
    )
    tuner.search(**batches(data))
    trials = tuner.oracle.trials.values()
    assert {trial.status for trial in trials} == {"COMPLETED"}
    resumed = [t for t in trials if "tuner/trial_id" in t.hyperparameters.values]
    assert resumed
    assert tfmtl.folding.fold(tuner.get_best_models()[0])


def test_without_keras_tuner(tmp_path):
    (tmp_path / "keras_tuner.py").write_text("raise ImportError('no such module')")
    code = "import tfmtl.interop.keras_tuner"
    root = Path(tfmtl.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert 'Search spaces need KerasTuner: `pip install "tfmtl[tuner]"`.' in done.stderr


def message(*arguments, **named):
    with pytest.raises(ValueError) as error:
        SearchSpace(*arguments, **named)
    return str(error.value)


def test_unknown_architecture():
    assert message("esmm", [], TASKS) == (
        f"`architecture` should be one of {[*ASKED]}. Received: architecture='esmm'"
    )


def test_hyperparameter_of_another_architecture():
    assert message("shared_bottom", [], TASKS, {"experts": [2]}) == (
        "`search` should have hyperparameters of 'shared_bottom', of ['width', "
        "'depth', 'learning_rate']. Received: ['experts']"
    )


def test_argument_that_is_searched():
    assert message("mmoe", [], TASKS, levels=[(64,)]) == (
        "`arguments` should be of 'mmoe', of ['expert', 'tower', 'name']; the others "
        "are searched. Received: ['levels']"
    )
