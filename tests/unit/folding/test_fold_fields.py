"""Fields that training closed are gone from the folded model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl.features import (
    Bucketized,
    Categorical,
    Cross,
    Encoder,
    Numeric,
    Sequence,
    encode,
)
from tfmtl.folding import fold
from tfmtl.layers import FieldGate
from tfmtl.models import mmoe, single_task
from tfmtl.tasks import Binary

WORDS = ("a", "b", "c")
FEATURES = [
    Categorical("job", vocabulary=WORDS, units=4),
    Categorical("city", vocabulary=WORDS[:2], units=4),
    Categorical("hashed", hash_bins=6, units=4),
    Bucketized("age", boundaries=(0.0,), units=4),
    Bucketized("pay", boundaries=(-1.0, 1.0), units=4),
    Numeric("age", mean=(0.0,), std=(1.0,)),
    Numeric("pay", mean=(1.0,), std=(2.0,), clip=(-1, 3)),
    Numeric("wide", mean=(0.0, 1.0), std=(1.0, 1.0), width=2),
    Cross("job_age", columns=("job", "age"), hash_bins=7, units=4),
    Categorical("video", dtype="int64", vocabulary=(7, 8), table="t", units=4),
    Sequence(
        "seen",
        dtype="int64",
        vocabulary=(7, 8),
        table="t",
        units=4,
        pooling="attention",
        target="video",
    ),
    Sequence("tags", vocabulary=WORDS, units=3, length=4),
]


def some_rows(model, count=40):
    generator = np.random.default_rng(0)

    def column(tensor):
        shape = (count, tensor.shape[1] or 5)
        if tensor.dtype == "string":
            return tf.constant(generator.choice([*WORDS, "", "zz"], shape).tolist())
        if tensor.dtype == "int64":
            return tf.constant(generator.choice([7, 8, 9, -1], shape))
        values = generator.normal(size=shape).astype("f4")
        values[::7] = np.nan
        return tf.constant(values)

    return {name: column(tensor) for name, tensor in model.input.items()}


def outputs(model, rows):
    return keras.ops.convert_to_numpy(model(rows, training=False)["y"])


def made(features=FEATURES, **arguments):
    keras.utils.set_random_seed(0)
    inputs, x = encode(Encoder(features, hard_concrete={}, **arguments))
    model = keras.Model(inputs, {"y": keras.layers.Dense(2, name="head")(x)})
    for weight in model.weights:
        if weight.name == "embeddings":
            weight.assign(keras.random.normal(weight.shape, seed=1))
    return model


def gates(model):
    return [layer for layer in model.layers if isinstance(layer, FieldGate)]


def close(model, *closed, log_alpha=4.0):
    """Closes fields by name; the others serve a gate of 1, or as given."""
    for layer in gates(model):
        kept = [name not in closed for name in layer.fields]
        layer.gate.set_log_alpha(np.where(kept, log_alpha, -4.0))


def folded_twice(model):
    folded, rows = fold(model), some_rows(model)
    np.testing.assert_allclose(outputs(folded, rows), outputs(model, rows), atol=1e-6)
    again = fold(folded)
    assert sorted(type(layer).__name__ for layer in again.layers) == sorted(
        type(layer).__name__ for layer in folded.layers
    )
    assert [w.shape for w in again.weights] == [w.shape for w in folded.weights]
    np.testing.assert_array_equal(outputs(again, rows), outputs(folded, rows))
    assert set(folded.input) == set(model.input)
    return folded


def names(model):
    return {layer.name for layer in model.layers}


def test_open_gates_are_gone_and_nothing_else():
    model = made()
    close(model)
    folded = folded_twice(model)
    assert names(model) - names(folded) == {layer.name for layer in gates(model)}
    gone = sum(layer.count_params() for layer in gates(model))
    assert folded.count_params() == model.count_params() - gone


def test_gates_in_between_stay_as_numbers():
    model = made()
    close(model, "job", log_alpha=0.5)
    folded = folded_twice(model)
    assert not gates(folded)
    assert "fields_4_gate" in names(folded)
    assert not folded.get_layer("fields_4_gate").weights


def test_a_closed_field_takes_its_rows_and_its_look_up_along():
    model = made()
    close(model, "city", "hashed")
    folded = folded_twice(model)
    assert {"city_lookup", "hashed_lookup"} <= names(model) - names(folded)
    before, after = (m.get_layer("embedding_4") for m in (model, folded))
    assert after.sizes == [before.sizes[k] for k in (0, 3, 4, 5)]
    kept = np.delete(before.get_weights()[0], np.s_[5 : 5 + 4 + 7], axis=0)
    np.testing.assert_array_equal(after.get_weights()[0], kept)


def test_a_closed_bucketized_field_keeps_the_number_of_its_column():
    model = made([f for f in FEATURES if f.name in ("age", "pay", "city")])
    close(model)
    for layer in gates(model):
        layer.gate.set_log_alpha([-4.0 if n == "age" else 4.0 for n in layer.fields])
    folded = folded_twice(model)
    assert folded.get_layer("bucketize").boundaries == [[-1.0, 1.0]]
    assert folded.get_layer("standardized_1").mean == [1.0]
    assert folded.get_layer("standardized_1").clip == [[-1.0, 3.0]]


def test_what_a_cross_reads_stays_without_its_embedding():
    model = made()
    close(model, "job", "age")
    folded = folded_twice(model)
    assert {"job_lookup", "job_age_cross", "bucketize"} <= names(folded)
    assert folded.get_layer("embedding_4").sizes == [4, 7, 4, 7]


def test_a_closed_sequence_takes_its_table_and_attention_along():
    model = made()
    close(model, "seen", "tags")
    folded = folded_twice(model)
    gone = names(model) - names(folded)
    assert {"seen_pooling", "tags_pooling", "tags_values_table"} <= gone
    assert "tags_values_lookup" in gone
    assert "t_table" in names(folded)  # the video itself is open


def test_a_closed_target_is_kept_for_its_sequence():
    model = made()
    close(model, "video")
    folded = folded_twice(model)
    assert {"t_table", "t_lookup", "seen_pooling"} <= names(folded)


def test_a_table_goes_with_the_last_of_its_fields():
    model = made()
    close(model, "video", "seen")
    folded = folded_twice(model)
    assert {"t_table", "t_lookup", "seen_pooling"} <= names(model) - names(folded)


@pytest.mark.parametrize("kept, rows", [("job", 5 * 4), ("tags", 5 * 3), ("wide", 0)])
def test_one_field_left(kept, rows):
    model = made()
    close(model, *(f.name for f in FEATURES if f.name != kept))
    folded = folded_twice(model)
    filled = [w for w in folded.weights if w.name in ("constants", "value")]
    assert not any(w.numpy().any() for w in filled)
    zeros = sum(w.shape.num_elements() for w in filled)
    head = model.get_layer("head").count_params()
    assert folded.count_params() == head + rows + zeros


def test_seeds_of_which_fields_are_closed():
    every = sorted({feature.name for feature in FEATURES})
    model = made()
    for seed in range(5):
        generator = np.random.default_rng(seed)
        close(model, *(name for name in every if generator.random() < 0.5))
        folded_twice(model)


def test_interactions_read_zeros_of_closed_fields():
    model = made(interactions=[keras.layers.Dense(3, "relu")])
    close(model, "job", "seen")
    folded_twice(model)


@pytest.mark.parametrize("recipe", [mmoe, single_task])
def test_recipes_take_an_encoder(recipe):
    encoder = Encoder(FEATURES, hard_concrete={"l0": 0.5})
    model = recipe(encoder, [Binary("y"), Binary("z")])
    assert len(model.losses) == 4 * (1 if recipe is mmoe else 2)
    close(model, "city", "tags")
    folded = folded_twice(model)
    assert {"city_lookup", "tags_values_lookup"} <= names(model) - names(folded)
