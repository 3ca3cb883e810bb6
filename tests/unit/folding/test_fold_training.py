"""Folded models train on: what pruning closed stays closed."""

import keras
import numpy as np
import pytest

from tfmtl.balancing import UncertaintyWeighting
from tfmtl.folding import fold, structure
from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.models import MultiTaskModel
from tfmtl.sparsity import gates
from tfmtl.tasks import Binary


def network():
    """Two levels of routing, whose folds are one product with gaps each."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8,), name="x")
    x = Experts(4, 8)(x)
    for level, count in enumerate((4, 2)):
        x = SubNetworkRouting(count, 8, activation="relu", name=f"level_{level}")(x)
    outputs = {
        name: Tower((), name=f"{name}_head")(x[:, k]) for k, name in enumerate("ab")
    }
    model = MultiTaskModel({"x": inputs}, outputs, tasks=[Binary("a"), Binary("b")])
    for gate in gates(model):
        log_alpha = np.full(gate.shape, 4.0)
        log_alpha[np.arange(gate.shape[0]), np.arange(gate.shape[0])] = -4.0
        gate.set_log_alpha(log_alpha)
    return model


def rows(count=64):
    x = np.random.default_rng(0).normal(size=(count, 8)).astype("f4")
    return {"x": x}, {name: (x[:, k] > 0).astype("f4") for k, name in enumerate("ab")}


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "muon": lambda: keras.optimizers.Muon(0.01),
    "average": lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.5),
    "accumulated": lambda: keras.optimizers.Adam(gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_closed_stays_closed(optimizer):
    folded = fold(network())
    before = structure(folded)
    weights = folded.get_layer("level_0").kernels[0].numpy()
    assert before.connections == 12 + 6
    folded.compile(OPTIMIZERS[optimizer]())
    folded.fit(*rows(), epochs=2, verbose=0)
    assert structure(folded) == before
    trained = folded.get_layer("level_0").kernels[0].numpy()
    np.testing.assert_array_equal(trained == 0, weights == 0)
    assert not np.allclose(trained, weights)


def test_balanced_and_saved_it_stays_closed(tmp_path):
    folded = fold(network())
    folded.compile("adam", balancing=UncertaintyWeighting())
    folded.fit(*rows(), epochs=1, verbose=0)
    folded.save(tmp_path / "folded.keras")
    folded = keras.saving.load_model(tmp_path / "folded.keras")
    folded.fit(*rows(), epochs=1, verbose=0)
    assert structure(folded).connections == 12 + 6
    again = fold(folded, batch_size=1, device="gpu")
    again.compile("adam")
    again.fit(*rows(), epochs=1, verbose=0)
    assert structure(fold(again)).connections == 12 + 6


def test_gaps_count_in_no_norm_of_gradients(request):
    """Clipped by their norm, the open weights move as they do without gaps."""
    model, moved = network(), []
    for products in (1, 4):
        if products > 1:
            request.getfixturevalue("free_groups")
        folded = fold(model)
        assert len(folded.get_layer("level_0").kernels) == products
        folded.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.01))
        folded.fit(*rows(), epochs=1, batch_size=64, verbose=0)
        moved.append(folded.predict(rows()[0], verbose=0))
    for name in "ab":
        np.testing.assert_allclose(*(outputs[name] for outputs in moved), rtol=1e-4)


def test_the_layers_of_a_merged_model_keep_their_gaps():
    x = keras.Input((8,), name="x")
    routing = SubNetworkRouting(2, 8, name="routing")
    y = keras.layers.BatchNormalization()(Experts(2, 8)(x))
    a, b = keras.ops.unstack(routing(y), 2, axis=1)
    model = keras.Model({"x": x}, {"a": Tower((3,))(a), "b": Tower((3,))(b)})
    routing.gate.set_log_alpha([[4.0, -4.0], [4.0, 4.0]])
    folded = fold(model)
    assert folded.get_layer("routing").units == 3  # it took the towers' kernels in
    folded.compile("adam", "mse")
    folded.fit(rows()[0], {n: np.ones((64, 1)) for n in "ab"}, epochs=1, verbose=0)
    assert structure(folded).connections == 3


def test_a_folded_model_is_to_be_compiled_again():
    model = network()
    model.compile("adam", balancing=UncertaintyWeighting(), loss_weights={"a": 3.0})
    folded = fold(model)
    assert (folded.compiled, folded.tasks) == (False, model.tasks)
    assert not gates(folded)  # so there is no `sparsity` to give
    folded.compile("adam", balancing=UncertaintyWeighting(), loss_weights={"a": 3.0})
    folded.fit(*rows(), epochs=1, verbose=0)
    assert float(folded.task_weights["a"]) == 3.0
