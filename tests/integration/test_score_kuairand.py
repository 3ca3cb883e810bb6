"""KuaiRand-Pure's test rows, scored from files: the server's numbers, no row lost."""

import importlib.util
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from tfmtl import demo, features, models
from tfmtl.data import write_tfrecord
from tfmtl.serving import export, run_in_cpp_session

pytest.importorskip("apache_beam")
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "export" / "score.py"
RECORDS = 3000  # Rows that are written as TFRecord.


@pytest.fixture(scope="module")
def script():
    """The script as a module that Beam's workers in this process can look up."""
    spec = importlib.util.spec_from_file_location("score_kuairand", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(kuairand_folder, tmp_path_factory):
    return demo.kuairand_pure(kuairand_folder, tmp_path_factory.mktemp("kuairand"))


@pytest.fixture(scope="module")
def version(source, tmp_path_factory):
    """An untrained ranker of the demo's features."""
    keras.utils.set_random_seed(0)
    some = {name: values[:20_000] for name, values in source.train[0].items()}
    model = models.snr(features.adapt(source.features, some), source.tasks, [(4, 16)])
    return export(model, tmp_path_factory.mktemp("models")).path


@pytest.fixture(scope="module")
def expected(version, source):
    """What the C++ session answers, for sequences of the whole length."""
    return run_in_cpp_session(version, source.test[0])


@pytest.fixture(scope="module")
def rows(source):
    """Test rows as files have them, with their number: lists without what pads them."""
    columns = {name: _trimmed(values) for name, values in source.test[0].items()}
    return {**columns, "number": np.arange(len(source.test[1]["click"]))}


def _trimmed(values):
    if values.shape[1] == 1:
        return values.reshape(-1)
    return [row[row != -1] for row in values]


def assert_scores(output, expected, numbers):
    """The result has the session's numbers of these rows."""
    table = parquet.read_table(sorted(output.glob("scores-*.parquet")))
    assert sorted(table["number"].to_pylist()) == list(numbers)
    order = table["number"].to_numpy()
    for task, values in expected.items():
        assert len(np.unique(values[order])) > len(order) / 10
        found = table[task].to_numpy()
        np.testing.assert_allclose(found, values[order, 0], rtol=0, atol=1e-6)


def test_parquet_as_the_server(script, version, rows, expected, tmp_path):
    table = pa.table({name: list(values) for name, values in rows.items()})
    parquet.write_table(table[:30_000], tmp_path / "1.parquet", row_group_size=7000)
    parquet.write_table(table[30_000:], tmp_path / "2.parquet")
    output = tmp_path / "scores"
    summary = script.score(
        version, [f"{tmp_path}/*.parquet"], str(output), keys=["number", "user_id"]
    )
    assert (summary.read, summary.scored, summary.dead) == (56_658, 56_658, 0)
    assert_scores(output, expected, range(56_658))


def test_tfrecord_as_the_server_without_its_bad_rows(
    script, version, rows, expected, tmp_path
):
    path = tmp_path / "log.tfrecord"
    write_tfrecord(path, {name: values[:RECORDS] for name, values in rows.items()})
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    lost = [0, 511, 512, 1700, RECORDS - 1]
    for row in lost:
        example = tf.train.Example.FromString(records[row])
        del example.features.feature["hour"]
        records[row] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    output = tmp_path / "scores"
    summary = script.score(version, [str(path)], str(output), keys=["number"])
    assert (summary.read, summary.dead) == (RECORDS, len(lost))
    assert_scores(output, expected, sorted(set(range(RECORDS)) - set(lost)))
    (file,) = output.glob("dead_letter-*.jsonl")
    letters = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [letter["content"]["number"] for letter in letters] == [[n] for n in lost]
    assert {letter["reason"] for letter in letters} == {
        "`hour` should be in the example. Received: no such feature"
    }
