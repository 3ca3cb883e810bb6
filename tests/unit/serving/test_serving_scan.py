"""The static scan: facts that add up, and what it refuses."""

import keras
import numpy as np
import tensorflow as tf

from tfmtl.serving import export, scan

X = tf.TensorSpec((None, 2), tf.float32, name="x")


def save(path, call, spec=X, **attributes):
    """Saves a function of `x`."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    function = tf.function(call).get_concrete_function(spec)
    tf.saved_model.save(module, str(path), function)
    return path


def problems(path):
    """The scan's problems in one text."""
    return "; ".join(scan(path).problems)


def test_good_model_has_no_problems(exported):
    facts = scan(exported.path)
    assert (facts.problems, facts.repetitions) == ((), ())


def test_facts_of_the_export_are_those_of_the_published_folder(exported):
    assert scan(exported.path) == exported.scan


def test_bytes_shrink_by_exactly_what_was_removed(tmp_path):
    def make(width):
        x = keras.Input((4,), name="x")
        hidden = keras.layers.Dense(width, name="hidden")(x)
        return keras.Model({"x": x}, {"y": keras.layers.Dense(1, name="y")(hidden)})

    wide, narrow = (export(make(width), tmp_path).scan for width in (100, 10))
    assert wide.weight_bytes - narrow.weight_bytes == 90 * (4 + 1 + 1) * 4
    assert abs(wide.graph_bytes - narrow.graph_bytes) < 100
    assert wide.ops["MatMul"] == narrow.ops["MatMul"] == 2


def test_xla_is_a_problem(tmp_path):
    inner = tf.function(lambda x: x * 2.0, jit_compile=True)
    save(tmp_path, lambda x: {"y": inner(x)})
    assert "demands XLA, which model servers disable" in problems(tmp_path)


def test_python_function_is_a_problem(tmp_path):
    def call(x):
        y = tf.numpy_function(lambda a: a * 2.0, [x], tf.float32)
        y.set_shape((None, 2))
        return {"y": y}

    save(tmp_path, call)
    assert "is a PyFunc, which no model server runs" in problems(tmp_path)


def test_output_type_is_a_problem(tmp_path):
    save(tmp_path, lambda x: {"y": tf.cast(x, tf.float64)})
    assert problems(tmp_path) == (
        "output 'y' should be float32, int64 or string. Received: dtype=float64"
    )


def test_fixed_batch_is_a_problem(tmp_path):
    fixed = tf.TensorSpec((5, 2), tf.float32, name="x")
    save(tmp_path, lambda x: {"y": tf.reduce_sum(x)}, fixed)
    text = problems(tmp_path)
    assert "input 'x' should have an unknown first dimension" in text
    assert "Received: shape=[5, 2]" in text
    assert "output 'y' should have an unknown first dimension" in text
    assert "Received: shape=[]" in text


def test_output_of_unknown_rank_is_a_problem(tmp_path):
    """In whichever signature it is."""

    def call(x):
        return {"y": tf.reshape(x, tf.fill([tf.cast(tf.reduce_max(x), tf.int32)], 1))}

    function = tf.function(call).get_concrete_function(X)
    names = ("serving_default", "task")
    signatures = dict.fromkeys(names, function)
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=signatures)
    for place in ("", " of signature 'task'"):
        assert (
            f"output 'y'{place} should have an unknown first dimension, the batch. "
            "Received: shape=None" in problems(tmp_path)
        )


def test_missing_variables_index_is_a_problem(tmp_path):
    save(tmp_path, lambda x: {"y": x + 1.0})
    (tmp_path / "variables" / "variables.index").unlink()
    assert problems(tmp_path) == "`variables/variables.index` is missing"


def test_weight_stored_twice_is_a_problem(tmp_path):
    weight = np.random.default_rng(0).normal(size=(2, 1024)).astype("float32")
    variable = tf.Variable(weight)
    save(tmp_path, lambda x: {"y": x @ variable + x @ weight}, variable=variable)
    facts = scan(tmp_path)
    assert facts.weight_bytes == 2 * weight.nbytes
    assert "one tensor is stored 2 times" in "; ".join(facts.repetitions)
    assert facts.problems == ()
    assert scan(tmp_path, weights=[weight, weight]).repetitions == ()


def test_model_export_of_keras_stores_twice(small_model, tmp_path):
    x = keras.Input((64,), name="x")
    model = keras.Model({"x": x}, {"y": keras.layers.Dense(64)(x)})
    model.export(str(tmp_path), verbose=False)
    assert "one tensor is stored 2 times" in "; ".join(scan(tmp_path).repetitions)


def test_every_signature_is_checked(tmp_path):
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    good = tf.function(lambda x: {"y": x}).get_concrete_function(spec)
    bad = tf.function(lambda x: {"y": tf.cast(x, tf.int32)})
    signatures = {"task": bad.get_concrete_function(spec), "other": good}
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=signatures)
    assert "there is no signature 'serving_default', but ['other', 'task']" in (
        problems(tmp_path)
    )
    assert (
        "output 'y' of signature 'task' should be float32, int64 or string. Received: "
        "dtype=int32" in problems(tmp_path)
    )
