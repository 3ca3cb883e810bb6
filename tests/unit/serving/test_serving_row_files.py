"""Rows of files: columns and types of the signatures, labels, what is refused."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from two_versions import save

from tfmtl.data import write_tfrecord
from tfmtl.serving import compare_versions
from tfmtl.serving.row_files import rows_of_files

SPECS = {
    "age": ((None,), "float32"),
    "item": ((None, 1), "int32"),
    "tags": ((None, 3), "string"),
    "seen": ((None, None), "int64"),
}
TABLE = {
    "age": [31, None],
    "item": [7, 8],
    "tags": [["a", "b"], []],
    "seen": [[1], [2, 3]],
    "click": [1, None],
    "other": ["x", "y"],
}


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files") / "1"
    return save(folder, lambda age, item, tags, seen: {"click": age}, **SPECS)


def written(folder, ending):
    """The table as a file."""
    path = folder / f"log.{ending}"
    if ending == "parquet":
        parquet.write_table(pa.table(TABLE), path)
    elif ending == "csv":
        joined = {
            name: ["|".join(map(str, cell)) for cell in cells]
            if name in ("tags", "seen")
            else cells
            for name, cells in TABLE.items()
        }
        csv.write_csv(pa.table(joined), path)
    else:
        rows = {name: cells for name, cells in TABLE.items() if name != "click"}
        rows["age"] = [31.0, np.nan]
        write_tfrecord(path, rows, {"click": [1.0, np.nan]})
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "tfrecord"])
def test_columns_are_those_of_the_signature(version, tmp_path, ending):
    path = written(tmp_path, ending)
    [(columns, labels)] = rows_of_files(
        [path], [version], ["click"]
    ).as_numpy_iterator()
    assert set(columns) == set(SPECS)
    np.testing.assert_array_equal(columns["age"], [[31], [np.nan]])
    assert columns["item"].tolist() == [[7], [8]]
    assert columns["tags"].tolist() == [[b"a", b"b", b""], [b"", b"", b""]]
    assert columns["seen"].tolist() == [[1, -1], [2, 3]]
    np.testing.assert_array_equal(labels["click"], [[1], [np.nan]])


def test_versions_take_what_was_read(version, tmp_path):
    written(tmp_path, "parquet")
    rows = rows_of_files([tmp_path / "*.parquet"], [version, version], ["click"])
    found = compare_versions(version, version, rows)
    assert found.rows == 2
    assert found.outputs["click"].quality.labelled == 1
    assert found.outputs["click"].not_finite == (1, 1)


def test_files_that_do_not_fit(version, tmp_path):
    for files in (["log.txt"], ["a.csv", "b.parquet"], ["log.gz"], []):
        with pytest.raises(ValueError, match="one of the endings .*the same for all"):
            rows_of_files(files, [version])
    with pytest.raises(FileNotFoundError):
        rows_of_files([tmp_path / "none.parquet"], [version])
    path = written(tmp_path, "parquet")
    with pytest.raises(ValueError, match="like"):
        rows_of_files([path], [version], ["like"])


def test_inputs_that_no_file_has(tmp_path):
    cube = save(tmp_path / "1", lambda x: {"y": x}, x=((None, 2, 3), "float32"))
    message = r"Input 'x' should have the shape .* Received: float32 \(batch, 2, 3\)"
    with pytest.raises(ValueError, match=message):
        rows_of_files(["log.csv"], [cube])
