"""What features learn from data, and what they refuse."""

import dataclasses

import numpy as np
import pytest

from tfmtl.features import Bucketized, Categorical, Numeric, adapt


def test_numeric_statistics_leave_bad_values_out():
    column = np.array([[1.0, 5.0], [3.0, np.nan], [np.inf, 7.0]])
    feature = Numeric("x", width=2).adapted(column)
    assert feature.mean == (2.0, 6.0)
    assert feature.std == (1.0, 1.0)


def test_numeric_logarithm_keeps_the_sign():
    feature = Numeric("x", log=True).adapted(np.array([np.e - 1, 1 - np.e, 0.0]))
    np.testing.assert_allclose(feature.mean, 0, atol=1e-12)
    np.testing.assert_allclose(feature.std, np.sqrt(2 / 3))


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, -1e9 / 3])
def test_constant_column_has_unit_scale(value):
    feature = Numeric("x").adapted(np.full(1000, value))
    np.testing.assert_allclose(feature.mean, value)
    assert feature.std == (1.0,)


def test_small_but_real_scale_is_kept():
    feature = Numeric("x").adapted(np.array([1e-9, 3e-9]))
    np.testing.assert_allclose(feature.std, 1e-9)


def test_vocabulary_is_most_frequent_first_then_alphabetical():
    column = np.array(["b", "c", "a", "c", "b", "d"])
    assert Categorical("x").adapted(column).vocabulary == ("b", "c", "a", "d")


def test_min_count():
    column = np.array([[b"b"], [b"a"], [b"b"]])
    feature = Categorical("x", min_count=2).adapted(column)
    assert feature.vocabulary == ("b",)
    assert feature.rows == 2


def test_vocabulary_of_bytes_and_of_objects_is_text():
    for column in (
        np.array([b"caf\xc3\xa9", b"a", b"a"]),
        np.array(["café", "a", "a"], object),
        np.array([b"caf\xc3\xa9", b"a", b"a"], object),
    ):
        assert Categorical("x").adapted(column).vocabulary == ("a", "café")


def test_boundaries_of_few_distinct_values_separate_them():
    column = np.array([3.0, 1.0, 2.0, 2.0, np.nan, np.inf])
    feature = Bucketized("x", buckets=3).adapted(column)
    assert feature.boundaries == (2.0, 3.0)
    assert feature.rows == 4


def test_boundaries_of_many_values():
    column = np.random.default_rng(0).lognormal(size=10_000)
    boundaries = Bucketized("x", buckets=16).adapted(column).boundaries
    assert 2 < len(boundaries) < 16
    assert list(boundaries) == sorted(set(boundaries))
    assert set(boundaries) <= set(column.astype("f4").tolist())


def test_common_value_does_not_use_up_the_buckets():
    column = np.concatenate([np.zeros(9900), np.arange(1, 101)])
    boundaries = Bucketized("x", buckets=16).adapted(column).boundaries
    assert len(boundaries) >= 7


def test_one_distinct_value_has_no_boundary():
    feature = Bucketized("x").adapted(np.array([1.0, 1.0]))
    assert feature.boundaries == ()
    assert feature.is_adapted


def test_adapt_leaves_specifications_as_they_are():
    features = [Numeric("n"), Bucketized("n"), Categorical("c")]
    copies = [dataclasses.replace(feature) for feature in features]
    data = {"n": np.array([1.0, 2.0]), "c": np.array(["a", "b"]), "other": None}
    adapted = adapt(features, data)
    assert features == copies
    assert not any(feature.is_adapted for feature in features)
    assert all(feature.is_adapted for feature in adapted)
    assert [type(feature) for feature in adapted] == [type(f) for f in features]


def test_adapt_again_gives_the_same():
    data = {"n": np.array([1.0, 2.0, 4.0])}
    once = adapt([Numeric("n"), Bucketized("n")], data)
    assert adapt(once, data) == once


def test_missing_column():
    with pytest.raises(ValueError) as error:
        adapt([Numeric("age")], {"Age": np.ones(2), "b": np.ones(2)})
    assert str(error.value) == (
        "`data` should have the column 'age'. Received: columns=['Age', 'b']"
    )


@pytest.mark.parametrize(
    "feature", [Numeric("x"), Bucketized("x"), Categorical("x"), Numeric("x", width=3)]
)
def test_refused_width(feature):
    with pytest.raises(ValueError) as error:
        feature.adapted(np.ones((4, 2)))
    assert str(error.value) == (
        f"Feature 'x' should have {feature.width} value(s) per row. Received: 2"
    )


@pytest.mark.parametrize("feature", [Numeric("x"), Bucketized("x")])
def test_no_finite_value(feature):
    with pytest.raises(ValueError) as error:
        feature.adapted(np.array([np.nan, np.inf]))
    assert str(error.value) == (
        "Feature 'x' should have a finite value in the data to adapt to. Received: none"
    )


def test_no_frequent_value():
    with pytest.raises(ValueError) as error:
        Categorical("x", min_count=3).adapted(np.array(["a", "b", "a"]))
    assert str(error.value) == (
        "Feature 'x' should have a value that occurs at least 3 time(s) in the data "
        "to adapt to. Received: none"
    )
