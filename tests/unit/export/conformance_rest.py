"""TF Serving's REST API before the models of `conformance_server`.

Rows (`instances`) and columns (`inputs`), and the rules of its JSON: an integer has no
decimal point, a number fits its type, a text is a string, bytes are `{"b64": …}`.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from conformance_server import DEFAULT, Models, Refused, invalid
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+))?"
LARGEST_FLOAT = float(np.finfo(np.float32).max)


@contextmanager
def rest_serving(models: Models) -> Iterator[str]:
    """Serves models by REST at a free port of this machine, whose address it gives."""
    handler = type("Handler", (RestHandler,), {"models": models})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


class RestHandler(BaseHTTPRequestHandler):
    models: Models
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(self.read)

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        self.reply(lambda: self.score(body))

    def reply(self, answer):
        try:
            status, content = 200, answer()
        except Refused as refused:
            status, content = HTTP.get(refused.code, 500), {"error": str(refused)}
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *arguments):
        pass

    def read(self):
        found = re.fullmatch(MODEL + "(/metadata)?", self.path)
        if not found:
            raise invalid(f"Malformed request: GET {self.path}")
        if not found[3]:
            request = named(get_model_status_pb2.GetModelStatusRequest(), found)
            return as_json(self.models.status(request))
        request = named(get_model_metadata_pb2.GetModelMetadataRequest(), found)
        request.metadata_field.append("signature_def")
        response = self.models.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": as_json(response.model_spec),
            "metadata": {"signature_def": as_json(signatures)},
        }

    def score(self, body):
        found = re.fullmatch(MODEL + ":(predict|classify|regress)", self.path)
        if not found:
            raise invalid(f"Malformed request: POST {self.path}")
        try:
            content = json.loads(body)
        except ValueError as error:
            raise invalid(f"JSON Parse error: {error}") from error
        return getattr(self, found[3])(content, found)

    def predict(self, content, found):
        request = named(predict_pb2.PredictRequest(), found)
        _, version = self.models.find(request.model_spec)
        name = content.get("signature_name", DEFAULT)
        if name not in version.signatures:
            raise invalid(f'Serving signature name: "{name}" not found')
        infos = dict(version.signatures[name].inputs)
        by_row = "instances" in content
        if by_row == ("inputs" in content):
            raise invalid("Missing 'inputs' or 'instances' key")
        columns = (
            of_rows(content["instances"], infos)
            if by_row
            else of_columns(content["inputs"], infos)
        )
        request.model_spec.signature_name = name
        for key, column in columns.items():
            request.inputs[key].CopyFrom(tensor(column, tf.as_dtype(infos[key].dtype)))
        response = self.models.answer("predict", request)
        outputs = {k: numbers(tf.make_ndarray(v)) for k, v in response.outputs.items()}
        if not by_row:
            return {"outputs": unnamed(outputs)}
        rows = zip(*outputs.values(), strict=True)
        return {
            "predictions": [
                unnamed(dict(zip(outputs, row, strict=True))) for row in rows
            ]
        }

    def classify(self, content, found):
        request = of_examples(
            named(classification_pb2.ClassificationRequest(), found), content
        )
        response = self.models.answer("classify", request)
        return {
            "results": [
                [
                    [found.label, numbers(np.float32(found.score))]
                    for found in row.classes
                ]
                for row in response.result.classifications
            ]
        }

    def regress(self, content, found):
        request = of_examples(named(regression_pb2.RegressionRequest(), found), content)
        response = self.models.answer("regress", request)
        values = [regression.value for regression in response.result.regressions]
        return {"results": numbers(np.array(values, np.float32))}


def named(request, found):
    request.model_spec.name = found[1]
    if found[2]:
        request.model_spec.version.value = int(found[2])
    return request


def as_json(message):
    return MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def unnamed(values):
    """The only value, or all by name."""
    return next(iter(values.values())) if len(values) == 1 else values


def numbers(array):
    """Nested lists of the shortest decimals that are these float32."""
    if array.dtype != np.float32:
        return array.tolist()
    return np.vectorize(lambda value: float(str(value)), otypes=[float])(array).tolist()


def of_rows(instances, infos):
    if not isinstance(instances, list) or not instances:
        raise invalid("No values in 'instances' array")
    if len(infos) == 1 and not is_named(instances[0], infos):
        return {next(iter(infos)): instances}
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or set(instance) != set(infos):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. "
                f"keys must be equal to: {','.join(sorted(infos))}"
            )
    return {key: [instance[key] for instance in instances] for key in infos}


def is_named(instance, infos):
    return isinstance(instance, dict) and set(instance) == set(infos)


def of_columns(inputs, infos):
    if not isinstance(inputs, dict) or set(inputs) == {"b64"}:
        if len(infos) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object")
        return {next(iter(infos)): inputs}
    for key in infos:
        if key not in inputs:
            raise invalid(f"Missing named input: {key} in 'inputs' object.")
    return {key: inputs[key] for key in infos}


def tensor(column, dtype):
    leaves = []
    shape = shape_of(column)
    fill(column, shape, dtype, leaves)
    kind = object if dtype == tf.string else dtype.as_numpy_dtype
    return tf.make_tensor_proto(np.array(leaves, kind).reshape(shape), dtype)


def shape_of(value):
    if not isinstance(value, list):
        return []
    return [len(value), *(shape_of(value[0]) if value else [])]


def fill(value, shape, dtype, leaves):
    if not isinstance(value, list):
        if shape:
            raise invalid(f"JSON Value: {value!r} found at incorrect level")
        leaves.append(leaf(value, dtype))
        return
    if not shape or len(value) != shape[0]:
        raise invalid(f"Encountered list at unexpected size: {len(value)}")
    for element in value:
        fill(element, shape[1:], dtype, leaves)


def leaf(value, dtype):
    wrong = invalid(
        f"JSON Value: {value!r} Type: {type(value).__name__} is not of expected type: "
        f"{dtype.name}"
    )
    if dtype == tf.string:
        if isinstance(value, dict) and set(value) == {"b64"}:
            return base64.b64decode(value["b64"])
        if not isinstance(value, str):
            raise wrong
        return value.encode()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong
    if dtype.is_integer:
        if not isinstance(value, int) or not dtype.min <= value <= dtype.max:
            raise wrong
        return value
    if isinstance(value, int) and abs(value) >= 2**24 or too_large(value):
        raise invalid(
            f"Cannot convert JSON value: {value} to float without loss of precision."
        )
    return value


def too_large(value):
    return np.isfinite(value) and abs(value) > LARGEST_FLOAT


def of_examples(request, content):
    request.model_spec.signature_name = content.get("signature_name", DEFAULT)
    if not content.get("examples"):
        raise invalid("'examples' value is an empty array")
    for fields in content["examples"]:
        example = request.input.example_list.examples.add()
        for name, values in fields.items():
            add_feature(example.features.feature[name], values)
    return request


def add_feature(feature, values):
    values = values if isinstance(values, list) else [values]
    for value in values:
        if isinstance(value, str | dict):
            feature.bytes_list.value.append(leaf(value, tf.string))
        elif isinstance(value, float):
            feature.float_list.value.append(leaf(value, tf.float32))
        else:
            feature.int64_list.value.append(leaf(value, tf.int64))
