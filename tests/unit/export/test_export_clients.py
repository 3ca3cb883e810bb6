"""The clients of `export/` and its load generator, against the conformance server."""

import io
import json
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_serving", reason="needs the extra `.[serving]`")

import batches
import grpc
import grpc_client
import load
import numpy as np
import rest_client
from grpc_client import GrpcClient, examples
from handmade import columns, expected
from rest_client import RestClient, RestError, encode

from tfmtl.serving.golden import write_golden

EXPORT = Path(grpc_client.__file__).parent


@pytest.fixture
def by_grpc(models, grpc_address):
    with GrpcClient(grpc_address, max_rows=4, timeout=30) as client:
        yield client


@pytest.fixture
def by_rest(models, rest_address):
    with RestClient(rest_address, max_rows=4, timeout=30, pause=0) as client:
        yield client


@pytest.fixture(params=["grpc", "rest"])
def client(request):
    return request.getfixturevalue(f"by_{request.param}")


@pytest.fixture
def free_port():
    """A port of this machine at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def same(outputs, wanted, names=("click", "value")):
    assert set(outputs) == set(names)
    for name in names:
        got = np.asarray(outputs[name], "f4").reshape(wanted[name].shape)
        np.testing.assert_allclose(got, wanted[name], atol=1e-6)


def test_parts():
    found = list(batches.parts({"a": [1, 2, 3], "b": np.arange(3)}, 2))
    assert [part["a"] for part in found] == [[1, 2], [3]]
    assert [part["b"].tolist() for part in found] == [[0, 1], [2]]
    assert list(batches.parts({"a": []}, 2)) == [{"a": []}]


@pytest.mark.parametrize("columns, rows", [({"a": [1], "b": [1, 2]}, 2), ({}, 2)])
def test_parts_refuse_columns_of_different_lengths(columns, rows):
    with pytest.raises(ValueError, match="`columns` should be one or more of the same"):
        list(batches.parts(columns, rows))


def test_parts_refuse_no_rows():
    with pytest.raises(ValueError, match="`max_rows` should be .* max_rows=0"):
        list(batches.parts({"a": [1]}, 0))


def test_a_deadline_passes():
    assert 0 < batches.Deadline(60).left() <= 60
    with pytest.raises(TimeoutError, match="The deadline has passed"):
        batches.Deadline(-1).left()


@pytest.mark.parametrize("rows, requests", [(1, [1]), (4, [4]), (10, [4, 4, 2])])
def test_rows_are_cut_into_requests_and_joined(client, models, rows, requests):
    batch = columns(rows)
    same(client.predict(batch), expected(batch))
    assert models.rows == requests


def test_a_batch_without_rows(client):
    empty = {name: values[:0] for name, values in columns(1).items()}
    outputs = client.predict(empty)
    assert set(outputs) == {"click", "value"}
    assert all(len(values) == 0 for values in outputs.values())


def test_a_signature_of_one_output(client):
    batch = columns(6)
    same(client.predict(batch, "value"), expected(batch), ["value"])


def test_serialised_examples(client):
    batch = columns(6)
    texts = [example.SerializeToString() for example in examples(batch)]
    same(client.predict({"examples": texts}, "serving_examples"), expected(batch))


def test_bytes_that_end_in_zero(client):
    [example] = examples({"seen": [[0]]})
    text = example.SerializeToString()
    assert text.endswith(b"\0")
    outputs = client.predict({"examples": [text]}, "serving_examples")
    assert outputs["value"] == [[0.0]]
    [example] = examples({"country": [b"a\0"]})
    assert example.features.feature["country"].bytes_list.value == [b"a\0"]


def test_classify(client):
    batch = columns(6)
    rows = client.classify(batch, "classify_click")
    click = expected(batch)["click"].ravel()
    np.testing.assert_allclose([row["1"] for row in rows], click, atol=1e-6)
    np.testing.assert_allclose([row["0"] for row in rows], 1 - click, atol=1e-6)


def test_regress(client):
    batch = columns(6)
    value = expected(batch)["value"].ravel()
    np.testing.assert_allclose(client.regress(batch, "regress_value"), value, atol=1e-6)


def test_status(client):
    assert client.status() == {1: "AVAILABLE"}


def test_texts_as_lists(client):
    batch = {**columns(3), "country": [["at"], ["übergröße"], [""]]}
    encoded = {**batch, "country": [[b"at"], ["übergröße".encode()], [b""]]}
    same(client.predict(batch), expected(encoded))


def test_a_busy_server_is_asked_again(client, models):
    models.busy = 2
    batch = columns(2)
    same(client.predict(batch), expected(batch))
    assert models.rows == [2]


def test_a_large_request_is_sent_again_too(client, models):
    models.busy = 1
    batch = {**columns(2), "country": [[b"x" * 2**20], [b""]]}
    outputs = client.predict(batch, "value")
    np.testing.assert_allclose(outputs["value"], expected(columns(2))["value"])


def test_the_number_of_attempts_is_bounded(client, models):
    models.busy = 1000
    with pytest.raises((grpc.RpcError, RestError)) as caught:
        client.classify(columns(1), "classify_click")
    if isinstance(caught.value, grpc.RpcError):
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    else:
        assert caught.value.status == 503
    assert models.busy == 997


def test_the_only_attempt_may_be_refused(models, grpc_address, rest_address):
    models.busy = 1
    with GrpcClient(grpc_address, attempts=1, timeout=30) as client:
        with pytest.raises(grpc.RpcError):
            client.predict(columns(1))
    assert models.busy == 0
    with RestClient(rest_address, attempts=1, timeout=30) as client:
        client.predict(columns(1))
        models.busy = 1
        with pytest.raises(RestError, match="503: The batch queue is full"):
            client.predict(columns(1))


def test_no_server(free_port):
    with GrpcClient(free_port, attempts=1, timeout=30) as client:
        with pytest.raises(grpc.RpcError) as caught:
            client.predict(columns(1))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    with RestClient(free_port, timeout=30, pause=0) as client:
        with pytest.raises(ConnectionRefusedError):
            client.predict(columns(1))


def test_no_time(grpc_address, rest_address):
    for kind, address in ((GrpcClient, grpc_address), (RestClient, rest_address)):
        with kind(address, timeout=0) as client:
            with pytest.raises(TimeoutError, match="The deadline has passed"):
                client.predict(columns(1))


def test_a_server_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with RestClient(address, timeout=0.1) as client:
            with pytest.raises(TimeoutError):
                client.status()
        with GrpcClient(address, timeout=0.1) as client:
            with pytest.raises(grpc.RpcError) as caught:
                client.status()
    assert caught.value.code().name in ("DEADLINE_EXCEEDED", "UNAVAILABLE")


def test_what_the_server_refuses(by_grpc, by_rest):
    batch = columns(2)
    del batch["age"]
    with pytest.raises(grpc.RpcError, match="Missing but required: {age}") as caught:
        by_grpc.predict(batch)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(RestError, match="400: Missing named input: age") as caught:
        by_rest.predict(batch)
    assert caught.value.status == 400


def test_an_unknown_signature_or_model(by_rest, rest_address):
    with pytest.raises(ValueError, match="`signature` should be one of .*'nothing'"):
        by_rest.predict(columns(1), "nothing")
    with RestClient(rest_address, "other", timeout=30) as client:
        with pytest.raises(RestError, match="404: Servable not found .*Latest.other"):
            client.predict(columns(1))
        with pytest.raises(RestError, match="404: Could not find any versions"):
            client.status()


def test_a_connection_that_the_server_closed_is_opened_again(by_rest):
    batch = columns(2)
    by_rest.predict(batch)
    by_rest._connection.sock.shutdown(socket.SHUT_RDWR)
    same(by_rest.predict(batch), expected(batch))


@pytest.mark.parametrize("attempts", [0, 6])
def test_attempts(attempts):
    with pytest.raises(ValueError, match=f"`attempts` .* attempts={attempts}"):
        GrpcClient(attempts=attempts)
    with pytest.raises(ValueError, match="`attempts` should be a positive integer"):
        RestClient(attempts=attempts - 6)


def test_whole_numbers_are_sent_as_integers(by_rest):
    batch = columns(3)
    batch["item"] %= 2**40
    floats = {**batch, "item": batch["item"].astype(float), "age": [[1], [2], [3]]}
    same(by_rest.predict(floats), expected({**batch, "age": [[1], [2], [3]]}))
    rows = by_rest.classify(floats, "classify_click")
    click = expected({**batch, "age": [[1], [2], [3]]})["click"].ravel()
    np.testing.assert_allclose([row["1"] for row in rows], click, atol=1e-6)
    with pytest.raises(ValueError, match="'item' should have whole numbers. .*: 0.5"):
        by_rest.predict({**batch, "item": [[0.5], [1], [2]]})


def test_numbers_that_are_none(by_rest):
    batch = {**columns(3), "age": [[np.inf], [-np.inf], [3e38]]}
    same(by_rest.predict(batch), expected(batch))
    with pytest.raises(RestError, match="400: Cannot convert JSON value: 1e.40"):
        by_rest.predict({**batch, "age": [[1e40], [0.0], [0.0]]})


@pytest.mark.parametrize(
    "value, dtype, json_value",
    [
        (np.array([[1], [2]]), "DT_INT64", [[1], [2]]),
        ([[7.0]], "DT_INT64", [[7]]),
        ([[7]], "DT_FLOAT", [[7.0]]),
        (["at"], "DT_STRING", ["at"]),
        ([b"\xff"], "DT_STRING", [{"b64": "/w=="}]),
        (np.float32(0.1), "DT_FLOAT", float(np.float32(0.1))),
        ((True,), "", [True]),
    ],
)
def test_json_values(value, dtype, json_value):
    assert json.dumps(encode("x", value, dtype)) == json.dumps(json_value)


def raw(address, path, content):
    """A request without the client, and its HTTP status."""
    client = RestClient(address, timeout=30)
    with client:
        try:
            return 200, client._send("POST", path, content, batches.Deadline(30))
        except RestError as error:
            return error.status, str(error)


def test_rows_instead_of_columns(rest_address):
    batch = columns(3)
    batch["country"] = np.array([["at"], ["de"], [""]])
    encoded = {name: values.tolist() for name, values in batch.items()}
    rows = [
        dict(zip(encoded, row, strict=True))
        for row in zip(*encoded.values(), strict=True)
    ]
    body = json.dumps({"instances": rows}).encode()
    _, answer = raw(rest_address, ":predict", body)
    outputs = {
        name: [row[name] for row in answer["predictions"]]
        for name in ("click", "value")
    }
    same(outputs, expected({**batch, "country": batch["country"].astype("S")}))
    body = json.dumps({"instances": rows, "signature_name": "value"}).encode()
    _, answer = raw(rest_address, ":predict", body)
    assert answer["predictions"] == outputs["value"]


ROW = {"age": [1], "item": [1], "country": ["at"], "seen": [1, 2]}


@pytest.mark.parametrize(
    "path, content, message",
    [
        (":predict", b"{", "JSON Parse error"),
        (":predict", {}, "Missing 'inputs' or 'instances'"),
        (":predict", {"instances": []}, "No values in 'instances'"),
        (":predict", {"instances": [{"age": [1]}]}, "keys must be equal to"),
        (":predict", {"instances": [{**ROW, "item": [1.0]}]}, "not of expected type"),
        (":predict", {"instances": [{**ROW, "item": [2**63]}]}, "not of expected type"),
        (":predict", {"instances": [{**ROW, "country": [1]}]}, "not of expected type"),
        (":predict", {"instances": [{**ROW, "age": [2**24]}]}, "loss of precision"),
        (":predict", {"instances": [ROW, {**ROW, "seen": [1]}]}, "unexpected size"),
        (":classify", {"examples": []}, "is an empty array"),
        (":guess", {}, "Malformed request"),
    ],
)
def test_what_rest_refuses(rest_address, path, content, message):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    status, answer = raw(rest_address, path, body)
    assert status == 400 and message in answer


@pytest.fixture
def version(tmp_path):
    """A folder with golden rows."""
    batch = columns(5)
    write_golden(tmp_path, batch, expected(batch), tolerance=1e-6)
    return tmp_path


def test_golden_rows_on_the_command_line(version, models, grpc_address, capsys):
    words = [str(version), "--address", grpc_address]
    assert grpc_client.main(words) == 0
    printed = capsys.readouterr().out
    assert "{1: 'AVAILABLE'}" in printed
    assert "value: 5 rows, largest difference 0.0e+00" in printed
    batch = columns(5)
    wrong = {**expected(batch), "value": expected(batch)["value"] + 1}
    write_golden(version, batch, wrong, tolerance=1e-6)
    assert grpc_client.main(words) == 1


def test_columns_on_the_command_line(models, rest_address, capsys, monkeypatch):
    batch = {"age": [[0.5]], "item": [[4]], "country": [["at"]], "seen": [[1, 2]]}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(batch)))
    rest_client.main(["--address", rest_address, "--signature", "value"])
    assert json.loads(capsys.readouterr().out) == {"value": [[3.0]]}


def test_the_rest_client_needs_the_standard_library_alone():
    code = "import rest_client, sys; print({n.partition('.')[0] for n in sys.modules})"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=EXPORT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    for name in ("numpy", "tensorflow", "tfmtl", "grpc", "requests"):
        assert f"'{name}'" not in process.stdout


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_load(protocol, version, models, grpc_address, rest_address, capsys):
    address = grpc_address if protocol == "grpc" else rest_address
    words = f"{version} --protocol {protocol} --address {address}"
    options = "--requests 7 --rows 3 --threads 2"
    load.main(f"{words} {options}".split())
    assert models.rows == [3] * 7
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "7 of 7 requests answered"
    assert lines[1].startswith("p50 ") and "p95 " in lines[1] and "p99 " in lines[1]
    assert lines[2].endswith(" rows/s") and len(lines) == 3


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_load_counts_errors(protocol, models, grpc_address, rest_address):
    connect = {
        "grpc": lambda: GrpcClient(grpc_address, attempts=1, timeout=30),
        "rest": lambda: RestClient(rest_address, attempts=1, timeout=30),
    }[protocol]
    batch = columns(2)
    models.busy = 3
    report = load.load(connect, batch, requests=5, threads=1)
    reason = {"grpc": "UNAVAILABLE", "rest": "HTTP 503"}[protocol]
    assert report.errors == Counter({reason: 3})
    assert len(report.milliseconds) == 2 and report.rows == 2
    assert str(report).startswith("2 of 5 requests answered")
    assert str(report).endswith(f"3 x {reason}")


def test_load_without_a_server(free_port):
    report = load.load(
        lambda: RestClient(free_port, attempts=1), columns(1), requests=2, threads=2
    )
    assert not report.milliseconds and sum(report.errors.values()) == 2
    assert "0 of 2 requests answered" in str(report)


@pytest.mark.parametrize(
    "address, loopback",
    [
        ("127.0.0.1:8500", True),
        ("localhost:8500", True),
        ("[::1]:8500", True),
        ("10.0.0.1:8500", False),
        ("ranker.example.org:8500", False),
        ("localhost.example.org:8500", False),
    ],
)
def test_loopback(address, loopback):
    assert load.is_loopback(address) is loopback


@pytest.mark.parametrize(
    "words, message",
    [
        ("--address 10.0.0.1:8500", "of this machine unless --remote"),
        ("--requests 0", "--requests should be from 1 to 1,000,000. Received: 0"),
        ("--requests 1000001", "from 1 to 1,000,000. Received: 1000001"),
    ],
)
def test_load_refuses(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load.main([str(tmp_path), *words.split()])
    assert message in capsys.readouterr().err
