"""The clients of `export/` and its load generator, against the conformance server."""

import io
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
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


@pytest.mark.parametrize("text", [None, float("nan"), 3])
def test_what_is_no_text(by_grpc, text):
    batch = {**columns(2), "country": [["at"], [text]]}
    message = f"`inputs.'country'.` should hold strings. Received: {text}"
    with pytest.raises(ValueError, match=message):
        by_grpc.predict(batch)
    with pytest.raises(ValueError, match=message):
        by_grpc.classify(batch, "classify_click")


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


def test_a_column_that_the_signature_has_not(by_grpc, by_rest, models):
    batch = {**columns(2), "aeg": [[1.0], [2.0]]}
    with pytest.raises(grpc.RpcError, match="Sent extra: {aeg}"):
        by_grpc.predict(batch)
    models.rows.clear()
    message = r"`columns` should be of \['age', .*\]. Received: .*'aeg', 'age'"
    with pytest.raises(ValueError, match=message):
        by_rest.predict(batch)
    assert models.rows == []


def test_one_version_is_asked(models, grpc_address):
    batch = columns(2)
    with GrpcClient(grpc_address, version=1, timeout=30) as client:
        same(client.predict(batch), expected(batch))
    with GrpcClient(grpc_address, version=2, timeout=30) as client:
        with pytest.raises(grpc.RpcError, match=r"Specific\(ranker, 2\)"):
            client.predict(batch)


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


@contextmanager
def scripted(*answers):
    """A server that gives these answers, each by a connection of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for answer in answers:
                connection, _ = server.accept()
                with connection, connection.makefile("rb") as request:
                    size = 0
                    while (line := request.readline()).strip():
                        if line.lower().startswith(b"content-length:"):
                            size = int(line.split(b":")[1])
                    request.read(size)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(30)
    assert not thread.is_alive(), "not every answer was asked for"


def answer(content, status="200 OK", length=None):
    """An answer by HTTP, after which the connection ends."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def metadata(*outputs, inputs=("x",)):
    """The answer to a question for the signatures."""
    infos = {name: {"dtype": "DT_FLOAT"} for name in (*inputs, *outputs)}
    found = {
        "inputs": {name: infos[name] for name in inputs},
        "outputs": {name: infos[name] for name in outputs},
    }
    signatures = {"signature_def": {"serving_default": found}}
    return answer({"metadata": {"signature_def": signatures}})


X = {"x": [[1.0]]}
ONE, TWO = [[0.5]], {"a": [[1.0]], "b": [[2.0]]}


def test_a_new_version_has_other_outputs():
    answers = [
        metadata("a"),
        answer({"outputs": ONE}),
        answer({"outputs": TWO}),
        metadata("a", "b"),
        answer({"outputs": TWO}),
        answer({"outputs": ONE}),
        metadata("b"),
    ]
    with scripted(*answers) as address, RestClient(address, timeout=30) as client:
        assert client.predict(X) == {"a": ONE}
        assert client.predict(X) == TWO
        assert client.predict(X) == TWO
        assert client.predict(X) == {"b": ONE}


def test_outputs_that_change_within_a_call():
    answers = [
        metadata("a", "b"),
        answer({"outputs": TWO}),
        answer({"outputs": ONE}),
        metadata("b"),
    ]
    with scripted(*answers) as address:
        with RestClient(address, max_rows=1, timeout=30) as client:
            with pytest.raises(RestError, match="The outputs have changed between"):
                client.predict({"x": [[1.0], [2.0]]})


def test_a_new_version_has_other_columns():
    answers = [
        metadata("a"),
        answer({"outputs": ONE}),
        metadata("a", inputs=("x", "y")),
        answer({"outputs": ONE}),
    ]
    with scripted(*answers) as address, RestClient(address, timeout=30) as client:
        client.predict(X)
        assert client.predict({**X, "y": [[1.0]]}) == {"a": ONE}


BROKEN = {
    "html": answer(b"<html>", "502 Bad Gateway"),
    "no object": answer([1]),
    "no JSON": answer(b"{", "200 OK"),
    "empty": answer(b""),
    "short": answer(b"{", length=10),
    "no HTTP": b"SSH-2.0\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_asked_for_again(broken):
    answers = [metadata("a"), broken, broken, answer({"outputs": ONE})]
    with scripted(*answers) as address:
        with RestClient(address, timeout=30, pause=0) as client:
            assert client.predict(X) == {"a": ONE}


@pytest.mark.parametrize("broken", BROKEN, ids=BROKEN)
def test_load_goes_on_after_a_broken_answer(broken):
    answers = [metadata("a"), BROKEN[broken], metadata("a"), answer({"outputs": ONE})]
    if broken in ("short", "no HTTP", "nothing"):  # the signatures are still known
        del answers[2]
    with scripted(*answers) as address:

        def connect():
            return RestClient(address, timeout=30, attempts=1)

        report = load.load(connect, X, requests=2, threads=1)
    assert len(report.milliseconds) == 1
    [reason] = report.errors
    if broken == "html":
        assert reason == "HTTP 502"


def test_an_error_that_is_no_json():
    with scripted(BROKEN["html"]) as address:
        with RestClient(address, timeout=30, attempts=1) as client:
            with pytest.raises(RestError, match="502: Bad Gateway") as caught:
                client.status()
    assert caught.value.status == 502


def test_an_answer_that_breaks_off():
    with scripted(BROKEN["short"]) as address:
        with RestClient(address, timeout=30, attempts=1) as client:
            with pytest.raises(ConnectionError, match="no whole answer: Incomplete"):
                client.status()


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


@pytest.mark.parametrize("wrong", ["nan", "shape", "value"])
def test_every_output_counts(version, models, grpc_address, monkeypatch, wrong):
    """The first output agrees, the last one does not."""
    predict = GrpcClient.predict

    def spoilt(client, rows):
        outputs = predict(client, rows)
        value = outputs.pop("value")
        outputs["value"] = {
            "nan": np.full_like(value, np.nan),
            "shape": value[:, 0],
            "value": value + 1,
        }[wrong]
        return outputs

    monkeypatch.setattr(GrpcClient, "predict", spoilt)
    assert grpc_client.main([str(version), "--address", grpc_address]) == 1


def test_output_that_the_server_lacks(version, models, grpc_address, capsys):
    batch = columns(5)
    more = {**expected(batch), "like": expected(batch)["click"]}
    write_golden(version, batch, more)
    assert grpc_client.main([str(version), "--address", grpc_address]) == 1
    printed = capsys.readouterr().out
    assert "should have the outputs ['like']. Received: ['click', 'value']" in printed


@pytest.mark.parametrize("number, status", [("1", 0), ("01", 0), ("2", None)])
def test_the_version_of_the_folder_is_asked(
    version, models, grpc_address, number, status
):
    folder = version / number
    batch = columns(5)
    (folder / "assets.extra").mkdir(parents=True)
    write_golden(folder, batch, expected(batch))
    words = [str(folder), "--address", grpc_address]
    if status is None:
        with pytest.raises(grpc.RpcError, match=r"Specific\(ranker, 2\)"):
            grpc_client.main(words)
    else:
        assert grpc_client.main(words) == status


@pytest.mark.parametrize("text, kind", [("[1]", "list"), ("1", "int"), ("null", "No")])
def test_json_that_is_no_object(text, kind, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(SystemExit):
        rest_client.main([])
    message = f"should be a JSON object of columns. Received: {kind}"
    assert message in capsys.readouterr().err


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
        ("--rows 0", "--rows should be from 1 to 100,000. Received: 0"),
        ("--threads 0", "--threads should be from 1 to 1,000. Received: 0"),
    ],
)
def test_load_refuses(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load.main([str(tmp_path), *words.split()])
    assert message in capsys.readouterr().err
