"""What files hold, told by the files."""

from collections.abc import Sequence

import tensorflow as tf
from pyarrow import parquet

from tfmtl.data.files import csv, tfrecord
from tfmtl.data.files.parquet import schema_of
from tfmtl.data.files.paths import Files, matching

_PARQUET = b"PAR1"  # A Parquet file's first bytes.


def infer_schema(
    files: Files,
    *,
    rows: int = 1000,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
) -> dict[str, str | list[str]]:
    """Tells the columns of CSV, Parquet or TFRecord files.

    A plain dict, to be printed, edited and passed as `schema`: a column that is taken
    out of it is not read.

    - Parquet: the first file's schema. Integers and booleans are `int64`, floats and
      decimals `float32`. Columns of other types (times, structs, lists of lists) are
      left out.
    - CSV: the first rows of the first file. A column is `int64` or `float32` if all of
      its cells are, those aside that are missing, else `string`. Lists look like
      strings: write `schema["tags"] = ["string"]`.
    - TFRecord: the types in the first records, of the first file and the next ones. A
      column is one of lists where one of them has several values or an empty list.

    Args:
        files: A path, a glob, or a list of them. Their first bytes tell the format.
        rows: How many rows of CSV, how many records, to look at. Defaults to 1000.
        delimiter: What stands between the cells of CSV. Defaults to ",".
        header: Names of the columns of CSV whose first row is not their names.
            Defaults to `None`.

    Returns:
        Column to `"float32"`, `"int64"` or `"string"`, or to a list of one of them.

    Raises:
        FileNotFoundError: If a path or a glob has no file.
        ValueError: If the first file is none of the three.

    Example:

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "log.csv")
    >>> with open(path, "w") as file:
    ...     _ = file.write("age,price,tags,click\\n31,0.5,a|b,1\\n,2,,0\\n")
    >>> infer_schema(path)
    {'age': 'int64', 'price': 'float32', 'tags': 'string', 'click': 'int64'}
    """
    paths = matching(files)
    with tf.io.gfile.GFile(paths[0], "rb") as file:
        start = file.read(len(_PARQUET))
    if start == _PARQUET:
        return schema_of(parquet.read_schema(paths[0]))
    if tfrecord.is_tfrecord(paths[0]):
        return tfrecord.infer(paths, rows)
    return csv.infer(paths[0], rows, delimiter, header)
