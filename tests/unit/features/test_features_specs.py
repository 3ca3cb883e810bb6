"""What features refuse, alone and together."""

import json
import math
from dataclasses import asdict

import keras
import numpy as np
import pytest

from tfmtl.features import (
    Bucketized,
    Categorical,
    Cross,
    Numeric,
    Sequence,
    adapt,
    encode,
)
from tfmtl.serving import export

VOCABULARY = (
    "`vocabulary` should be a path, or one or more different values of dtype "
    "{dtype}, none of them missing, and left out where there are `hash_bins`. "
    "Received: vocabulary={vocabulary!r}, hash_bins={hash_bins} for 'x'"
)

RETURN = "with a carriage return that no line feed follows: end lines in line feeds"


def refused(make, **arguments):
    with pytest.raises(ValueError) as error:
        make("x", **arguments)
    return str(error.value)


@pytest.mark.parametrize(
    "clip",
    [
        (2, 1),
        (1, 1),
        (1,),
        5,
        (None, None, None),
        (math.nan, 1),
        (0, math.nan),
        (None, math.nan),
    ],
)
def test_numeric_refuses_bounds(clip):
    assert refused(Numeric, clip=clip) == (
        "`clip` should be a lower and a greater upper bound, either of which may be "
        f"None. Received: clip={clip!r}"
    )


@pytest.mark.parametrize("known", [0.0, (0.0,), (0.0, 1.0, 2.0)])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_numeric_refuses_statistics_of_another_width(name, known):
    assert refused(Numeric, width=2, **{name: known}) == (
        f"`{name}` should be a tuple of one number per value, 2. "
        f"Received: {name}={known!r}"
    )


@pytest.mark.parametrize(
    "make, arguments, name",
    [
        (Numeric, {"width": 0}, "width"),
        (Categorical, {"units": 0}, "units"),
        (Categorical, {"min_count": 0}, "min_count"),
        (Categorical, {"max_size": 0}, "max_size"),
        (Categorical, {"hash_bins": 0}, "hash_bins"),
        (Sequence, {"length": 0}, "length"),
        (Cross, {"hash_bins": 0}, "hash_bins"),
        (Bucketized, {"buckets": 0}, "buckets"),
    ],
)
def test_positive_numbers(make, arguments, name):
    assert refused(make, **arguments) == (
        f"`{name}` should be a positive integer. Received: {name}=0"
    )


@pytest.mark.parametrize("make", [Categorical, Sequence])
@pytest.mark.parametrize(
    "dtype, vocabulary, hash_bins",
    [
        ("string", (), None),
        ("string", ("a", "a"), None),
        ("string", ("a", ""), None),
        ("string", (1,), None),
        ("string", ("a",), 5),
        ("string", "values.txt", 5),
        ("int64", (3, -1), None),
        ("int64", ("3",), None),
        ("string", (["a"],), None),
        ("int64", 3, None),
    ],
)
def test_refused_vocabulary(make, dtype, vocabulary, hash_bins):
    arguments = {"dtype": dtype, "vocabulary": vocabulary, "hash_bins": hash_bins}
    assert refused(make, **arguments) == VOCABULARY.format(**arguments)


@pytest.mark.parametrize("make", [Categorical, Sequence])
@pytest.mark.parametrize(
    "dtype, given, kept",
    [
        ("string", np.array(["a", "b"]), ("a", "b")),
        ("string", [np.str_("a")], ("a",)),
        ("string", np.array(["a", "b"], object), ("a", "b")),
        ("int64", np.unique([4, 3]), (3, 4)),
        ("int64", [np.int32(4), 3], (4, 3)),
    ],
)
def test_vocabulary_of_numpy_is_kept_as_plain_values(make, dtype, given, kept):
    feature = make("x", dtype=dtype, vocabulary=given)
    assert feature == make("x", dtype=dtype, vocabulary=kept)
    assert {type(v) for v in feature.vocabulary} <= {str, int}
    assert json.loads(json.dumps(asdict(feature)))["vocabulary"] == list(kept)


def test_arrays_of_other_values_are_no_vocabulary():
    for given in (np.array([1.5]), np.array(["a"]), np.array([[1, 2]]), np.array(3)):
        message = refused(Categorical, dtype="int64", vocabulary=given)
        assert message.startswith("`vocabulary` should be a path, or one or more ")


def test_refused_type():
    assert refused(Categorical, dtype="int32") == (
        "`dtype` should be one of ['string', 'int64']. Received: dtype='int32'"
    )


def test_refused_pooling():
    assert refused(Sequence, pooling="min") == (
        "`pooling` should be one of ('mean', 'sum', 'max', 'attention'). "
        "Received: pooling='min'"
    )
    for arguments in ({"pooling": "attention"}, {"target": "y"}):
        assert "`target` should be the name of a Categorical feature where" in refused(
            Sequence, **arguments
        )


@pytest.mark.parametrize("columns", [(), ("a",), ("a", "a"), "ab"])
def test_refused_cross(columns):
    assert refused(Cross, columns=columns) == (
        "`columns` should be the names of two or more features. "
        f"Received: columns={columns!r}"
    )


def test_initializer_objects_are_kept_as_configurations():
    given = [keras.initializers.HeNormal(seed=3), keras.regularizers.L2(0.5)]
    first, second = (
        Categorical("x", initializer=given[0], regularizer=given[1]) for _ in range(2)
    )
    assert first == second
    assert first.initializer["config"]["seed"] == 3
    assert keras.regularizers.get(first.regularizer).l2 == 0.5


def test_features_of_a_table_should_agree():
    features = [
        Categorical("a", vocabulary=("x",), table="t"),
        Categorical("b", vocabulary=("x",), table="t", units=4),
    ]
    with pytest.raises(ValueError) as error:
        encode(features)
    assert str(error.value) == (
        "`features` of the table 't' should agree in units, initializer, regularizer, "
        "dtype, vocabulary, hash_bins, min_count and max_size. "
        f"Received: {features[0]!r} and {features[1]!r}"
    )


@pytest.mark.parametrize(
    "features, names",
    [
        ([Categorical("t"), Categorical("a", table="t")], ("t", "a", "t")),
        ([Categorical("t", table="u"), Sequence("a", table="t")], ("t", "a", "t")),
        ([Categorical("s_values"), Sequence("s")], ("s", "s_values", "s_values")),
        (
            [Sequence("s"), Categorical("a", table="s_values")],
            ("s", "a", "s_values"),
        ),
    ],
)
def test_a_table_named_like_another_feature_s(features, names):
    for function in (encode, lambda features: adapt(features, {})):
        with pytest.raises(ValueError) as error:
            function(features)
        assert str(error.value) == (
            "Features {!r} and {!r} should have one `table` or tables of different "
            "names. Received: {!r} for both".format(*names)
        )


def test_a_table_named_like_a_feature_in_it_or_without_a_table():
    features = [
        Categorical("t", vocabulary=("x",), table="t"),
        Sequence("s", vocabulary=("x",), table="t"),
        Numeric("u", mean=(0.0,), std=(1.0,)),
        Categorical("v", vocabulary=("x",), table="u"),
    ]
    assert encode(features)[1].shape == (None, 25)


@pytest.mark.parametrize("name", ["a/b", "", 3])
def test_name_that_no_input_can_have(name):
    with pytest.raises(ValueError) as error:
        encode([Numeric(name, mean=(0.0,), std=(1.0,))])
    assert str(error.value) == (
        f"Names of `features` should be texts without '/'. Received: name={name!r}"
    )


@pytest.mark.parametrize("name", ["hours per week", "größe", "_x", "class", "self"])
def test_name_that_export_refuses(name, tmp_path):
    feature = Categorical(name, vocabulary=("x",))
    with pytest.warns(UserWarning) as warned:
        inputs, x = encode([feature])
    assert str(warned[0].message) == (
        "A model is exported only where its columns have names of ASCII letters, "
        "digits, '_', '-' and '.', that start with a letter or digit and are no "
        f"Python keyword or 'self'. Received: {[name]}"
    )
    with pytest.raises(ValueError, match="The names of `model.input`"):
        export(keras.Model(inputs, {"y": x}), tmp_path / "model")


@pytest.mark.parametrize(
    "boundaries", [(2.0, 1.0), (1.0, 1.0), (math.nan,), (math.nan, 1.0)]
)
def test_boundaries_that_do_not_ascend(boundaries):
    assert refused(Bucketized, boundaries=boundaries) == (
        f"`boundaries` of 'x' should ascend. Received: boundaries={boundaries}"
    )


@pytest.mark.parametrize(
    "dtype, content, fault",
    [
        ("string", None, "which is no file"),
        ("string", b"", "which is empty"),
        ("string", b"a\nb\na\n", "with 'a' again in line 3"),
        ("string", b"a\n\nb\n", "with '' in line 2"),
        (
            "string",
            b"a\n\xff\xfe\n",
            "which is not in UTF-8: 'utf-8' codec can't decode byte 0xff in position "
            "2: invalid start byte",
        ),
        ("int64", b"5\na\n", "with 'a' in line 2"),
        ("string", b"a\rb\r", RETURN),
        ("string", b"a\r\r\nb\n", RETURN),
        ("int64", b"5\r6\n", RETURN),
        ("int64", b"5\n-1\n", "with '-1' in line 2"),
        ("int64", b"5\n1_0\n", "with '1_0' in line 2"),
        ("int64", "5\n٣\n".encode(), "with '٣' in line 2"),
        ("int64", b"5\n9223372036854775808", "with '9223372036854775808' in line 2"),
        (
            "string",
            b"\xef\xbb\xbfa\nb\n",
            "which starts with a byte order mark: save it as UTF-8 without one",
        ),
        (
            "int64",
            b"\xef\xbb\xbf5\n6\n",
            "which starts with a byte order mark: save it as UTF-8 without one",
        ),
    ],
)
@pytest.mark.parametrize("make", [Categorical, Sequence])
def test_files_that_are_no_vocabulary(make, dtype, content, fault, tmp_path):
    path = tmp_path / "values.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        encode([make("x", dtype=dtype, vocabulary=str(path))])
    assert str(error.value) == (
        "`vocabulary` of 'x' should be a file with one or more different values of "
        f"type {'str' if dtype == 'string' else 'int'}, one per line, none of them "
        f"missing. Received: {str(path)!r}, {fault}"
    )


@pytest.mark.parametrize("target, units", [("b", 3), ("c", None), ("n", None)])
def test_refused_target(target, units):
    features = [
        Categorical("b", vocabulary=("x",), units=3),
        Numeric("n", mean=(0.0,), std=(1.0,)),
        Sequence("s", vocabulary=("x",), pooling="attention", target=target),
    ]
    with pytest.raises(ValueError) as error:
        encode(features)
    assert str(error.value) == (
        "`target` of 's' should be the name of a Categorical feature of 8 units. "
        f"Received: target={target!r}, which has units={units}"
    )


def test_cross_of_what_is_no_feature():
    features = [
        Categorical("a", vocabulary=("x",)),
        Bucketized("b", boundaries=()),
        Numeric("c", mean=(0.0,), std=(1.0,)),
        Cross("d", columns=("a", "c")),
    ]
    with pytest.raises(ValueError) as error:
        encode(features)
    assert str(error.value) == (
        "`columns` of 'd' should be Categorical or Bucketized features, of "
        "['a', 'b']. Received: columns=('a', 'c')"
    )


def test_not_adapted():
    with pytest.raises(ValueError) as error:
        encode([Numeric("a", mean=(0.0,), std=(1.0,)), Categorical("b")])
    assert str(error.value) == (
        "`features` should be adapted to data: call `tfmtl.features.adapt`. "
        "Received: not adapted=['b']"
    )


@pytest.mark.parametrize("kinds", [[], [("a", "Numeric"), ("a", "Numeric")]])
def test_none_or_twice(kinds):
    with pytest.raises(ValueError) as error:
        encode([Numeric(name) for name, _ in kinds])
    assert str(error.value) == (
        "`features` should be one or more features, each column once per kind. "
        f"Received: {kinds}"
    )


def test_one_column_of_two_types():
    features = [
        Numeric("a", mean=(0.0,), std=(1.0,)),
        Categorical("a", vocabulary=("x",)),
    ]
    with pytest.raises(ValueError) as error:
        encode(features)
    assert str(error.value) == (
        "`features` of one column should have one type and width. Received: "
        "'a' as ('float32', 1) and as ('string', 1)"
    )


def test_more_bins_than_32_bits_count_are_refused():
    message = r"`hash_bins` should be less than 2\*\*31. Received: hash_bins=2147483648"
    with pytest.raises(ValueError, match=message):
        Categorical("x", dtype="int64", hash_bins=2**31)
