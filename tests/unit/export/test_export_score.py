"""Batch scoring on Beam: the server's numbers, every row accounted for, refusals."""

import gzip
import importlib.util
import json
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from tfmtl import features, models, tasks
from tfmtl.data import write_tfrecord
from tfmtl.serving import export, run_in_cpp_session

pytest.importorskip("apache_beam")

SCRIPT = Path(__file__).resolve().parents[3] / "export" / "score.py"
COUNT = 41


def load_script(name="export_score"):
    """The script as a module that Beam's workers in this process can look up."""
    spec = importlib.util.spec_from_file_location(name, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A ranker of numbers, strings, ids and lists, with three classes and a click."""
    keras.utils.set_random_seed(0)
    columns = [
        features.Numeric("numbers", width=3, mean=(0.0,) * 3, std=(1.0,) * 3),
        features.Numeric("age", mean=(30.0,), std=(9.0,)),
        features.Categorical("country", vocabulary=["at", "de"]),
        features.Categorical("item", dtype="int64", vocabulary=[3, 5, 7]),
        features.Sequence("tags", dtype="int64", vocabulary=[1, 2, 4], length=5),
    ]
    model = models.shared_bottom(
        columns, [tasks.Binary("click"), tasks.MultiClass("page", 3)], bottom=[8]
    )
    return export(model, tmp_path_factory.mktemp("models") / "ranker").path


@pytest.fixture(scope="module")
def rows():
    """Rows as files have them, and a key that the model does not read."""
    random = np.random.default_rng(0)
    return {
        "numbers": list(random.normal(size=(COUNT, 3)).astype("float32")),
        "age": random.integers(18, 80, COUNT),
        "country": random.choice(["at", "de", "fr"], COUNT).tolist(),
        "item": random.integers(3, 9, COUNT),
        "tags": [random.integers(1, 5, n % 4).tolist() for n in range(COUNT)],
        "id": [f"row {n}" for n in range(COUNT)],
    }


@pytest.fixture(scope="module")
def expected(version, rows):
    """What the C++ session answers."""
    tags = np.full((COUNT, 3), -1)
    for row, values in enumerate(rows["tags"]):
        tags[row, : len(values)] = values
    inputs = {
        "numbers": np.stack(rows["numbers"]),
        "age": np.array(rows["age"], "float32")[:, None],
        "country": np.array(rows["country"], object)[:, None],
        "item": rows["item"][:, None],
        "tags": tags,
    }
    return run_in_cpp_session(version, inputs)


def columns_of(rows, chosen=slice(None)):
    """Columns as Arrow has them."""
    picked = {name: list(values[chosen]) for name, values in rows.items()}
    return pa.table(picked)


def write_parquet(path, rows, chosen=slice(None), size=7):
    """A file of several row groups."""
    parquet.write_table(columns_of(rows, chosen), path, row_group_size=size)


def examples(rows):
    """Rows as serialised examples, to be damaged by a test."""
    path = Path(rows.pop("folder")) / "whole.tfrecord"
    write_tfrecord(path, rows)
    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def write_records(path, records):
    """A file of records of any content."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def changed(record, change):
    """A serialised example after a change to its features."""
    example = tf.train.Example.FromString(record)
    change(example.features.feature)
    return example.SerializeToString()


def result(output):
    """The scores and the dead letters that were written."""
    assert not [path for path in output.iterdir() if path.is_dir()]
    letters = [
        json.loads(line)
        for path in sorted(output.glob("dead_letter-*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    files = sorted(output.glob("scores-*.parquet"))
    return pa.concat_tables(parquet.read_table(path) for path in files), letters


def assert_scores(table, expected, count=COUNT, lost=()):
    """The table has the session's numbers of all rows but the lost ones."""
    numbers = [int(name.removeprefix("row ")) for name in table["id"].to_pylist()]
    assert sorted(numbers) == sorted(set(range(count)) - set(lost))
    click = table["click"].to_numpy()
    page = np.array(table["page"].to_pylist())
    np.testing.assert_allclose(click, expected["click"][numbers, 0], atol=1e-6)
    np.testing.assert_allclose(page, expected["page"][numbers], atol=1e-6)


def test_parquet(version, rows, expected, tmp_path):
    write_parquet(tmp_path / "a.parquet", rows, slice(0, 20))
    write_parquet(tmp_path / "b.parquet", rows, slice(20, COUNT))
    output = tmp_path / "scores"
    summary = script.score(
        version, [f"{tmp_path}/*.parquet"], str(output), keys=["id", "item"]
    )
    table, letters = result(output)
    assert (summary.read, summary.scored, summary.dead) == (COUNT, COUNT, 0)
    assert table.schema == pa.schema(
        [
            ("id", pa.string()),
            ("item", pa.int64()),
            ("click", pa.float32()),
            ("page", pa.list_(pa.field("element", pa.float32()))),
        ]
    )
    assert_scores(table, expected)
    assert letters == [] and not list(output.glob("dead_letter*"))
    numbers = [int(name.removeprefix("row ")) for name in table["id"].to_pylist()]
    assert table["item"].to_pylist() == rows["item"][numbers].tolist()


@pytest.mark.parametrize("name", ["log.tfrecord", "log.tfrecord.gz"])
def test_tfrecord(version, rows, expected, tmp_path, name):
    """Integers where the model has floats; empty lists are left out of the records."""
    write_tfrecord(tmp_path / name, rows)
    output = tmp_path / "scores"
    summary = script.score(
        version, [str(tmp_path / name)], str(output), keys=["id"], batch_size=16
    )
    table, letters = result(output)
    assert (summary.read, summary.scored, letters) == (COUNT, COUNT, [])
    assert_scores(table, expected)


def test_without_key_file_and_row_tell_rows_apart(version, rows, expected, tmp_path):
    path = tmp_path / "log.parquet"
    write_parquet(path, rows)
    script.score(version, [str(path)], str(tmp_path / "scores"), batch_size=3)
    table, _ = result(tmp_path / "scores")
    assert table.schema.names == ["file", "row", "click", "page"]
    assert set(table["file"].to_pylist()) == {str(path)}
    order = table["row"].to_numpy()
    assert sorted(order) == list(range(COUNT))
    click = table["click"].to_numpy()
    np.testing.assert_allclose(click, expected["click"][order, 0], atol=1e-6)


def test_signature_of_one_task(version, rows, tmp_path):
    write_parquet(tmp_path / "log.parquet", rows)
    output = tmp_path / "scores"
    script.score(
        version,
        [f"{tmp_path}/*.parquet"],
        str(output),
        keys=["id"],
        signature="click",
    )
    assert result(output)[0].schema.names == ["id", "click"]


def test_bad_rows_of_parquet_are_dead_letters(version, rows, expected, tmp_path):
    bad = {**rows, "item": [str(item) for item in rows["item"]]}
    bad["numbers"] = [list(values) for values in rows["numbers"]]
    bad["id"] = list(rows["id"])
    bad["item"][3] = "three"
    bad["numbers"][4] = [0.0] * 4
    bad["id"][17] = None
    bad["item"][40] = "1.5"
    write_parquet(tmp_path / "log.parquet", bad, size=25)
    output = tmp_path / "scores"
    summary = script.score(
        version, [f"{tmp_path}/*.parquet"], str(output), keys=["id"], batch_size=16
    )
    table, letters = result(output)
    assert (summary.read, summary.scored, summary.dead) == (COUNT, COUNT - 4, 4)
    assert_scores(table, expected, lost=(3, 4, 17, 40))
    reasons = {letter["row"]: letter["reason"] for letter in letters}
    assert reasons == {
        3: "`item` should be int64. Received: 'three'",
        4: "`numbers` should have 3 values. Received: 4",
        17: "`id` should not be missing, as a key. Received: None",
        40: "`item` should be int64. Received: '1.5'",
    }
    (letter,) = [letter for letter in letters if letter["row"] == 3]
    assert letter["file"] == str(tmp_path / "log.parquet")
    assert letter["content"]["id"] == "row 3"
    assert letter["content"]["item"] == "three"
    assert letter["content"]["tags"] == rows["tags"][3]


def test_missing_values_and_short_lists_of_parquet_are_scored(version, tmp_path):
    values = {
        "numbers": [[1.0], None, [1.0, None, 3.0]],
        "age": [None, 20.5, float("nan")],
        "country": ["at", None, "de"],
        "item": [None, 5.0, float("nan")],
        "tags": [None, [2, None], []],
    }
    parquet.write_table(pa.table(values), tmp_path / "log.parquet")
    output = tmp_path / "scores"
    script.score(version, [f"{tmp_path}/*.parquet"], str(output))
    nan = np.nan
    inputs = {
        "numbers": np.array([[1, nan, nan], [nan] * 3, [1, nan, 3]], "float32"),
        "age": np.array([[nan], [20.5], [nan]], "float32"),
        "country": np.array([["at"], [""], ["de"]], object),
        "item": np.array([[-1], [5], [-1]]),
        "tags": np.array([[-1, -1], [2, -1], [-1, -1]]),
    }
    served = run_in_cpp_session(version, inputs)["click"][:, 0]
    table, letters = result(output)
    assert letters == []
    scores = table.sort_by("row")["click"].to_numpy()
    np.testing.assert_allclose(scores, served, atol=1e-6)


def test_file_without_a_column_is_all_dead_letters(version, rows, expected, tmp_path):
    write_parquet(tmp_path / "a.parquet", rows, slice(0, 30))
    table = columns_of(rows, slice(30, COUNT)).drop_columns(["age"])
    parquet.write_table(table, tmp_path / "b.parquet")
    output = tmp_path / "scores"
    summary = script.score(version, [f"{tmp_path}/*.parquet"], str(output), keys=["id"])
    table, letters = result(output)
    assert (summary.scored, summary.dead) == (30, COUNT - 30)
    assert_scores(table, expected, count=30)
    assert {letter["reason"] for letter in letters} == {
        "`age` should be one of the columns. Received: 0 of this name"
    }
    assert [letter["row"] for letter in letters] == list(range(COUNT - 30))
    assert letters[0]["content"]["country"] == rows["country"][30]


def test_column_of_a_type_that_is_never_read(version, rows, tmp_path):
    table = columns_of(rows).set_column(
        1, "age", pa.array(np.arange(COUNT).astype("datetime64[ms]"))
    )
    parquet.write_table(table, tmp_path / "log.parquet")
    script.score(version, [f"{tmp_path}/*.parquet"], str(tmp_path / "scores"))
    table, letters = result(tmp_path / "scores")
    assert (len(table), len(letters)) == (0, COUNT)
    assert letters[0]["reason"] == (
        "`age` should hold numbers, strings, or lists of them. Received: timestamp[ms]"
    )
    assert letters[0]["content"]["age"] == "1970-01-01 00:00:00"


def test_bad_rows_of_tfrecord_are_dead_letters(version, rows, expected, tmp_path):
    def rename(f):
        f["aeg"].CopyFrom(f.pop("age"))

    records = examples({**rows, "folder": tmp_path})
    records[0] = b"no example"
    records[5] = changed(records[5], rename)
    records[6] = changed(records[6], lambda f: f["item"].float_list.value.append(3.0))
    records[7] = changed(records[7], lambda f: f["item"].int64_list.value.append(3))
    records[8] = changed(records[8], lambda f: f["tags"].bytes_list.value.append(b"x"))
    records[9] = changed(records[9], lambda f: f["numbers"].float_list.value.append(1))
    records[10] = changed(records[10], lambda f: f.pop("id"))
    write_records(tmp_path / "log", records)
    output = tmp_path / "scores"
    summary = script.score(version, [str(tmp_path / "log")], str(output), keys=["id"])
    table, letters = result(output)
    lost = [0, 5, 6, 7, 8, 9, 10]
    assert (summary.read, summary.scored, summary.dead) == (COUNT, COUNT - 7, 7)
    assert_scores(table, expected, lost=lost)
    assert [letter["row"] for letter in letters] == lost
    fragments = [
        "should be a serialised tf.train.Example. Received: b'no example'",
        "`age` should be in the example. Received: no such feature",
        "Key: item, Index: 0. Data types don't match",
        "Key: item, Index: 0. Number of int64 values != expected",
        "Key: tags, Index: 0. Data types don't match",
        "`numbers` should have 3 values. Received: 4",
        "`id` should be in the example. Received: no such feature",
    ]
    for letter, fragment in zip(letters, fragments, strict=True):
        assert fragment in letter["reason"]
        assert not {"{{", "[Op"} & set(letter["reason"].split())
    assert letters[0]["content"] == {"base64": "bm8gZXhhbXBsZQ=="}
    assert letters[1]["content"]["aeg"] == [rows["age"][5]]
    assert letters[1]["content"]["id"] == ["row 5"]


def test_types_may_differ_by_record(version, rows, expected, tmp_path):
    records = examples({**rows, "folder": tmp_path})
    age = float(rows["age"][20])
    records[20] = changed(records[20], lambda f: f["age"].float_list.value.append(age))
    write_records(tmp_path / "log", records)
    output = tmp_path / "scores"
    script.score(version, [str(tmp_path / "log")], str(output), keys=["id"])
    assert_scores(result(output)[0], expected)


def test_list_that_no_record_has_is_missing(version, rows, tmp_path):
    """Neither the order of rows nor that of files matters."""
    lists = {**rows, "tags": [[]] * COUNT, "numbers": [[]] * COUNT}
    others = {name: lists[name] for name in lists if name not in ("tags", "numbers")}
    write_tfrecord(tmp_path / "log", others)
    script.score(
        version, [str(tmp_path / "log")], str(tmp_path / "scores"), keys=["id"]
    )
    table, letters = result(tmp_path / "scores")
    inputs = {
        "numbers": np.full((COUNT, 3), np.nan, "float32"),
        "age": np.array(rows["age"], "float32")[:, None],
        "country": np.array(rows["country"], object)[:, None],
        "item": rows["item"][:, None],
        "tags": np.full((COUNT, 1), -1),
    }
    assert_scores(table, run_in_cpp_session(version, inputs))
    assert letters == []


def test_list_that_the_first_records_lack(version, rows, expected, tmp_path):
    late = sorted(range(COUNT), key=lambda n: bool(rows["tags"][n]))
    write_tfrecord(tmp_path / "log", {n: [v[k] for k in late] for n, v in rows.items()})
    script.score(
        version,
        [str(tmp_path / "log")],
        str(tmp_path / "scores"),
        keys=["id"],
        batch_size=5,
    )
    table, letters = result(tmp_path / "scores")
    assert_scores(table, expected)
    assert letters == []


def test_file_of_other_types_is_read_in_blocks(
    version, rows, expected, tmp_path, monkeypatch
):
    """Integers in one file, floats in the next, in both orders."""
    for name, half, kind in (("a", slice(20), "i8"), ("b", slice(20, COUNT), "f4")):
        chosen = {column: list(values[half]) for column, values in rows.items()}
        chosen["age"] = np.array(chosen["age"], kind)
        write_tfrecord(tmp_path / name, chosen)
    sizes = []
    read_columns = script.read_columns

    def recording(rows, columns):
        sizes.append(len(rows))
        return read_columns(rows, columns)

    monkeypatch.setattr(script, "read_columns", recording)
    for number, order in enumerate(("ab", "ba")):
        paths = [str(tmp_path / name) for name in order]
        output = tmp_path / f"scores-{number}"
        script.score(version, paths, str(output), keys=["id"])
        assert_scores(result(output)[0], expected)
    assert sorted(sizes) == [20, 20, 21, 21]


@pytest.mark.parametrize("cut", [1, 400])
def test_tfrecord_that_breaks_off(version, rows, expected, tmp_path, cut):
    """What comes before is scored; one line says from where on nothing was read."""
    path = tmp_path / "log"
    write_tfrecord(path, rows)
    path.write_bytes(path.read_bytes()[:-cut])
    output = tmp_path / "scores"
    summary = script.score(version, [str(path)], str(output), keys=["id"])
    table, (letter,) = result(output)
    assert (summary.scored, summary.dead, summary.damaged) == (len(table), 0, 1)
    assert COUNT - 5 < summary.read < COUNT
    assert_scores(table, expected, count=summary.read)
    assert letter["row"] == summary.read
    assert letter["reason"].startswith("The file was not read from this row on: trunc")
    assert letter["content"] is None


def test_file_that_is_neither(version, rows, expected, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a,b\n1,2\n" * 9)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    write_parquet(tmp_path / "c.parquet", rows)
    words = f"--model {version} --input {tmp_path}/*.* --output {tmp_path}/scores"
    assert script.main([*words.split(), "--key", "id"]) == 65
    table, letters = result(tmp_path / "scores")
    assert_scores(table, expected)
    assert Counter(Path(letter["file"]).name for letter in letters) == {
        "a.txt": 1,
        "b.parquet": 1,
    }
    assert "damaged files             2" in capsys.readouterr().out


def test_damaged_gzip_is_one_line(version, rows, expected, tmp_path):
    write_parquet(tmp_path / "a.parquet", rows)
    whole = gzip.compress(b"x" * 10_000)
    (tmp_path / "b.gz").write_bytes(whole[:20] + b"garbage" * 9)
    (tmp_path / "c.gz").write_bytes(whole[:-12])
    (tmp_path / "d.bz2").write_bytes(b"BZh9 and no more")
    write_parquet(tmp_path / "e.parquet.gz", rows, slice(0, 2))
    output = tmp_path / "scores"
    summary = script.score(version, [f"{tmp_path}/*.*"], str(output), keys=["id"])
    table, letters = result(output)
    assert len(table) == COUNT + 2
    assert summary.damaged == 3
    assert sorted(Path(letter["file"]).name for letter in letters) == [
        "b.gz",
        "c.gz",
        "d.bz2",
    ]
    assert {letter["row"] for letter in letters} == {0}


@pytest.mark.parametrize("error", [zlib.error("bad"), EOFError("bad"), OSError("bad")])
def test_errors_of_reading_are_dead_letters(monkeypatch, error):
    def fail(path):
        raise error

    monkeypatch.setattr(script, "_open", fail)
    (piece,) = script.pieces("log")
    letter, damaged = script.Read([], 4).process(piece)
    assert damaged.value == "log"
    assert json.loads(letter.value)["reason"] == (
        "The file was not read from this row on: bad"
    )


def write_checked_parquet(path, rows):
    """Row groups of 7 rows with checksums of pages; of two a bit of `age` is wrong."""
    parquet.write_table(
        columns_of(rows),
        path,
        row_group_size=7,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    content = bytearray(path.read_bytes())
    with parquet.ParquetFile(path) as file:
        for group in (1, 4):
            age = file.metadata.row_group(group).column(1)
            content[age.data_page_offset + age.total_compressed_size - 8] ^= 1
    path.write_bytes(content)


def test_parquet_that_is_damaged_inside(version, rows, expected, tmp_path, monkeypatch):
    """Two pieces of a file: the rest of each is lost, and it is one file."""
    monkeypatch.setattr(script, "PIECE", 14)
    write_checked_parquet(tmp_path / "log.parquet", rows)
    output = tmp_path / "scores"
    summary = script.score(
        version, [f"{tmp_path}/*.parquet"], str(output), keys=["id"], batch_size=7
    )
    table, letters = result(output)
    lost = [*range(7, 14), *range(28, 41)]
    assert (summary.read, summary.scored) == (COUNT - len(lost), COUNT - len(lost))
    assert summary.damaged == 1
    assert_scores(table, expected, lost=lost)
    reasons = sorted((letter["row"], letter["reason"]) for letter in letters)
    assert [row for row, _ in reasons] == [7, 28]
    assert reasons[0][1].startswith("Rows 7 to 13 were not read: ")
    assert reasons[1][1].startswith("Rows 28 to 40 were not read: ")


def test_pieces_are_runs_of_row_groups(rows, tmp_path, monkeypatch):
    path = str(tmp_path / "log.parquet")
    write_parquet(path, rows)
    assert list(script.pieces(path)) == [(path, (0, 1, 2, 3, 4, 5), 0, COUNT)]
    monkeypatch.setattr(script, "PIECE", 20)
    pieces = list(script.pieces(path))
    assert pieces == [(path, (0, 1, 2), 0, 21), (path, (3, 4, 5), 21, COUNT)]
    opened = []
    plain = script._open

    def recording(path):
        opened.append(path)
        return plain(path)

    monkeypatch.setattr(script, "_open", recording)
    blocks = list(script.Read(["id"], 100).process(pieces[1]))
    assert [(first, len(found)) for _, first, found in blocks] == [(21, 20)]
    assert blocks[0][2]["id"].to_pylist() == rows["id"][21:]
    assert opened == [path]


def test_pieces_of_another_file(tmp_path):
    (tmp_path / "log").write_bytes(b"no Parquet")
    path = str(tmp_path / "log")
    assert list(script.pieces(path)) == [(path, (), 0, 0)]


def test_row_that_the_model_refuses(tmp_path):
    """An id beyond a table without a guard fails its row alone."""
    ids = keras.Input((1,), dtype="int64", name="ids")
    table = keras.layers.Embedding(10, 4)(ids)
    score = keras.layers.Dense(1)(keras.layers.Flatten()(table))
    model = keras.Model({"ids": ids}, {"score": score})
    path = export(model, tmp_path / "models").path
    given = np.arange(20) % 10
    given[[2, 13]] = 10
    parquet.write_table(pa.table({"ids": given}), tmp_path / "log.parquet")
    summary = script.score(
        path, [f"{tmp_path}/*.parquet"], str(tmp_path / "scores"), batch_size=8
    )
    table, letters = result(tmp_path / "scores")
    assert (summary.scored, summary.dead) == (18, 2)
    assert [letter["row"] for letter in letters] == [2, 13]
    assert letters[0]["reason"] == "indices[0,0] = 10 is not in [0, 10)"
    assert sorted(table["row"].to_pylist()) == sorted(set(range(20)) - {2, 13})


def test_command_prints_the_summary(version, rows, tmp_path, capsys):
    write_parquet(tmp_path / "log.parquet", rows)
    words = f"--model {version} --input {tmp_path}/log.parquet --output {tmp_path}/out"
    words += " --batch-size 8 -- --job_name scoring"
    assert script.main(words.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        "rows read                41",
        "scored                   41",
        "dead letters              0",
        "damaged files             0",
    ]
    assert printed[4].endswith("of the whole job")
    assert printed[5].endswith("of one core, decoding and scoring")


def test_command_tells_that_no_row_was_scored(version, rows, tmp_path):
    table = columns_of(rows).drop_columns(["age"])
    parquet.write_table(table, tmp_path / "log.parquet")
    words = f"--model {version} --input {tmp_path}/log.parquet --output {tmp_path}/out"
    assert script.main(words.split()) == 65


def test_without_beam_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"needs Apache Beam: .*'tfmtl\[beam\]'"):
        load_script("without_beam")
    del sys.modules["without_beam"]


@pytest.mark.slow
def test_command_with_several_processes(version, rows, expected, tmp_path):
    write_parquet(tmp_path / "log.parquet", rows)
    words = f"--model {version} --input {tmp_path}/log.parquet --output {tmp_path}/out"
    words += " --key id --batch-size 4 -- --direct_running_mode multi_processing"
    words += " --direct_num_workers 2"
    command = [sys.executable, str(SCRIPT), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "scored                   41" in done.stdout
    assert_scores(result(tmp_path / "out")[0], expected)


def test_folder_with_files_is_refused(version, rows, tmp_path):
    write_parquet(tmp_path / "log.parquet", rows)
    message = r"`output` should be a new or empty folder. Received: .*log.parquet'"
    with pytest.raises(FileExistsError, match=message):
        script.score(version, [f"{tmp_path}/log.parquet"], str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` should be positive. Received: batch_size=0"),
        ({"keys": ["no"]}, "`keys` should be .*'no', which is none of the columns"),
        ({"keys": ["tags"]}, r"`keys` should be .*'tags', which is lists of \['int64'"),
        ({"keys": ["price"]}, "`keys` should be .*'price', which is float32"),
        ({"keys": ["click"]}, "`keys` should have other names .* output 'click'"),
        ({"signature": "no"}, "`signature` should be one of .*signature='no'"),
        ({"signature": "classify_click"}, "outputs of numbers. .*'classes' of strings"),
        (
            {"signature": "serving_examples"},
            "`signature` should be one that takes columns, .* which takes serialised",
        ),
    ],
)
def test_arguments_that_are_refused(version, rows, tmp_path, arguments, message):
    more = {**rows, "price": [0.5] * COUNT, "click": list(range(COUNT))}
    write_parquet(tmp_path / "log.parquet", more)
    with pytest.raises(ValueError, match=message):
        script.score(
            version, [f"{tmp_path}/log.parquet"], f"{tmp_path}/scores", **arguments
        )
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("name", ["tags", "words"])
def test_lists_of_tfrecord_are_no_keys(version, rows, tmp_path, name):
    """One record with one value too many is none, see the bad rows above."""
    more = {**rows, "words": [["a", "b"]] * 30 + [["a"]] * (COUNT - 30)}
    write_tfrecord(tmp_path / "log", more)
    message = f"`keys` should be .*{name!r}, which is lists of "
    with pytest.raises(ValueError, match=message):
        script.score(
            version, [f"{tmp_path}/log"], f"{tmp_path}/scores", keys=["id", name]
        )
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("sign", "*?[")
def test_output_that_looks_like_a_glob(version, rows, tmp_path, sign):
    write_parquet(tmp_path / "log.parquet", rows)
    output = f"{tmp_path}/scores{sign}"
    with pytest.raises(ValueError, match="`output` should be without .* Received: out"):
        script.score(version, [f"{tmp_path}/log.parquet"], output)


def test_input_without_files_is_refused(version, tmp_path):
    message = "`inputs` should be files or globs of files. Received: .*no file matches"
    with pytest.raises(FileNotFoundError, match=message):
        script.score(version, [f"{tmp_path}/*.parquet"], f"{tmp_path}/scores")


def test_model_that_does_not_load_is_no_dead_letter(version, rows, tmp_path):
    copy = tmp_path / "1"
    copy.mkdir()
    (copy / "saved_model.pb").write_bytes((version / "saved_model.pb").read_bytes())
    write_parquet(tmp_path / "log.parquet", rows)
    with pytest.raises(Exception, match="variables|assets"):
        script.score(copy, [f"{tmp_path}/log.parquet"], f"{tmp_path}/scores")
    assert not list(tmp_path.glob("scores/scores*"))


@pytest.mark.parametrize("bad", [[], [0], [12], [3, 4, 9], list(range(13))])
def test_apart_leaves_the_bad_rows_alone(bad):
    def work(block):
        if set(block[2].tolist()) & set(bad):
            raise ValueError(f"bad: {block[2].tolist()}")
        return block[2]

    parts = list(script.apart(("log", 100, np.arange(13)), work))
    assert [row for (_, _, rows), _ in parts for row in rows] == list(range(13))
    assert all(first == 100 + rows[0] for (_, first, rows), _ in parts)
    refused = {int(rows[0]): made for (_, _, rows), made in parts if type(made) is str}
    assert refused == {row: f"bad: [{row}]" for row in bad}


def test_apart_lets_other_errors_through():
    def work(block):
        raise tf.errors.NotFoundError(None, None, "no model")

    with pytest.raises(tf.errors.NotFoundError, match="no model"):
        list(script.apart(("log", 0, np.arange(4)), work))


@pytest.mark.parametrize(
    ("array", "column", "values"),
    [
        (pa.array([1, None]), ("int64", ()), [1, -1]),
        (pa.array([True, False]), ("int64", (1,)), [[1], [0]]),
        (pa.array([7, None]), ("int32", (1,)), [[7], [-1]]),
        (pa.array([2.5, 3]), ("float64", (1,)), [[2.5], [3.0]]),
        (pa.array(["a", None]), ("string", (1,)), [[b"a"], [b""]]),
        (pa.array(["a", "a"]).dictionary_encode(), ("string", ()), [b"a", b"a"]),
        (pa.array([5, 6]), ("int64", (-1,)), [[5], [6]]),
        (pa.array([[], None]), ("int64", (-1,)), [[-1], [-1]]),
        (pa.array([["a"], []]), ("string", (2,)), [[b"a", b""], [b"", b""]]),
        (pa.array([[1, 2, 3, 4]]), ("int64", (2, 2)), [[[1, 2], [3, 4]]]),
        (
            pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
            ("int64", (2,)),
            [[1, 2], [-1, -1]],
        ),
    ],
)
def test_dense(array, column, values):
    column = script.Input(*column)
    found = script.dense("x", array, column)
    assert found.tolist() == values
    assert found.dtype == (object if column.dtype == "string" else column.dtype)


@pytest.mark.parametrize(
    ("array", "column", "message"),
    [
        (pa.array(["x"]), ("float32", (1,)), "`x` should be float32. Received: 'x'"),
        (pa.array([1]), ("string", (1,)), "`x` should be string. Received: 1"),
        (pa.array([2**40]), ("int32", (1,)), "`x` should be int32. Received: 1099"),
        (pa.array([1.5]), ("int64", (1,)), "`x` should be int64. Received: 1.5"),
        (pa.array([[1, 2]]), ("int64", (1,)), "`x` should have one value. Received: 2"),
        (pa.array([1.0]), ("float32", (3,)), "`x` should have 3 values. Received: 1"),
        (pa.array([[[1]]]), ("int64", (3,)), "`x` should be int64. Received:"),
    ],
)
def test_dense_refuses(array, column, message):
    with pytest.raises(ValueError, match=message):
        script.dense("x", array, script.Input(*column))
