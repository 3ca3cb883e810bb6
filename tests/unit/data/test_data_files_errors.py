"""What is wrong with files is said: which file, column, row, and what came."""

import re

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from tfmtl.data import (
    from_csv,
    from_parquet,
    from_tfrecord,
    infer_schema,
    write_tfrecord,
)

READERS = pytest.mark.parametrize("read", [from_csv, from_parquet, from_tfrecord])


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("age,tags,click\n1,a,0\n2,b,1\n")
    return path


def _fails(dataset, *texts):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        list(dataset)
    for text in texts:
        assert text in str(error.value)


# Files


@READERS
def test_missing_files_are_named(read, tmp_path):
    (tmp_path / "part-1").touch()
    for name in ("none", "*.none"):
        pattern = str(tmp_path / name)
        message = (
            f"`files` should be files or a glob of files. Received: {pattern!r}, "
            "which no file matches"
        )
        for files in (pattern, [tmp_path / "part-1", pattern]):
            with pytest.raises(FileNotFoundError, match=re.escape(message)):
                read(files, ["click"], 2)
    message = f"Received: {str(tmp_path)!r}, a folder"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        read(tmp_path, ["click"], 2)
    message = "`files` should have at least one path. Received: []"
    with pytest.raises(ValueError, match=re.escape(message)):
        read([], ["click"], 2)


def test_empty_and_other_files_are_named(tmp_path, log):
    empty = tmp_path / "empty"
    empty.touch()
    message = (
        f"`{empty}` should be a CSV file of the schema's types. "
        "Received: Empty CSV file"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        infer_schema(empty)
    with pytest.raises(ValueError, match=re.escape(f"`{log}` should be a Parquet fil")):
        from_parquet(log, ["click"], 2)


# Columns


def test_absent_columns_are_named(tmp_path, log):
    table = {"age": [1, 2], "tags": [["a"], []], "click": [0, 1]}
    parquet.write_table(pa.table(table), tmp_path / "log.parquet")
    write_tfrecord(tmp_path / "log.tfrecord", table)
    for read, path in [(from_csv, log), (from_parquet, tmp_path / "log.parquet")]:
        for labels, schema in [(["like"], None), ([], {"like": "int64"})]:
            message = (
                f"`{path}` should have the columns ['like']. "
                "Received: columns ['age', 'tags', 'click']"
            )
            with pytest.raises(ValueError, match=re.escape(message)):
                read(path, labels, 2, schema=schema)
    path = tmp_path / "log.tfrecord"
    message = (
        f"`{path}` should have the columns ['like'] in one of the first 1000 records. "
        "Received: columns ['age', 'click', 'tags']"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        from_tfrecord(path, ["like"], 2)


def test_unequal_headers_are_named(tmp_path, log):
    other = tmp_path / "log2.csv"
    other.write_text("click,age,price\n0,1,2\n")
    message = (
        f"`{other}` should have the columns of `{log}`, or `schema` should say which "
        "ones to read. Received: besides those of both, ['price'] in the one and "
        "['tags'] in the other"
    )
    # A label that is in both files, features that are not.
    with pytest.raises(ValueError, match=re.escape(f"`{other}` should have the col")):
        from_csv([log, other], ["click"], 2)
    other.write_text("click,age,price,tags\n0,1,2,c\n")
    message = message.replace("['tags']", "[]")
    with pytest.raises(ValueError, match=re.escape(message)):
        from_csv([log, other], ["click"], 2)
    # In another order is no other header; nor is more than the schema.
    [(x, _)] = from_csv([log, other], ["click"], 5, schema={"age": "int64"})
    assert x["age"].numpy().tolist() == [[1], [2], [1]]


def test_columns_of_one_name_are_named(log):
    log.write_text("age,age,click\n1,2,3\n")
    message = (
        f"`{log}` should have columns of different names. "
        "Received: ['age'] more than once"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        from_csv(log, ["click"], 2)


# Values


def test_csv_says_file_column_row_and_value(log):
    log.write_text("age,tags,click\n1,a,0\n2,b,1\nold,c,1\n")
    dataset = from_csv(log, ["click"], 2, schema={"age": "int64"})
    _fails(dataset, str(log), "`age`", "Row #4", "to int64", "invalid value 'old'")
    _fails(from_csv(log, ["tags"], 2), "`tags`", "Row #2", "to float", "value 'a'")
    log.write_text("age,tags,click\n1,a|1,0\n1,1|x,0\n")
    dataset = from_csv(log, ["click"], 2, schema={"tags": ["string"]})
    assert len(list(dataset)) == 1
    dataset = from_csv(log, ["click"], 2, schema={"tags": ["int64"]})
    _fails(
        dataset,
        f"`tags` should be a list of int64 in every row of `{log}`. "
        "Received: [b'a', b'1'] in row 2",
    )


def test_csv_says_which_row_has_other_cells(log):
    log.write_text("age,tags,click\n1,a,0\n2,b\n")
    message = (
        f"`{log}` should be a CSV file of the schema's types. "
        "Received: CSV parse error: Row #3: Expected 3 columns, got 2: 2,b"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        from_csv(log, ["click"], 2, schema={"age": "int64"})


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            [1.0, 1.5],
            "int64",
            "`x` should be int64 in every row of `{}`. Received: 1.5",
        ),
        (["1", "a"], "float32", "`x` should be float32 in every row of `{}`. Recei"),
        ([{"a": 1}, {"a": 2}], "int64", "Received: {{'a': 1}} in row 1"),
        ([1, 2], ["int64"], "`x` should be a list of int64 in every row of `{}`."),
        (
            [[1], [2]],
            "int64",
            "`x` should be int64 in every row of `{}`. Received: [1]",
        ),
    ],
)
def test_parquet_says_file_column_row_and_value(tmp_path, values, kind, message):
    path = tmp_path / "log"
    table = pa.table({"x": [values[0]] * 5 + [values[1]], "click": [0] * 6})
    parquet.write_table(table, path, row_group_size=4)
    dataset = from_parquet(path, ["click"], 2, schema={"x": kind})
    _fails(dataset, message.format(path))


def test_parquet_row_is_that_of_the_file(tmp_path):
    table = pa.table({"x": [0.0] * 5 + [1.5], "click": [0] * 6})
    parquet.write_table(table, tmp_path / "log", row_group_size=4)
    dataset = from_parquet(tmp_path / "log", ["click"], 2, schema={"x": "int64"})
    _fails(dataset, "Received: 1.5 in row 6")


def test_tfrecord_says_file_record_column_and_types(tmp_path):
    first = write_tfrecord(tmp_path / "a", {"x": [1, 2]}, {"y": [0, 1]})
    second = write_tfrecord(tmp_path / "b", {"x": [[3], [4, 5]]}, {"y": [0, 1]})
    third = write_tfrecord(tmp_path / "c", {"x": ["d", "e"]}, {"y": [0, 1]})
    _fails(
        from_tfrecord([first, second], ["y"], 4, schema={"x": "int64"}),
        f"Name: {second}, record 2, Key: x",
        "Values size: 2 but output shape: []",
    )
    _fails(
        from_tfrecord([first, third], ["y"], 4, schema={"x": "int64"}),
        f"Name: {third}, record 1, Key: x",
        "Data type: string but expected type: int64",
    )
    message = f"`x` should be int64 in `{third}`. Received: string"
    with pytest.raises(ValueError, match=re.escape(message)):
        from_tfrecord(third, ["y"], 4, schema={"x": "int64"})


# Arguments


@READERS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"schema": {"age": "int32"}},
            "`schema['age']` should be one of ['float32', 'int64', 'string'], or a "
            "list of one of them. Received: 'int32'",
        ),
        ({"schema": {"age": ["int64", "int64"]}}, "Received: ['int64', 'int64']"),
        ({"labels": "click"}, "`labels` should be a list of columns, or a function. "),
        (
            {"schema": {"age": "int64"}, "lengths": {"age": 3}},
            "`lengths['age']` should be a positive width of a column of lists, "
            "`schema['age'] = ['int64']`. Received: 3 for 'int64'",
        ),
        (
            {"schema": {"age": ["int64"]}, "lengths": {"old": 3}},
            "`lengths` should have columns of the schema. Received: lengths={'old': 3}",
        ),
        (
            {"batch_size": 0},
            "`batch_size` should be a positive integer. Received: batch_size=0",
        ),
        ({"buffer": 0}, "`buffer` should be a positive integer. Received: buffer=0"),
        (
            {"shard": (1, 2)},
            "`shard` should be (index, count) with an index below the count and a "
            "count of at most 1, the files (Parquet: row groups). Received: "
            "shard=(1, 2)",
        ),
    ],
)
def test_arguments_out_of_range_are_named(read, tmp_path, arguments, message):
    path, rows = tmp_path / "log", {"age": [1, 2], "click": [0, 1]}
    if read is from_csv:
        path.write_text("age,click\n1,0\n2,1\n")
    elif read is from_parquet:
        parquet.write_table(pa.table(rows), path)
    else:
        write_tfrecord(path, rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        read(path, **({"labels": ["click"], "batch_size": 2} | arguments))


def test_written_file_is_never_replaced(tmp_path):
    path = tmp_path / "log"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="`path` should be a new file. Received:"):
        write_tfrecord(path, {"x": [1]})
    assert path.read_text() == "mine"


def test_file_of_another_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "log"

    class Cells(list):  # Another writes while this one is at it.
        def __iter__(self):
            path.write_text("another's")
            return super().__iter__()

    with pytest.raises(FileExistsError):
        write_tfrecord(path, {"x": Cells([[1], [2]])})
    assert path.read_text() == "another's"
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (
            {"x": [1, 2]},
            {"x": [1, 2]},
            "`features` and `labels` should have columns of different names. "
            "Received: ['x'] in both",
        ),
        ({"x": [1, 2]}, {"y": [1]}, "Received: {'x': 2, 'label y': 1}"),
        (
            {"x": np.array([1 + 2j])},
            None,
            "`x` should be numbers, or strings (str or bytes). Received: (1+2j)",
        ),
        ({"x": ["a", None]}, None, "`x` should be numbers, or strings (str or bytes)."),
    ],
)
def test_columns_that_cannot_be_written_are_named(tmp_path, features, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write_tfrecord(tmp_path / "log", features, labels)
    assert not list(tmp_path.iterdir())
