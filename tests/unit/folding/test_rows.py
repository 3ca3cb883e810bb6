import keras
import numpy as np

from tfmtl.folding.rows import made_up_rows


def test_rows_fit_the_inputs_and_repeat_for_a_seed():
    inputs = {
        "text": keras.Input((1,), dtype="string", name="text"),
        "ids": keras.Input((2,), dtype="int64", name="ids"),
        "size": keras.Input((None, 3), name="size"),
    }
    text = keras.layers.StringLookup(vocabulary=["at", "de"], name="look")
    ids = keras.layers.Concatenate()([text(inputs["text"]), inputs["ids"]])
    model = keras.Model(inputs, {"ids": ids, "size": inputs["size"] * 2.0})
    rows, again = made_up_rows(model, 50), made_up_rows(model, 50)
    assert rows["size"].shape == (50, 1, 3)
    assert rows["size"].dtype == "float32"
    assert set(np.unique(rows["ids"])) == {0, 1}
    assert {"at", "de", "", "unknown"} <= set(rows["text"].ravel())
    for name in rows:
        np.testing.assert_array_equal(rows[name], again[name])


def test_rows_are_structured_like_the_input():
    first, second = keras.Input((1,)), keras.Input((2,))
    rows = made_up_rows(keras.Model([first, second], first), 3)
    assert [row.shape for row in rows] == [(3, 1), (3, 2)]


def test_rows_of_ids_and_of_sequences_are_known_to_their_look_up():
    inputs = {
        "ids": keras.Input((1,), dtype="int64", name="ids"),
        "words": keras.Input((None,), dtype="string", name="words"),
    }
    ids = keras.layers.IntegerLookup(vocabulary=[70, 80])(
        keras.ops.maximum(inputs["ids"], -1)
    )
    words = keras.layers.StringLookup(vocabulary=["at"])(inputs["words"][:, :9])
    rows = made_up_rows(keras.Model(inputs, {"ids": ids, "words": words}))
    assert {70, 80, 0} <= set(rows["ids"].ravel())
    assert rows["words"].shape == (64, 3)
    assert "at" in rows["words"]
