"""keras-rs beside tfmtl: interactions, experts, pairwise losses, distributed tables."""

import keras
import keras_rs
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tfmtl import features, layers, models
from tfmtl.tasks import Binary, Ranking

TASKS = [Binary("click"), Ranking("rating", within="user")]
WIDTH = 4 + 4 + 2  # of the encoded columns
ROWS = 120


def columns(seed=0):
    rng = np.random.default_rng(seed)
    x = {
        "user": rng.choice(["ann", "bob", "cat"], ROWS),
        "item": rng.integers(0, 8, ROWS),
        "x": rng.normal(size=(ROWS, 2)).astype("f4"),
    }
    return x, {"click": x["x"][:, 0] > 0, "rating": rng.integers(0, 5, ROWS)}


def specs():
    user = features.Categorical("user", units=4, vocabulary=("ann", "bob", "cat"))
    item = features.Categorical("item", dtype="int64", units=4, hash_bins=20)
    return [user, item, features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))]


def dots():
    """DLRM's interaction as an expert: what it reads is five fields of two."""
    inputs = keras.Input((WIDTH,))
    fields = keras.ops.split(inputs, WIDTH // 2, axis=1)
    made = keras_rs.layers.DotInteraction()(fields)
    together = keras.layers.Concatenate()([inputs, made])
    return keras.Model(inputs, keras.layers.Dense(WIDTH, "relu")(together))


def unlike():
    """Experts of three kinds, of one width."""
    cross = keras_rs.layers.FeatureCross(projection_dim=3)
    return [cross, dots(), keras.layers.Dense(WIDTH, "relu")]


RECIPES = {
    "single_task": lambda: {"bottom": unlike()[0]},
    "shared_bottom": lambda: {"bottom": unlike()[1]},
    "cross_stitch": lambda: {"streams": unlike()[:2]},
    "omoe": lambda: {"experts": unlike()},
    "mmoe": lambda: {"experts": unlike(), "levels": [1, 1]},
    "cgc": lambda: {"specific": unlike()[:1], "shared": unlike()[1:]},
    "ple": lambda: {"specific": unlike()[:2], "shared": unlike()[2:]},
    "adatt": lambda: {"specific": unlike()},
    "snr": lambda: {"levels": [(unlike(), 1), (2, WIDTH)]},
}


def assert_same(model, other, x):
    found, expected = other.predict(x, verbose=0), model.predict(x, verbose=0)
    assert set(found) == set(expected) == {"click", "rating"}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-6)


def trained(model, x, y):
    model.compile("adam", metrics={})
    loss = model.fit(x, y, batch_size=40, verbose=0).history["loss"][0]
    assert np.isfinite(loss)
    return model


@pytest.mark.parametrize("recipe", RECIPES)
def test_experts_of_every_recipe(recipe, tmp_path):
    x, y = columns()
    keras.utils.set_random_seed(1)
    arguments = RECIPES[recipe]()
    model = trained(getattr(models, recipe)(specs(), TASKS, **arguments), x, y)
    names = {type(layer).__name__ for layer in model.layers}
    assert names & {"FeatureCross", "Functional"}
    assert_same(model, tfmtl.folding.fold(model), x)
    model.save(tmp_path / "model.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "model.keras"), x)


def test_every_architecture_is_here():
    assert set(RECIPES) == {
        name
        for name in models.__all__
        if name.islower() and name not in ("extraction", "fusion", "with_score")
    }


@pytest.mark.parametrize("gated", [None, {}], ids=["plain", "fields may close"])
def test_interactions_before_the_experts(gated, tmp_path):
    x, y = columns()
    keras.utils.set_random_seed(2)
    interactions = [
        features.OfFields(keras_rs.layers.DotInteraction()),
        keras_rs.layers.FeatureCross(),
        keras_rs.layers.FeatureCross(projection_dim=3),
    ]
    encoder = features.Encoder(specs(), interactions, gated)
    model = trained(models.mmoe(encoder, TASKS, experts=2), x, y)
    folded = tfmtl.folding.fold(model)
    assert_same(model, folded, x)
    folded.save(tmp_path / "model.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "model.keras"), x)


def test_ranking_is_served_as_any_number(tmp_path):
    x, y = columns()
    model = trained(models.shared_bottom(specs(), TASKS), x, y)
    scored = models.with_score(model, {"click": 1.0, "rating": 0.5})
    written = tfmtl.serving.export(scored, tmp_path / "ranker", fold=True)
    served = tf.saved_model.load(str(written.path)).signatures
    assert {"rating", "regress_rating", "classify_click", "score"} <= set(served)
    expected = scored.predict(x, verbose=0)
    given = {name: np.reshape(values, (ROWS, -1)) for name, values in x.items()}
    found = tfmtl.serving.run_in_cpp_session(written.path, given)
    np.testing.assert_allclose(found["rating"], expected["rating"], atol=2e-6)
    np.testing.assert_allclose(found["score"], expected["score"], atol=2e-6)


def table(name, rows):
    """A feature of one id in a table of its own."""
    config = keras_rs.layers.TableConfig(
        name=f"{name}s", vocabulary_size=rows, embedding_dim=4
    )
    return keras_rs.layers.FeatureConfig(
        name=name, table=config, input_shape=(None, 1), output_shape=(None, 4)
    )


def test_distributed_embedding_before_sub_networks(tmp_path):
    """On this machine's processor, where it is a plain table."""
    keras.utils.set_random_seed(3)
    sizes = {"user": 3, "item": 8}
    ids = {name: keras.Input((1,), name=name, dtype="int32") for name in sizes}
    tables = keras_rs.layers.DistributedEmbedding(
        {name: table(name, rows) for name, rows in sizes.items()}, name="tables"
    )
    x = keras.layers.Concatenate()(list(tables(ids).values()))
    x = layers.Experts(4, 8)(x)
    x = layers.SubNetworkRouting(2, 8, activation="relu")(x)
    outputs = {
        task.name: layers.Tower(
            (4,), head_activation=task.head_activation, name=task.name
        )(stream)
        for task, stream in zip(TASKS, keras.ops.unstack(x, 2, axis=1), strict=True)
    }
    model = models.MultiTaskModel(ids, outputs, tasks=TASKS)

    given, y = columns()
    _, users = np.unique(given["user"], return_inverse=True)
    given = {"user": users[:, None], "item": given["item"][:, None]}
    given = {name: values.astype("int32") for name, values in given.items()}
    before = [w.numpy() for w in tables.trainable_variables]
    trained(model, given, y)
    assert len(before) == 2
    for old, new in zip(before, tables.trainable_variables, strict=True):
        assert not np.allclose(old, new)

    [gate] = tfmtl.sparsity.gates(model)
    gate.set_log_alpha(np.where(np.eye(2, 4), 5.0, -9.0))  # one input per output
    folded = tfmtl.folding.fold(model)
    assert_same(model, folded, given)
    assert folded.count_params() < model.count_params()
    model.save(tmp_path / "model.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "model.keras"), given)
    written = tfmtl.serving.export(model, tmp_path / "ranker", fold=True)
    found = tfmtl.serving.run_in_cpp_session(written.path, given)
    expected = model.predict(given, verbose=0)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-6)
