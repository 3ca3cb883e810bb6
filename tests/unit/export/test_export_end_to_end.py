"""Keras model → version folder → server → clients: the same scores."""

import pytest

pytest.importorskip("tensorflow_serving", reason="needs the extra `.[serving]`")

import grpc_client
import keras
import load
import numpy as np
import tensorflow as tf
from conformance_rest import rest_serving
from conformance_server import Models, State, serving
from grpc_client import GrpcClient, examples
from rest_client import RestClient

from tfmtl import features, models, tasks
from tfmtl.serving import export

ROWS = 37


def make_columns():
    random = np.random.default_rng(0)
    columns = {
        "age": random.normal(40, 15, size=(ROWS, 1)).astype("f4"),
        "country": random.choice(["at", "de", "", "zz"], size=(ROWS, 1)),
        "video": random.integers(-1, 2**40, size=(ROWS, 1)),
        "seen": random.integers(-1, 2**40, size=(ROWS, 5)),
    }
    columns["age"][3] = np.nan
    return columns


@pytest.fixture(scope="module")
def model():
    """Strings, hashed ids, a sequence, numbers and buckets; a task of every method."""
    keras.utils.set_random_seed(0)
    columns = [
        features.Numeric("age"),
        features.Bucketized("age", buckets=4),
        features.Categorical("country"),
        features.Categorical("video", dtype="int64", hash_bins=50),
        features.Sequence("seen", dtype="int64", hash_bins=20),
        features.Cross("where", columns=("country", "age"), hash_bins=9),
    ]
    heads = [
        tasks.Binary("click"),
        tasks.Regression("watch_time"),
        tasks.MultiClass("mood", num_classes=3),
    ]
    ranker = models.mmoe(features.adapt(columns, make_columns()), heads, experts=2)
    return models.with_score(ranker, {"click": 1.0, "watch_time": 0.1})


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "ranker"
    return export(model, base, batch_sizes=[1, 8]).path


@pytest.fixture(scope="module")
def addresses(version):
    models = Models({"ranker": version.parent})
    assert models.states == {"ranker": {1: (State.AVAILABLE, "")}}
    with serving(models) as grpc_address, rest_serving(models) as rest_address:
        yield {"grpc": grpc_address, "rest": rest_address}
    models.close()


@pytest.fixture(params=[GrpcClient, RestClient])
def client(request, addresses):
    address = addresses["grpc" if request.param is GrpcClient else "rest"]
    with request.param(address, max_rows=8, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def expected(model):
    tensors = {
        name: tf.constant(column.tolist(), model.input[name].dtype)
        for name, column in make_columns().items()
    }
    return {name: y.numpy() for name, y in model(tensors, training=False).items()}


def assert_same(got, wanted):
    got = np.asarray(got, "f4")
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_all_outputs(client, expected):
    outputs = client.predict(make_columns())
    assert set(outputs) == {"click", "watch_time", "mood", "score"}
    for name, wanted in expected.items():
        assert_same(outputs[name], wanted)


@pytest.mark.parametrize("name", ["click", "mood", "score"])
def test_one_output(client, expected, name):
    outputs = client.predict(make_columns(), name)
    assert set(outputs) == {name}
    assert_same(outputs[name], expected[name])


def test_serialised_examples(client, expected):
    texts = [example.SerializeToString() for example in examples(make_columns())]
    outputs = client.predict({"examples": texts}, "serving_examples")
    for name, wanted in expected.items():
        assert_same(outputs[name], wanted)


def test_classify(client, expected):
    rows = client.classify(make_columns(), "classify_click")
    assert_same([[row["1"]] for row in rows], expected["click"])
    rows = client.classify(make_columns(), "classify_mood")
    assert_same([[row[str(k)] for k in range(3)] for row in rows], expected["mood"])


def test_regress(client, expected):
    got = client.regress(make_columns(), "regress_watch_time")
    assert_same(got, expected["watch_time"].ravel())


def test_columns_left_out_of_examples_are_missing(client, model):
    columns = {name: column[:2] for name, column in make_columns().items()}
    tensors = {
        name: tf.constant(column.tolist(), model.input[name].dtype)
        for name, column in columns.items()
    }
    tensors["country"] = tf.constant([[""], [""]])
    tensors["age"] = tf.constant([[np.nan], [np.nan]])
    wanted = model(tensors, training=False)["watch_time"].numpy().ravel()
    few = {name: columns[name] for name in ("video", "seen")}
    assert_same(client.regress(few, "regress_watch_time"), wanted)


def test_many_rows(addresses, model, expected):
    columns = {
        name: np.resize(column, (100_000, column.shape[1]))
        for name, column in make_columns().items()
    }
    with GrpcClient(addresses["grpc"], max_rows=100_000, timeout=60) as client:
        outputs = client.predict(columns)
    for name, wanted in expected.items():
        assert outputs[name].shape == (100_000, *wanted.shape[1:])
        assert_same(outputs[name], np.resize(wanted, outputs[name].shape))


def test_golden_rows(addresses, version, capsys):
    assert grpc_client.main([str(version), "--address", addresses["grpc"]]) == 0
    assert "score: " in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_load(addresses, version, protocol, capsys):
    words = f"{version} --protocol {protocol} --address {addresses[protocol]}"
    load.main(f"{words} --requests 4 --rows 10 --threads 2".split())
    assert capsys.readouterr().out.startswith("4 of 4 requests answered")
