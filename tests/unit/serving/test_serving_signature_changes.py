"""Signatures: what breaks clients is told, what does not is not."""

import pytest
import tensorflow as tf
from two_versions import save

from tfmtl.serving.signature_changes import signature_changes

AGE = {"age": ((None, 1), "float32")}


def test_same(tmp_path):
    path = save(tmp_path / "1", lambda age: {"click": age}, **AGE)
    assert signature_changes(path, path) == ()


def test_inputs(tmp_path):
    ids = {"ids": ((None, 20), "int64"), "item": ((None, 1), "int64")}
    old = save(tmp_path / "1", lambda age, ids, item: {"y": age}, **AGE, **ids)
    other = {
        "age": ((None, 1), "float32"),
        "ids": ((None, 10), "int64"),
        "item": ((None, 1), "float32"),
        "user": ((None, 1), "string"),
    }
    new = save(tmp_path / "2", lambda age, ids, item, user: {"y": age}, **other)
    assert signature_changes(old, new) == (
        "input `ids` was int64 (batch, 20), is int64 (batch, 10)",
        "input `item` was int64 (batch, 1), is float32 (batch, 1)",
        "input `user` is new: requests without it are refused",
    )
    assert signature_changes(new, old)[-1] == (
        "input `user` is gone: requests that have it are refused"
    )


def test_an_axis_that_became_free_breaks_nobody(tmp_path):
    def longest(x):
        return {"y": tf.reduce_max(x, axis=1, keepdims=True)}

    fixed, free = (
        save(tmp_path / str(k), longest, x=((None, k), "int64")) for k in (20, None)
    )
    assert signature_changes(fixed, free) == ()
    assert signature_changes(free, fixed) == (
        "input `x` was int64 (batch, -1), is int64 (batch, 20)",
    )


def test_outputs(tmp_path):
    old = save(tmp_path / "1", lambda age: {"click": age, "like": age}, **AGE)
    new = save(
        tmp_path / "2",
        lambda age: {"click": tf.concat([age, age], 1), "save": age},
        **AGE,
    )
    assert signature_changes(old, new) == (
        "output `click` was float32 (batch, 1), is float32 (batch, 2)",
        "output `like` is gone",
    )


def test_signature_that_is_gone(exported, tmp_path):
    path = save(tmp_path / "1", lambda age: {"ctr": age}, **AGE)
    found = signature_changes(exported.path, path)
    assert "output `order value` is gone" in found
    assert "signature `ctr` is gone" in found
    assert "signature `serving_examples` is gone" in found
    assert "signature `order value` is gone" not in found  # its output is, as said


def test_no_default_signature(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"))
    path = save(tmp_path / "2", lambda age: {"click": age}, **AGE)
    with pytest.raises(ValueError, match="should have the signature 'serving_default'"):
        signature_changes(path, tmp_path / "1")
