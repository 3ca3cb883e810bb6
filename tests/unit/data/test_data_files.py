"""CSV, Parquet and TFRecord: the same rows come back, in each order that is asked."""

import csv
import gzip
import math

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tfmtl.data import (
    from_csv,
    from_parquet,
    from_tfrecord,
    infer_schema,
    write_tfrecord,
)

SCHEMA = {
    "price": "float32",
    "user": "int64",
    "title": "string",
    "scores": ["float32"],
    "history": ["int64"],
    "tags": ["string"],
}
NUM_ROWS = 103


def _write_csv(path, columns):
    def cell(value):
        if isinstance(value, list):
            return "|".join(map(str, value))
        return "" if value is None else value

    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            [cell(value) for value in row]
            for row in zip(*columns.values(), strict=True)
        )


def _write_parquet(path, columns):
    parquet.write_table(pa.table(columns), path, row_group_size=40)


def _write_tfrecord(path, columns):
    """As another writer does it: what is missing is left out, or empty."""

    def feature(values):
        values = values if isinstance(values, list) else [values]
        if not values:
            return tf.train.Feature()
        if isinstance(values[0], str):
            values = [value.encode() for value in values]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in zip(*columns.values(), strict=True):
            cells = {
                name: feature(value)
                for name, value in zip(columns, row, strict=True)
                if value is not None
            }
            example = tf.train.Example(features=tf.train.Features(feature=cells))
            writer.write(example.SerializeToString())


FORMATS = {
    "csv": (from_csv, _write_csv),
    "parquet": (from_parquet, _write_parquet),
    "tfrecord": (from_tfrecord, _write_tfrecord),
}
each_format = pytest.mark.parametrize(
    ("read", "write"), FORMATS.values(), ids=FORMATS.keys()
)


def _numbered(first=0, count=NUM_ROWS):
    rows = range(first, first + count)
    return {
        "row": [*rows],
        "text": [f"row {i}" for i in rows],
        "list": [[i] * (i % 4) for i in rows],
        "click": [i % 2 for i in rows],
    }


NUMBERED = {"row": "int64", "text": "string", "list": ["int64"]}


@pytest.fixture(params=FORMATS)
def numbered(request, tmp_path):
    """A reader of three files of numbered rows."""
    read, write = FORMATS[request.param]
    for k, (first, count) in enumerate([(0, 40), (40, 60), (100, 3)]):
        write(tmp_path / f"part-{k}", _numbered(first, count))

    def make(batch_size=10, **arguments):
        arguments = {"schema": NUMBERED} | arguments
        return read(tmp_path / "part-*", ["click"], batch_size, **arguments)

    return make


def _epoch(dataset):
    return np.concatenate([x["row"][:, 0] for x, _ in dataset.as_numpy_iterator()])


# Round trips

_LINE = st.characters(exclude_categories=["Cs", "Cc"])  # No line ends.
_TEXT = st.text(st.one_of(_LINE, st.sampled_from(",\"|\n'")), max_size=8)
_WORD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
_IDS = st.integers(-(2**63), 2**63 - 1)
_FLOATS = st.floats(width=32)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "price": st.none() | _FLOATS,
            "user": st.none() | _IDS,
            "title": st.none() | _TEXT,
            "scores": st.lists(_FLOATS, max_size=3),
            "history": st.lists(_IDS, max_size=4),
            "tags": st.lists(_WORD.filter(lambda word: "|" not in word), max_size=3),
            "click": st.none() | st.sampled_from([0.0, 1.0]),
        }
    ),
    min_size=1,
    max_size=7,
)


FIRST = {
    "price": 0.5,
    "user": 1,
    "title": "a",
    "scores": [0.5],
    "history": [1],
    "tags": ["a"],
    "click": 0.0,
}


def _assert_column(batch, values, missing, is_list):
    rows = values if is_list else [[v] for v in values]
    width = max(1, *map(len, rows)) if len(rows) > 1 else max(1, len(rows[0]))
    expected = [
        [missing if v is None else v for v in row] + [missing] * (width - len(row))
        for row in rows
    ]
    if missing == "":
        expected = [[v.encode() for v in row] for row in expected]
        assert batch.tolist() == expected
    else:
        np.testing.assert_array_equal(batch, np.array(expected, batch.dtype))


def _assert_schema(features, columns):
    """Columns of `SCHEMA` are as they were written, padded."""
    assert set(features) == set(SCHEMA)
    for name, kind in SCHEMA.items():
        is_list = isinstance(kind, list)
        dtype = kind[0] if is_list else kind
        missing = {"float32": math.nan, "int64": -1, "string": ""}[dtype]
        _assert_column(features[name], columns[name], missing, is_list)
        assert features[name].dtype == (object if dtype == "string" else dtype)


any_rows = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@each_format
@any_rows
@given(rows=_ROWS)
def test_any_rows_come_back(read, write, tmp_path, rows):
    columns = {name: [row[name] for row in rows] for name in [*SCHEMA, "click"]}
    path = tmp_path / "file"
    if read is from_tfrecord:  # A key that no record has is an error.
        columns = {name: [FIRST[name], *cells] for name, cells in columns.items()}
    elif read is from_parquet:
        types = {"float32": pa.float64(), "int64": pa.int64(), "string": pa.string()}
        columns = {
            n: pa.array(v, pa.list_(types[k[0]]) if isinstance(k, list) else types[k])
            for (n, v), k in zip(
                columns.items(), [*SCHEMA.values(), "float32"], strict=True
            )
        }
    write(path, columns)
    [(features, labels)] = read(path, ["click"], 10, schema=SCHEMA).as_numpy_iterator()
    if read is from_parquet:
        columns = {name: column.to_pylist() for name, column in columns.items()}
    _assert_schema(features, columns)
    _assert_column(labels["click"], columns["click"], math.nan, False)
    assert labels["click"].dtype == np.float32


@any_rows
@given(rows=_ROWS, packed=st.booleans())
def test_written_columns_come_back(tmp_path_factory, rows, packed):
    path = tmp_path_factory.mktemp("written") / ("a.gz" if packed else "a")
    rows = [{n: FIRST[n] if v is None else v for n, v in row.items()} for row in rows]
    columns = {name: [row[name] for row in rows] for name in SCHEMA}
    click = np.array([[row["click"]] for row in rows], np.float32)
    for name in ("scores", "history", "tags"):  # A key that no record has is an error.
        columns[name][0] = FIRST[name]
    write_tfrecord(path, columns, {"y": click})
    [(x, y)] = from_tfrecord(path, ["y"], 10, schema=SCHEMA).as_numpy_iterator()
    _assert_schema(x, columns)
    np.testing.assert_array_equal(y["y"], click)


def test_arrays_are_written_as_they_are(tmp_path):
    features = {
        "vector": np.arange(6, dtype=np.float64).reshape(3, 2),
        "flag": np.array([True, False, True]),
        "small": np.array([1, 2, 3], np.uint8),
        "fixed": np.array([b"a", b"bc", b""]),
        "unicode": np.array(["é", "a,b", '"'], dtype=object),
    }
    path = write_tfrecord(tmp_path / "new" / "file", features, {"y": np.ones((3, 1))})
    assert infer_schema(path) == {
        "vector": ["float32"],
        "flag": "int64",
        "small": "int64",
        "fixed": "string",
        "unicode": "string",
        "y": "float32",
    }
    [(x, y)] = from_tfrecord(path, ["y"], 3).as_numpy_iterator()
    np.testing.assert_array_equal(x["vector"], features["vector"])
    np.testing.assert_array_equal(x["flag"], [[1], [0], [1]])
    np.testing.assert_array_equal(x["small"], [[1], [2], [3]])
    assert x["fixed"].tolist() == [[b"a"], [b"bc"], [b""]]
    assert x["unicode"].tolist() == [["é".encode()], [b"a,b"], [b'"']]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


# Order


def test_without_shuffle_keeps_the_order(numbered):
    dataset = numbered()
    for _ in range(2):
        np.testing.assert_array_equal(_epoch(dataset), np.arange(NUM_ROWS))


@pytest.mark.parametrize("buffer", [1, 35, 1000])
@pytest.mark.parametrize("cache", [False, True])
def test_shuffle_gives_every_row_once_in_other_orders(numbered, buffer, cache):
    dataset = numbered(shuffle=True, buffer=buffer, cache=cache)
    epochs = [_epoch(dataset) for _ in range(3)] + [np.arange(NUM_ROWS)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(NUM_ROWS))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_repeat_reshuffles(numbered):
    epochs = _epoch(numbered(shuffle=True).repeat(2))
    first, second = epochs[:NUM_ROWS], epochs[NUM_ROWS:]
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    assert np.any(first != second)


@pytest.mark.parametrize("cache", [False, True])
def test_same_seed_same_epochs(numbered, cache):
    first, second = (
        numbered(shuffle=True, buffer=35, seed=7, cache=cache) for _ in range(2)
    )
    for _ in range(3):
        np.testing.assert_array_equal(_epoch(first), _epoch(second))


def test_another_seed_another_order(numbered):
    first, second = (_epoch(numbered(shuffle=True, seed=seed)) for seed in (1, 2))
    assert np.any(first != second)


def test_columns_stay_in_step(numbered):
    for x, y in numbered(shuffle=True, buffer=35).as_numpy_iterator():
        rows = x["row"][:, 0]
        assert x["text"].tolist() == [[b"row %d" % row] for row in rows]
        np.testing.assert_array_equal(y["click"], x["row"] % 2)
        width = max(1, max(rows % 4))
        expected = [[r] * (r % 4) + [-1] * (width - r % 4) for r in rows]
        assert x["list"].tolist() == expected


@pytest.mark.parametrize("shuffle", [False, True])
def test_only_the_last_batch_is_partial(numbered, shuffle):
    sizes = [len(y["click"]) for _, y in numbered(shuffle=shuffle, buffer=35)]
    assert sizes == [10] * 10 + [3]
    dataset = numbered(shuffle=shuffle, buffer=35, drop_remainder=True)
    assert [len(y["click"]) for _, y in dataset] == [10] * 10
    assert dataset.element_spec[0]["text"].shape == (10, 1)


def test_rows_of_many_windows_come_back(tmp_path):
    rows = {"row": np.arange(20_001), "click": np.zeros(20_001)}
    path = write_tfrecord(tmp_path / "rows", {"row": rows["row"]}, {"y": rows["click"]})
    _write_parquet(tmp_path / "rows.parquet", rows)
    for dataset in (
        from_tfrecord(path, ["y"], 1000),
        from_parquet(tmp_path / "rows.parquet", ["click"], 1000),
    ):
        np.testing.assert_array_equal(_epoch(dataset), rows["row"])


@each_format
def test_shards_are_apart_and_all(read, write, tmp_path):
    for k in range(3):
        write(tmp_path / f"part-{k}", _numbered(10 * k, 10))

    def shard(index, count):
        return _epoch(
            read(
                tmp_path / "part-*",
                ["click"],
                4,
                schema=NUMBERED,
                shard=(index, count),
                shuffle=True,
            )
        )

    for count in (1, 2, 3):
        parts = np.concatenate([shard(index, count) for index in range(count)])
        np.testing.assert_array_equal(np.sort(parts), np.arange(30))


def test_cached_rows_need_no_file(numbered, tmp_path):
    dataset = numbered(cache=True)
    first = _epoch(dataset)
    for path in tmp_path.iterdir():
        path.unlink()
    np.testing.assert_array_equal(_epoch(dataset), first)


def test_parquet_knows_its_cardinality(tmp_path):
    _write_parquet(tmp_path / "rows", _numbered())
    for drop, count in [(False, 11), (True, 10)]:
        dataset = from_parquet(tmp_path / "rows", ["click"], 10, drop_remainder=drop)
        assert dataset.cardinality() == count


# Columns


def test_lists_have_the_given_length(numbered):
    for x, _ in numbered(lengths={"list": 2}).take(1):
        assert x["list"].shape == (10, 2)
        assert x["list"][3].numpy().tolist() == [3, 3]
        assert x["list"][1].numpy().tolist() == [1, -1]
    assert numbered(lengths={"list": 2}).element_spec[0]["list"].shape[1] == 2


def test_labels_are_a_function_of_the_columns(tmp_path):
    _write_parquet(tmp_path / "rows", _numbered())

    def parted(columns):
        return {"id": columns["row"]}, {"odd": columns["row"] % 2 == 1}

    [(x, y)] = from_parquet(tmp_path / "rows", parted, 200).as_numpy_iterator()
    assert set(x) == {"id"}
    np.testing.assert_array_equal(y["odd"], x["id"] % 2)
    assert y["odd"].dtype == np.float32


def test_schema_says_what_is_read(numbered):
    [(x, y)] = numbered(200, schema={"row": "float32"})
    assert set(x) == {"row"} and set(y) == {"click"}
    assert x["row"].dtype == tf.float32


# Keras warns where it does not know the number of batches beforehand.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_a_model_fits_what_comes(numbered):
    inputs = {
        "row": keras.Input((1,), name="row"),
        "text": keras.Input((1,), name="text", dtype="string"),
        "list": keras.Input((3,), name="list", dtype="int64"),
    }
    known = keras.layers.StringLookup(vocabulary=["row 1"])(inputs["text"])
    columns = [inputs["row"], known, inputs["list"]]
    x = keras.ops.concatenate([keras.ops.cast(c, "float32") for c in columns], axis=1)
    click = keras.layers.Dense(1, "sigmoid", name="click")(x)
    model = keras.Model(inputs, {"click": click})
    model.compile("sgd", loss={"click": "binary_crossentropy"})
    train = numbered(shuffle=True, lengths={"list": 3})
    model.fit(train, epochs=2, shuffle=False, verbose=0)
    scores = model.predict(numbered(lengths={"list": 3}), verbose=0)
    assert scores["click"].shape == (NUM_ROWS, 1)


def test_csv_of_other_shapes(tmp_path):
    path = tmp_path / "log.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("3;a b;0\n 4;;1\nNA;c;\n")
    names = ["age", "tags", "click"]
    schema = infer_schema(path, delimiter=";", header=names)
    assert schema == {"age": "int64", "tags": "string", "click": "int64"}
    [(x, y)] = from_csv(
        path,
        ["click"],
        5,
        schema=schema | {"tags": ["string"]},
        delimiter=";",
        separator=" ",
        header=names,
    ).as_numpy_iterator()
    assert x["age"].tolist() == [[3], [4], [-1]]
    assert x["tags"].tolist() == [[b"a", b"b"], [b"", b""], [b"c", b""]]
    np.testing.assert_array_equal(y["click"], [[0], [1], [np.nan]])


def test_csv_lists_may_lack_values(tmp_path):
    (tmp_path / "log.csv").write_text("ids,x,y\n1||-3,nan|2.5,1\n,,0\n")
    schema = {"ids": ["int64"], "x": ["float32"]}
    [(x, _)] = from_csv(
        tmp_path / "log.csv", ["y"], 2, schema=schema
    ).as_numpy_iterator()
    assert x["ids"].tolist() == [[1, -1, -3], [-1, -1, -1]]
    np.testing.assert_array_equal(x["x"], [[np.nan, 2.5], [np.nan, np.nan]])


def test_empty_tfrecord_lists_are_missing_values(tmp_path):
    path = tmp_path / "rows"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for values in ([1], []):
            number = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            example = tf.train.Features(feature={"x": number})
            writer.write(tf.train.Example(features=example).SerializeToString())
    assert infer_schema(path) == {"x": ["int64"]}
    [(x, _)] = from_tfrecord(path, [], 2, lengths={"x": 1}).as_numpy_iterator()
    assert x["x"].tolist() == [[1], [-1]]


def test_missing_integers_are_nan_as_floats(tmp_path):
    path = tmp_path / "rows"
    _write_tfrecord(path, {"x": [1, None], "y": [None, 0]})
    for schema, expected in [({"x": "int64"}, [[1], [-1]]), ({"x": "float32"}, None)]:
        [(x, y)] = from_tfrecord(path, ["y"], 2, schema=schema).as_numpy_iterator()
        np.testing.assert_array_equal(x["x"], expected or [[1], [np.nan]])
        np.testing.assert_array_equal(y["y"], [[np.nan], [0]])


# Inference


def test_csv_schema_is_that_of_the_first_rows(tmp_path):
    path = tmp_path / "log.csv"
    rows = [
        "whole,real,text,empty,long,mixed",
        "1,1,a,,123456789012345678901,1",
        "-2,2.5,3,,1,2",
        ",NaN,,,1,x",
    ]
    path.write_text("\n".join(rows) + "\n")
    expected = {
        "whole": "int64",
        "real": "float32",
        "text": "string",
        "empty": "string",
        "long": "string",
        "mixed": "string",
    }
    assert infer_schema(path) == expected
    assert infer_schema(path, rows=2)["mixed"] == "int64"


def test_parquet_schema_is_the_files(tmp_path):
    lists = pa.list_(pa.int32(), 2)
    table = pa.table(
        {
            "flag": pa.array([True, None]),
            "short": pa.array([1, 2], pa.int16()),
            "half": pa.array([0.5, None], pa.float64()),
            "category": pa.array(["a", "b"]).dictionary_encode(),
            "raw": pa.array([b"\xff", None]),
            "pair": pa.array([[1, 2], [3, 4]], lists),
            "struct": pa.array([{"a": 1}, {"a": 2}]),
            "matrix": pa.array([[[1]], [[2]]]),
        }
    )
    parquet.write_table(table, tmp_path / "rows")
    expected = {
        "flag": "int64",
        "short": "int64",
        "half": "float32",
        "category": "string",
        "raw": "string",
        "pair": ["int64"],
    }
    assert infer_schema(tmp_path / "rows") == expected
    [(x, y)] = from_parquet(tmp_path / "rows", ["flag"], 2).as_numpy_iterator()
    assert x["category"].tolist() == [[b"a"], [b"b"]]
    assert x["raw"].tolist() == [[b"\xff"], [b""]]
    assert x["pair"].tolist() == [[1, 2], [3, 4]]
    np.testing.assert_array_equal(x["half"], [[0.5], [np.nan]])
    np.testing.assert_array_equal(y["flag"], [[1], [np.nan]])


@pytest.mark.skipif(
    int(pa.__version__.split(".")[0]) < 26,
    reason="Arrow before 26 reads no missing lists of a fixed size",
)
def test_a_missing_list_of_a_fixed_size(tmp_path):
    pairs = pa.array([[1, 2], None], pa.list_(pa.int32(), 2))
    table = pa.table({"pair": pairs, "flag": [1.0, 0.0]})
    parquet.write_table(table, tmp_path / "rows")
    [(x, _)] = from_parquet(tmp_path / "rows", ["flag"], 2).as_numpy_iterator()
    assert x["pair"].tolist() == [[1, 2], [-1, -1]]


def test_tfrecord_schema_is_that_of_the_first_records(tmp_path):
    write_tfrecord(tmp_path / "a", {"x": [[1], [2]], "never": [[], []]})
    write_tfrecord(tmp_path / "b", {"x": [[1], [2, 3]], "new": ["a", "b"]})
    files = [tmp_path / "a", tmp_path / "b"]
    assert infer_schema(files) == {"x": ["int64"], "new": "string"}
    assert infer_schema(files, rows=2) == {"x": "int64"}
