"""Hostile values in an exported model: finite scores, and other rows untouched.

In every batch the odd rows are hostile. The even ones have to come out as they do in
the batch without hostile rows, bit for bit, since a model server puts the rows of
several clients into one batch.
"""

import keras
import keras_rs
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import models
from tfmtl.features import (
    Bucketized,
    Categorical,
    Cross,
    Encoder,
    Numeric,
    OfFields,
    Sequence,
    adapt,
)
from tfmtl.serving import export, run_in_cpp_session
from tfmtl.serving.session import CppSessionError
from tfmtl.tasks import (
    Binary,
    Count,
    LogNormal,
    MultiClass,
    MultiLabel,
    Ordinal,
    Regression,
    WeightedLogistic,
)

LONG = 100_000
WORDS = ["at", "de", "ch", ""]
VIDEOS = [7, 700, 2**40, -1]

with np.errstate(over="ignore"):
    TOO_LARGE = np.array([1e40, -1e40]).astype("f4").tolist()
NUMBERS = [np.nan, np.inf, -np.inf, *TOO_LARGE, 3e38, -3e38, 1e-45, -0.0]
IDS = [-1, -2, -(2**63), 2**63 - 1, 2**63 - 2, 2**62, 2**31, 2**32, 0, 8]
TEXTS = [b"", b"unknown", b"\xff\xfe", b"\0", b"[UNK]", b"-1", b"x" * 2**20, b" at"]
HOSTILE = {
    "age": NUMBERS,
    "wide": NUMBERS,
    "price": NUMBERS,
    "job": TEXTS,
    "city": TEXTS,
    "video": IDS,
    "user": IDS,
    "seen": IDS,
    "clicked": IDS,
    "tags": TEXTS,
    "words": TEXTS,
}
ALONE = [(column, value) for column, values in HOSTILE.items() for value in values]
ROWS = 2 * len(ALONE)
MISSING = {"seen": -1, "clicked": -1, "tags": "", "words": ""}


def ordinary(rows=ROWS, width=4):
    """Columns without anything odd."""
    random = np.random.default_rng(0)

    def choice(values, width):
        return random.choice(np.array(values, object), size=(rows, width))

    return {
        "age": random.normal(40, 15, size=(rows, 1)).astype("f4"),
        "wide": random.normal(size=(rows, 3)).astype("f4"),
        "price": random.exponential(10, size=(rows, 1)).astype("f4"),
        "job": choice(["cook", "smith", "übergröße"], 1),
        "city": choice(WORDS, 1),
        "video": choice(VIDEOS, 1).astype("i8"),
        "user": random.integers(0, 2**62, size=(rows, 1)),
        "seen": choice(VIDEOS, width).astype("i8"),
        "clicked": random.integers(0, 2**62, size=(rows, width)),
        "tags": choice(["x", "y", "z"], width),
        "words": choice(WORDS, width),
    }


def features():
    columns = [
        Numeric("age"),
        Numeric("wide", width=3),
        Numeric("price", log=True, clip=(0, None), missing=-1),
        Bucketized("age"),
        Bucketized("price", buckets=4),
        Categorical("job"),
        Categorical("city", hash_bins=4),
        Categorical("video", dtype="int64", table="video"),
        Categorical("user", dtype="int64", hash_bins=5000),
        Sequence(
            "seen", dtype="int64", table="video", pooling="attention", target="video"
        ),
        Sequence("clicked", dtype="int64", hash_bins=50, pooling="sum", length=LONG),
        Sequence("tags", pooling="max", length=LONG),
        Sequence("words", hash_bins=9, length=3),
        Cross("who", columns=("job", "age"), hash_bins=9),
        Cross("what", columns=("city", "video", "price"), hash_bins=9),
    ]
    return adapt(columns, ordinary(100))


def every_task():
    return [
        Binary("click"),
        Binary("buy", after="click"),
        Regression("rating"),
        LogNormal("watch_time", where="click"),
        WeightedLogistic("dwell"),
        Count("plays"),
        MultiClass("mood", num_classes=3),
        MultiLabel("labels", num_labels=3),
        Ordinal("stars", num_levels=4),
    ]


def gated_ranker():
    """Gates on fields and on connections, and products of fields."""
    encoder = Encoder(
        features(),
        interactions=[
            OfFields(keras_rs.layers.DotInteraction()),
            keras_rs.layers.FeatureCross(),
        ],
        hard_concrete={},
    )
    return models.snr(encoder, every_task(), levels=[(3, 8), (2, 8)])


def extracting_ranker():
    return models.ple(features(), every_task())


def scored_ranker():
    ranker = models.mmoe(features(), every_task(), experts=2)
    return models.with_score(ranker, {"click": 1.0, "watch_time": 0.5, "plays": 0.1})


EXPORTS = [
    pytest.param((scored_ranker, {}), id="mmoe"),
    pytest.param((gated_ranker, {"fold": True}), id="snr-folded"),
    pytest.param(
        (scored_ranker, {"tables": "int8"}), id="int8", marks=pytest.mark.slow
    ),
    pytest.param((extracting_ranker, {}), id="ple", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=EXPORTS)
def path(request, tmp_path_factory):
    """An exported model whose weights are larger than fresh ones."""
    keras.utils.set_random_seed(0)
    make, options = request.param
    model = make()
    for weight in model.trainable_weights:
        if weight.name in ("embeddings", "kernel"):
            weight.assign(2.0 * weight)
    return export(model, tmp_path_factory.mktemp("models"), **options).path


@pytest.fixture(scope="module")
def plain(path):
    """The scores of the ordinary rows."""
    return run_in_cpp_session(path, ordinary())


def one_by_one():
    """Ordinary rows, the odd ones with one hostile value each."""
    rows = ordinary()
    for k, (column, value) in enumerate(ALONE):
        rows[column][2 * k + 1, :] = value
    return rows


def all_at_once():
    """Ordinary rows, the odd ones with hostile values in every column."""
    rows = ordinary()
    for column, values in HOSTILE.items():
        for k in range(len(ALONE)):
            rows[column][2 * k + 1, :] = values[k % len(values)]
    return rows


def assert_unharmed(got, expected):
    assert set(got) == set(expected)
    for name, scores in got.items():
        assert np.isfinite(scores).all(), name
        np.testing.assert_array_equal(scores[::2], expected[name][::2], name)


def test_one_hostile_value_in_a_row(path, plain):
    assert_unharmed(run_in_cpp_session(path, one_by_one()), plain)


def test_rows_of_hostile_values(path, plain):
    got = run_in_cpp_session(path, all_at_once())
    assert_unharmed(got, plain)
    assert any((got[name][1::2] != plain[name][1::2]).any() for name in got)


def test_rows_whose_sequences_are_empty(path, plain):
    rows = ordinary()
    for name, missing in MISSING.items():
        rows[name][1::2] = missing
    assert_unharmed(run_in_cpp_session(path, rows), plain)


def test_columns_of_no_width(path):
    rows = ordinary()
    padded = {name: np.full_like(rows[name], MISSING[name]) for name in MISSING}
    cut = {name: rows[name][:, :0] for name in MISSING}
    got = run_in_cpp_session(path, {**rows, **cut})
    for name, scores in run_in_cpp_session(path, {**rows, **padded}).items():
        assert np.isfinite(got[name]).all()
        np.testing.assert_allclose(got[name], scores, rtol=1e-5, atol=1e-6)


def test_a_row_of_100_000_values(path):
    rows = ordinary(4)
    for name, missing in MISSING.items():
        padding = np.full((4, LONG - 4), missing, rows[name].dtype)
        rows[name] = np.hstack([rows[name], padding])
    expected = run_in_cpp_session(path, rows)
    for name in MISSING:
        short = [v for v in HOSTILE[name] if isinstance(v, int) or len(v) < 100]
        rows[name][1::2] = np.resize(np.array(short, rows[name].dtype), (2, LONG))
    assert_unharmed(run_in_cpp_session(path, rows), expected)


def test_no_rows(path, plain):
    empty = {name: column[:0] for name, column in ordinary().items()}
    for name, scores in run_in_cpp_session(path, empty).items():
        assert scores.shape == (0, *plain[name].shape[1:])


def as_example(columns, row):
    """One row as a serialised example."""
    example = tf.train.Example()
    for name, column in columns.items():
        feature, values = example.features.feature[name], column[row].tolist()
        if column.dtype == object:
            texts = [v if isinstance(v, bytes) else v.encode() for v in values]
            feature.bytes_list.value.extend(texts)
        elif column.dtype == np.float32:
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return example


def of_examples(path, examples):
    texts = np.array([e.SerializeToString() for e in examples], object)
    return run_in_cpp_session(path, {"examples": texts}, "serving_examples")


def test_hostile_examples(path):
    rows, hostile = ordinary(), all_at_once()
    good = [as_example(rows, k) for k in range(ROWS)]
    bad = [as_example(hostile, k) for k in range(ROWS)]
    bad[1] = tf.train.Example()
    bad[3].features.feature["age"].float_list.value.extend([1.0] * 1000)
    bad[5].features.feature["nobody_knows"].int64_list.value.append(1)
    bad[7].features.feature["clicked"].int64_list.value.extend([9] * LONG)
    mixed = [bad[k] if k % 2 else example for k, example in enumerate(good)]
    expected = of_examples(path, good)
    got = of_examples(path, mixed)
    assert set(got) == set(expected)
    for name, scores in got.items():
        assert np.isfinite(scores).all(), name
        # One row is longer, so the sums over a sequence may be in another order.
        np.testing.assert_allclose(
            scores[::2], expected[name][::2], rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_what_is_no_example_is_refused(path):
    with pytest.raises(CppSessionError, match="Could not parse example input"):
        run_in_cpp_session(path, {"examples": [b"\xff"]}, "serving_examples")
