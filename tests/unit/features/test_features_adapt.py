"""What features learn from data, in arrays and in batches."""

import dataclasses

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
    adapt,
    check_columns,
)
from tfmtl.features.learning.sample import Sample


def learned(feature, column):
    [feature] = adapt([feature], {feature.name: column})
    return feature


def test_numeric_statistics_leave_bad_values_out():
    column = np.array([[1.0, 5.0], [3.0, np.nan], [np.inf, 7.0], [1e300, 6.0]])
    feature = learned(Numeric("x", width=2), column)
    assert feature.mean == (2.0, 6.0)
    np.testing.assert_allclose(feature.std, [1.0, np.sqrt(2 / 3)])


def test_numeric_logarithm_keeps_the_sign():
    feature = learned(Numeric("x", log=True), np.array([np.e - 1, 1 - np.e, 0.0]))
    np.testing.assert_allclose(feature.mean, 0, atol=1e-12)
    np.testing.assert_allclose(feature.std, np.sqrt(2 / 3))


def test_numeric_statistics_are_of_clipped_values():
    column = np.array([-9.0, 1.0, 2.0, 99.0])
    assert learned(Numeric("x", clip=(0, 3)), column).mean == (1.5,)
    assert learned(Numeric("x", clip=(None, 3)), column).mean == (-0.75,)
    assert learned(Numeric("x", clip=(0, None)), column).mean == (25.5,)


def test_a_number_may_stand_for_a_missing_value():
    column = np.array([-1.0, 1.0, 3.0, -1.0, np.nan, 1e300])
    assert learned(Numeric("x", missing=-1), column).mean == (2.0,)
    assert learned(Numeric("x", missing=0.1), np.array([0.1, 1.0], "f4")).mean == (1.0,)
    column = np.array([-1.0, 1.0, 2.0, np.nan, -1.0, 3.0])
    assert learned(Bucketized("x", missing=-1), column).boundaries == (2.0, 3.0)
    assert learned(Bucketized("x"), column).boundaries == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, -1e9 / 3])
def test_constant_column_has_unit_scale(value):
    feature = learned(Numeric("x"), np.full(100_000, value))
    np.testing.assert_allclose(feature.mean, value)
    assert feature.std == (1.0,)


def test_small_but_real_scale_is_kept():
    feature = learned(Numeric("x"), np.array([1e-9, 3e-9]))
    np.testing.assert_allclose(feature.std, 1e-9)


def test_statistics_of_many_rows_are_those_of_numpy():
    generator = np.random.default_rng(0)
    column = 1e6 + generator.normal(size=(50_000, 3)) * [0.5, 10.0, 1e7]
    column[generator.random(column.shape) < 0.1] = np.nan
    feature = learned(Numeric("x", width=3), column)
    np.testing.assert_allclose(feature.mean, np.nanmean(column, axis=0), rtol=1e-14)
    np.testing.assert_allclose(feature.std, np.nanstd(column, axis=0), rtol=1e-9)


def test_vocabulary_is_most_frequent_first_then_in_order():
    column = np.array(["b", "c", "a", "c", "b", "d"])
    assert learned(Categorical("x"), column).vocabulary == ("b", "c", "a", "d")
    ids = np.array([[7], [30], [7], [4], [0]], "int32")
    vocabulary = learned(Categorical("x", dtype="int64"), ids).vocabulary
    assert vocabulary == (7, 0, 4, 30)


def test_missing_values_are_in_no_vocabulary():
    assert learned(Categorical("x"), np.array(["", "a", ""])).vocabulary == ("a",)
    ids = np.array([-1, 5, -7, -1])
    assert learned(Categorical("x", dtype="int64"), ids).vocabulary == (5,)


def test_min_count_and_max_size():
    column = np.array([[b"b"], [b"a"], [b"b"], [b"c"], [b"c"], [b"b"]])
    assert learned(Categorical("x", min_count=2), column).vocabulary == ("b", "c")
    assert learned(Categorical("x", max_size=1), column).vocabulary == ("b",)


def test_vocabulary_of_bytes_and_of_objects_is_text():
    for column in (
        np.array([b"caf\xc3\xa9", b"a", b"a"]),
        np.array(["café", "a", "a"], object),
        np.array([b"caf\xc3\xa9", "a", b"a"], object),
    ):
        assert learned(Categorical("x"), column).vocabulary == ("a", "café")


def test_a_sequence_learns_the_values_it_uses():
    column = np.array([["b", "a", "z"], ["a", "", "z"]])
    assert learned(Sequence("x", length=2), column).vocabulary == ("a", "b")
    ragged = tf.ragged.constant([["b", "a", "z"], ["a"], []])
    assert learned(Sequence("x", length=2), ragged).vocabulary == ("a", "b")


def test_a_table_learns_from_all_its_columns():
    features = [
        Categorical("a", dtype="int64", table="t"),
        Sequence("b", dtype="int64", table="t", length=2),
        Categorical("c", dtype="int64"),
    ]
    data = {
        "a": np.array([5, 6]),
        "b": np.array([[6, 7], [-1, 6]]),
        "c": np.array([1, 2]),
    }
    a, b, c = adapt(features, data)
    assert a.vocabulary == b.vocabulary == (6, 5, 7)
    assert c.vocabulary == (1, 2)


def test_boundaries_of_few_distinct_values_separate_them():
    column = np.array([3.0, 1.0, 2.0, 2.0, np.nan, np.inf])
    feature = learned(Bucketized("x", buckets=3), column)
    assert feature.boundaries == (2.0, 3.0)
    assert feature.rows == 4


def test_boundaries_of_many_values():
    column = np.random.default_rng(0).lognormal(size=10_000)
    boundaries = learned(Bucketized("x", buckets=16), column).boundaries
    assert 2 < len(boundaries) < 16
    assert list(boundaries) == sorted(set(boundaries))
    assert set(boundaries) <= set(column.astype("f4").tolist())


def test_common_value_does_not_use_up_the_buckets():
    column = np.concatenate([np.zeros(9900), np.arange(1, 101)])
    boundaries = learned(Bucketized("x", buckets=16), column).boundaries
    assert len(boundaries) >= 7


def test_one_distinct_value_has_no_boundary():
    feature = learned(Bucketized("x"), np.array([1.0, 1.0]))
    assert feature.boundaries == ()
    assert feature.is_adapted


@pytest.mark.parametrize("batch", [100, 3000, 100_000])
def test_a_sample_of_many_values_is_uniform_and_does_not_depend_on_batches(batch):
    values = np.arange(100_000, dtype="f4")
    sample, whole = Sample(1000), Sample(1000)
    for start in range(0, len(values), batch):
        sample.update(values[start : start + batch])
    whole.update(values)
    kept = sample.finish()
    np.testing.assert_array_equal(kept, whole.finish())
    assert len(set(kept.tolist())) == 1000
    # a decile of the column has 100 values to expect, with a deviation of 9.5
    counts = np.histogram(kept, 10, (0, 100_000))[0]
    assert (abs(counts - 100) < 45).all()


FEATURES = [
    Numeric("x", width=2, log=True),
    Bucketized("age", buckets=8),
    Numeric("age", clip=(None, 60)),
    Categorical("job", min_count=2),
    Categorical("id", dtype="int64", max_size=20, table="t"),
    Sequence("seen", dtype="int64", max_size=20, table="t", length=3),
    Categorical("hashed", hash_bins=5),
    Cross("both", columns=("job", "hashed")),
]


def some_columns(rows=70_000):
    generator = np.random.default_rng(1)
    return {
        "x": generator.normal(size=(rows, 2)),
        "age": np.where(
            generator.random(rows) < 0.1, np.nan, generator.normal(40, 9, rows)
        ),
        "job": generator.choice(["cook", "smith", "", "clerk"], rows),
        "id": generator.zipf(1.5, rows),
        "seen": np.minimum(generator.zipf(1.5, (rows, 5)), 1000) - 2,
        "hashed": generator.choice(["a", "b"], rows),
        "unread": generator.normal(size=rows),
    }


@pytest.mark.parametrize("batch, labelled", [(1000, False), (70_000, True)])
def test_arrays_and_datasets_give_the_same(batch, labelled):
    columns = some_columns()
    data = (columns, np.zeros(70_000), np.ones(70_000)) if labelled else columns
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(batch)
    assert adapt(FEATURES, dataset, verbose=0) == adapt(FEATURES, columns)


def test_ragged_and_padded_columns_give_the_same():
    ragged = tf.ragged.constant([["a", "b"], [], ["a", "c", "d"]])
    features = [Sequence("x", length=2)]
    dataset = tf.data.Dataset.from_tensor_slices({"x": ragged}).batch(2)
    padded = {"x": ragged.to_tensor("").numpy()}
    [feature] = adapt(features, dataset, verbose=0)
    assert [feature] == adapt(features, padded)
    assert feature.vocabulary == ("a", "b", "c")


def test_any_batches_will_do():
    columns = {name: values[:100] for name, values in some_columns(100).items()}
    batches = [{n: v[k : k + 10] for n, v in columns.items()} for k in range(0, 99, 10)]
    assert adapt(FEATURES, iter(batches), verbose=0) == adapt(FEATURES, columns)


def test_progress_is_shown_for_batches_alone(capsys):
    data = {"x": np.array([1.0, 2.0])}
    adapt([Numeric("x")], data)
    assert capsys.readouterr().out == ""
    adapt([Numeric("x")], tf.data.Dataset.from_tensors(data))
    assert "1/1" in capsys.readouterr().out
    adapt([Numeric("x")], tf.data.Dataset.from_tensors(data), verbose=0)
    assert capsys.readouterr().out == ""


def test_adapt_leaves_specifications_as_they_are():
    features = [Numeric("n"), Bucketized("n"), Categorical("c")]
    copies = [dataclasses.replace(feature) for feature in features]
    data = {"n": np.array([1.0, 2.0]), "c": np.array(["a", "b"]), "other": None}
    adapted = adapt(features, data)
    assert features == copies
    assert not any(feature.is_adapted for feature in features)
    assert all(feature.is_adapted for feature in adapted)
    assert [type(feature) for feature in adapted] == [type(f) for f in features]


def test_what_is_known_stays():
    given = [
        Numeric("n", mean=(5.0,), std=(2.0,)),
        Categorical("c", vocabulary=("z",)),
        Categorical("h", hash_bins=3),
    ]
    assert adapt(given, {}) == given


def test_an_encoder_is_adapted_as_its_features_are():
    encoder = Encoder([Numeric("x")], hard_concrete={"l0": 0.5})
    adapted = adapt(encoder, {"x": np.array([1.0, 3.0])})
    assert adapted.features[0].mean == (2.0,)
    assert adapted.hard_concrete == {"l0": 0.5}


def refused(features, data):
    with pytest.raises(ValueError) as error:
        adapt(features, data, verbose=0)
    return str(error.value)


def test_missing_column():
    assert refused([Numeric("age")], {"Age": np.ones(2), "b": np.ones(2)}) == (
        "`columns` should have the column 'age'. Received: columns=['Age', 'b']"
    )


@pytest.mark.parametrize("feature", [Numeric("x"), Bucketized("x")])
def test_no_finite_value(feature):
    assert refused([feature], {"x": np.array([np.nan, np.inf])}) == (
        "Feature 'x' should have a finite value in the data to adapt to. Received: none"
    )


def test_no_frequent_value():
    message = refused([Categorical("x", min_count=3)], {"x": np.array(["a", "b", "a"])})
    assert message == (
        "Feature 'x' should have a value that occurs at least 3 time(s) in the data "
        "to adapt to. Received: none"
    )


def test_objects_that_are_no_text():
    column = np.array(["a", 2.5], object)
    assert refused([Categorical("x")], {"x": column}) == (
        "Column 'x' should hold values of type str. Received: 2.5"
    )


def test_bytes_that_are_no_text():
    assert refused([Categorical("x")], {"x": np.array([b"a", b"\xff\xfe"])}) == (
        "Column 'x' should hold text in UTF-8. Received: b'\\xff\\xfe'"
    )


def test_none_among_strings_is_missing():
    column = np.array(["a", None], object)
    assert learned(Categorical("x"), column).vocabulary == ("a",)


def test_nan_among_strings_is_missing():
    column = np.array(["a", float("nan"), np.float64("nan"), None], object)
    assert learned(Categorical("x"), column).vocabulary == ("a",)
    rows = np.array([["a", "b"], ["b", np.nan]], object)
    assert learned(Sequence("x"), rows).vocabulary == ("b", "a")


def test_columns_of_unequal_length():
    data = {"x": np.ones(3), "y": [1.0, 2.0]}
    assert refused([Numeric("x"), Numeric("y")], data) == (
        "`data` should have as many rows in every column. "
        "Received: rows={'x': 3, 'y': 2}"
    )


def test_sparse_column():
    column = tf.sparse.from_dense([["a", ""], ["b", "c"]])
    expected = (
        "Column 's' should be strings of shape (rows, any length): use "
        "`tf.sparse.to_dense`. Received: a sparse column, shape=({}, 2)"
    )
    features = [Sequence("s")]
    assert refused(features, {"s": column}) == expected.format(2)
    assert refused(features, [{"s": column}]) == expected.format(2)
    batches = tf.data.Dataset.from_tensor_slices({"s": column}).batch(2)
    with pytest.raises(ValueError) as error:
        check_columns(features, batches.element_spec)
    assert str(error.value) == expected.format(None)


def test_data_without_end_or_rows():
    dataset = tf.data.Dataset.from_tensors({"x": [1.0]})
    assert refused([Numeric("x")], dataset.repeat()) == (
        "`data` should be finite: use `take`. Received: an infinite dataset"
    )
    nothing = "`data` should hold one or more rows. Received: none"
    assert refused([Numeric("x")], dataset.take(0)) == nothing
    assert refused([Numeric("x")], {"x": np.zeros(0)}) == nothing


def test_batches_without_columns():
    assert refused([Numeric("x")], [np.ones(3)]) == (
        "`data` should have dicts of columns, or tuples that start with one. "
        "Received: ndarray"
    )
