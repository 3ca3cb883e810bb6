"""Every architecture, with every kind of column, through what a model server does.

Export itself scans the files and asks the C++ session; here the version is verified,
loaded as TF Serving's Python-side twin loads it (a session of the v1 loader), and asked
for each signature, on rows with missing, unknown and ordinary values.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import features, models, tasks
from tfmtl.serving import export, run_in_cpp_session, verify
from tfmtl.serving.saved_model import read_meta_graph
from tfmtl.sparsity import gates

COLUMNS = [
    features.Numeric("age", mean=(40.0,), std=(12.0,)),
    features.Numeric("spent", log=True, missing=-9, mean=(1.0,), std=(1.0,)),
    features.Bucketized("hour", boundaries=(6.0, 12.0, 18.0)),
    features.Categorical("country", vocabulary=("at", "de", "ch")),
    features.Categorical("word", hash_bins=11),
    features.Categorical("item", dtype="int64", hash_bins=50, table="item"),
    features.Categorical("shop", dtype="int64", vocabulary=(3, 5, 8)),
    features.Sequence("seen", dtype="int64", hash_bins=50, length=4, table="item"),
    features.Sequence(
        "read",
        dtype="int64",
        hash_bins=50,
        length=3,
        table="item",
        pooling="attention",
        target="item",
    ),
    features.Cross("pair", columns=("country", "item"), hash_bins=13),
]
TASKS = [
    tasks.Binary("click"),
    tasks.Binary("buy", after="click"),
    tasks.LogNormal("time", where="click"),
]
ROWS = {
    "age": [[31.0], [np.nan], [-1e30]],
    "spent": [[3.5], [-9.0], [0.0]],
    "hour": [[3.0], [np.nan], [23.0]],
    "country": np.array([["de"], [""], ["zz"]], object),
    "word": np.array([["some"], [""], ["é" * 100]], object),
    "item": np.array([[7], [-1], [2**62]]),
    "shop": np.array([[5], [-1], [99]]),
    "seen": np.array([[1, 2, -1, -1], [-1] * 4, [9, 8, 7, 6]]),
    "read": np.array([[1, 2, -1], [-1] * 3, [9, 8, 7]]),
}
GATED = {"gate": {"hard_concrete": {}}}
RECIPES = {
    "single_task": lambda c: models.single_task(c, TASKS),
    "shared_bottom": lambda c: models.shared_bottom(c, TASKS),
    "omoe": lambda c: models.omoe(c, TASKS, experts=4, **GATED),
    "mmoe": lambda c: models.mmoe(c, TASKS, experts=4, levels=[16, 8], **GATED),
    "cgc": lambda c: models.cgc(c, TASKS, **GATED),
    "ple": lambda c: models.ple(c, TASKS, levels=[16, 8], **GATED),
    "adatt": lambda c: models.adatt(c, TASKS, **GATED),
    "cross_stitch": lambda c: models.cross_stitch(c, TASKS),
    "snr": lambda c: models.snr(c, TASKS, levels=[(4, 16), (4, 8)]),
}


def make(recipe):
    """The model with half of its gates closed."""
    keras.utils.set_random_seed(3)
    encoder = features.Encoder(COLUMNS, hard_concrete={})
    model = RECIPES[recipe](encoder)
    generator = np.random.default_rng(3)
    for gate in gates(model):
        shut = generator.random(gate.shape) < 0.5
        gate.set_log_alpha(np.where(shut, -4.0, 4.0))
    return model


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_architecture_serves(tmp_path, recipe, fold):
    model = make(recipe)
    given = {
        name: tf.convert_to_tensor(ROWS[name], tensor.dtype)
        for name, tensor in model.input.items()
    }
    expected = {n: np.asarray(y) for n, y in model(given, training=False).items()}
    written = export(model, tmp_path, fold=fold, golden=ROWS, batch_sizes=[1, 64])
    assert written.difference <= 1e-6
    found = verify(written.path)
    assert found.problems == ()
    assert found.difference <= 1e-6
    served = run_in_cpp_session(written.path, ROWS)
    in_session = answers_of_a_v1_session(written.path, ROWS)
    for name, values in expected.items():
        assert np.isfinite(served[name]).all()
        np.testing.assert_allclose(served[name], values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(in_session[name], values, rtol=1e-5, atol=1e-6)
    alone = run_in_cpp_session(written.path, ROWS, "buy")
    np.testing.assert_allclose(alone["buy"], served["buy"], rtol=1e-6, atol=1e-7)


def answers_of_a_v1_session(path, rows):
    """The outputs as a session with the v1 loader gives them."""
    signature = read_meta_graph(path).signature_def["serving_default"]
    feeds = {signature.inputs[name].name: rows[name] for name in rows}
    fetches = {name: info.name for name, info in signature.outputs.items()}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        return session.run(fetches, feeds)
