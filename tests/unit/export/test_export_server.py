"""The conformance server: TF Serving's life of a version and its status codes."""

import pytest

pytest.importorskip("tensorflow_serving", reason="needs the extra `.[serving]`")

import grpc
import numpy as np
import tensorflow as tf
from conformance_server import UNLIMITED, Models
from grpc_client import examples
from handmade import columns, expected, request, write, write_warm_up
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

State = get_model_status_pb2.ModelVersionStatus.State


@pytest.fixture
def stub(models, grpc_address):
    with grpc.insecure_channel(grpc_address, UNLIMITED) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def answer(stub, batch, signature=""):
    response = stub.Predict(request(batch, signature), timeout=30)
    return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}


def refusal(call, message):
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=30)
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize("rows", [0, 1, 5, 100_000])
def test_predict(stub, rows):
    batch = columns(rows)
    outputs = answer(stub, batch)
    assert set(outputs) == {"click", "value"}
    for name, values in expected(batch).items():
        assert outputs[name].shape == (rows, 1) and outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], values, atol=1e-6)


def test_a_signature_of_one_output_and_an_output_filter(stub):
    batch = columns(3)
    assert set(answer(stub, batch, "value")) == {"value"}
    message = request(batch)
    message.output_filter.append("click")
    response = stub.Predict(message, timeout=30)
    assert set(response.outputs) == {"click"}
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


def wrong(**changes):
    batch = {**columns(2), **changes}
    return {name: values for name, values in batch.items() if values is not None}


@pytest.mark.parametrize(
    "batch, signature, code, details",
    [
        (columns(2), "nothing", "FAILED_PRECONDITION", '"nothing" not found'),
        (wrong(age=None), "", "INVALID_ARGUMENT", "Missing but required: {age}"),
        (wrong(more=np.ones((2, 1))), "", "INVALID_ARGUMENT", "Sent extra: {more}"),
        (wrong(age=np.ones((2, 1))), "", "INVALID_ARGUMENT", "float32 but is float64"),
        (
            wrong(item=np.ones((2, 1), "i4")),
            "",
            "INVALID_ARGUMENT",
            "int64 but is int32",
        ),
        (
            wrong(age=np.ones((3, 1), "f4")),
            "",
            "INVALID_ARGUMENT",
            "ncompatible shapes",
        ),
        (wrong(age=np.ones(2, "f4")), "", "INVALID_ARGUMENT", "shape"),
    ],
)
def test_refused_predictions(stub, batch, signature, code, details):
    got = refusal(stub.Predict, request(batch, signature))
    assert got[0] == code and details in got[1]


def test_refused_outputs_and_values(stub):
    message = request(columns(2))
    message.output_filter.append("nothing")
    assert refusal(stub.Predict, message) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: nothing",
    )
    message = request(columns(2))
    message.inputs["age"].tensor_content = b"123"
    code, details = refusal(stub.Predict, message)
    assert (code, details) == ("INVALID_ARGUMENT", "tensor parsing error: age")


def test_unknown_models_and_versions(stub):
    message = request(columns(1), model="other")
    assert refusal(stub.Predict, message) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(other)",
    )
    message = request(columns(1))
    message.model_spec.version.value = 7
    assert refusal(stub.Predict, message) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(ranker, 7)",
    )
    message.model_spec.version.value = 1
    assert stub.Predict(message, timeout=30).outputs


def asked(kind, signature, batch):
    message = kind()
    message.model_spec.name = "ranker"
    message.model_spec.signature_name = signature
    message.input.example_list.examples.extend(examples(batch))
    return message


def test_classify(stub):
    batch = columns(4)
    message = asked(classification_pb2.ClassificationRequest, "classify_click", batch)
    rows = stub.Classify(message, timeout=30).result.classifications
    assert [[found.label for found in row.classes] for row in rows] == [["0", "1"]] * 4
    scores = [[found.score for found in row.classes] for row in rows]
    click = expected(batch)["click"]
    np.testing.assert_allclose(scores, np.hstack([1 - click, click]), atol=1e-6)


def test_regress(stub):
    batch = columns(4)
    message = asked(regression_pb2.RegressionRequest, "regress_value", batch)
    found = stub.Regress(message, timeout=30).result.regressions
    np.testing.assert_allclose(
        [each.value for each in found], expected(batch)["value"].ravel(), atol=1e-6
    )


@pytest.mark.parametrize("signature", ["nothing", "serving_default", "regress_value"])
def test_classify_refuses(stub, signature):
    message = asked(classification_pb2.ClassificationRequest, signature, columns(1))
    code, details = refusal(stub.Classify, message)
    assert code == "INVALID_ARGUMENT"
    assert (
        "No signature was found" in details or "to be tensorflow/serving/cl" in details
    )


def test_examples_that_are_empty_or_of_another_type_are_refused(stub):
    kind = regression_pb2.RegressionRequest
    message = asked(kind, "regress_value", columns(0))
    assert refusal(stub.Regress, message) == ("INVALID_ARGUMENT", "Input is empty.")
    message = asked(kind, "regress_value", {"seen": [[0.5]]})
    assert refusal(stub.Regress, message)[0] == "INVALID_ARGUMENT"


def test_metadata(stub):
    message = get_model_metadata_pb2.GetModelMetadataRequest()
    message.model_spec.name = "ranker"
    assert refusal(stub.GetModelMetadata, message)[0] == "INVALID_ARGUMENT"
    message.metadata_field.append("signature_def")
    response = stub.GetModelMetadata(message, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert set(default.inputs) == {"age", "item", "country", "seen"}
    method = signatures.signature_def["classify_click"].method_name
    assert method == "tensorflow/serving/classify"


def test_status(models, grpc_address):
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "ranker"
    with grpc.insecure_channel(grpc_address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        [found] = stub.GetModelStatus(message, timeout=30).model_version_status
        assert (found.version, found.state) == (1, State.AVAILABLE)
        message.model_spec.version.value = 7
        assert refusal(stub.GetModelStatus, message)[0] == "NOT_FOUND"


def states(models):
    return {
        version: State.Name(state)
        for version, (state, _) in models.states["ranker"].items()
    }


def value(models):
    batch = columns(3)
    response = models.answer("predict", request(batch))
    return float(tf.make_ndarray(response.outputs["value"])[0, 0]) / float(
        expected(batch)["value"][0, 0]
    )


@pytest.fixture
def growing(tmp_path):
    """Models whose only version, yet, has a gain of 1."""
    base = tmp_path / "ranker"
    write(base / "1")
    models = Models({"ranker": base})
    yield models, base
    models.close()


def test_a_new_version_takes_over(growing):
    models, base = growing
    assert value(models) == 1.0
    write(base / "2", gain=2.0)
    models.poll()
    assert value(models) == 2.0
    assert states(models) == {1: "END", 2: "AVAILABLE"}


def test_a_version_whose_warm_up_fails_never_serves(growing):
    models, base = growing
    write(base / "2", gain=2.0)
    write_warm_up(base / "2", [columns(1), wrong(age=None)])
    models.poll()
    assert value(models) == 1.0
    assert states(models) == {1: "AVAILABLE", 2: "END"}
    assert "Missing but required: {age}" in models.states["ranker"][2][1]


def test_a_version_without_its_variables_never_serves(growing):
    models, base = growing
    write(base / "2", gain=2.0)
    (base / "2" / "variables" / "variables.index").unlink()
    models.poll()
    assert value(models) == 1.0
    assert states(models) == {1: "AVAILABLE", 2: "END"}


def test_a_damaged_warm_up_record_fails_the_load(growing):
    models, base = growing
    write(base / "2", gain=2.0)
    file = base / "2" / "assets.extra" / "tf_serving_warmup_requests"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    models.poll()
    assert value(models) == 1.0 and states(models)[2] == "END"


@pytest.mark.parametrize("records, state", [(1000, "AVAILABLE"), (1001, "END")])
def test_no_more_than_1000_warm_up_records(growing, records, state):
    models, base = growing
    write(base / "2", warm_up=())
    write_warm_up(base / "2", [columns(1)] * records)
    models.poll()
    assert states(models)[2] == state


def test_warm_up_records_may_classify_and_regress(growing):
    models, base = growing
    write(base / "2", gain=2.0)
    log = prediction_log_pb2.PredictionLog()
    batch = columns(2)
    log.classify_log.request.CopyFrom(
        asked(classification_pb2.ClassificationRequest, "classify_click", batch)
    )
    other = prediction_log_pb2.PredictionLog()
    other.regress_log.request.CopyFrom(
        asked(regression_pb2.RegressionRequest, "regress_value", batch)
    )
    file = base / "2" / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(log.SerializeToString())
        writer.write(other.SerializeToString())
    models.poll()
    assert states(models)[2] == "AVAILABLE"
