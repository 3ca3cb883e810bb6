"""A model server for tests: TF Serving's API, its rules and its status codes.

It loads a version as TF Serving does: a session with the tag `serve`, then the warm-up
records, and only then is the version available; one that fails ends, and the one before
goes on serving. What it cannot show: the server's batching, and that XLA is off.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfmtl.serving import versions

DEFAULT = "serving_default"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")
LARGEST_WARM_UP = 1000
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
CODES = {code.value[0]: code for code in grpc.StatusCode}
State = get_model_status_pb2.ModelVersionStatus.State


class Refused(Exception):
    """An answer that is a status."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


class Version:
    """A SavedModel in a session."""

    def __init__(self, path):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            with self.session.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(
                    self.session, ["serve"], str(path)
                )
            self.signatures = dict(meta_graph.signature_def)
            self._warm_up(Path(path) / WARM_UP)
        except Exception:
            self.close()
            raise

    def close(self):
        self.session.close()

    def predict(self, request):
        name = request.model_spec.signature_name or DEFAULT
        if name not in self.signatures:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{name}" not found.',
            )
        signature = self.signatures[name]
        self._check_names(signature, request)
        fed = {
            info.name: self._array(key, request.inputs[key], info.dtype)
            for key, info in signature.inputs.items()
        }
        wanted = list(request.output_filter) or list(signature.outputs)
        for key in wanted:
            if key not in signature.outputs:
                raise invalid(f"output tensor alias not found in signature: {key}")
        values = self._run([signature.outputs[key].name for key in wanted], fed)
        response = predict_pb2.PredictResponse()
        for key, value in zip(wanted, values, strict=True):
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        response.model_spec.signature_name = name
        return response

    def classify(self, request):
        signature = self._of_method(request, CLASSIFY, "classification")
        names = [key for key in ("classes", "scores") if key in signature.outputs]
        values = dict(
            zip(names, self._of_input(request, signature, names), strict=True)
        )
        response = classification_pb2.ClassificationResponse()
        for row in range(len(request.input.example_list.examples)):
            classes = response.result.classifications.add().classes
            for k in range(values[names[0]].shape[1]):
                found = classes.add()
                if "classes" in values:
                    found.label = values["classes"][row, k]
                if "scores" in values:
                    found.score = values["scores"][row, k]
        return response

    def regress(self, request):
        signature = self._of_method(request, REGRESS, "regression")
        [values] = self._of_input(request, signature, ["outputs"])
        if values.ndim > 2 or values.ndim == 2 and values.shape[1] != 1:
            raise invalid(
                "Expected output Tensor shape to be either [batch_size] or "
                f"[batch_size, 1] but got {list(values.shape)}"
            )
        response = regression_pb2.RegressionResponse()
        for value in values.ravel():
            response.result.regressions.add().value = value
        return response

    def _check_names(self, signature, request):
        sent, known = set(request.inputs), set(signature.inputs)
        if sent != known:
            extra, missing = sorted(sent - known), sorted(known - sent)
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(known)}. "
                f"Sent extra: {{{','.join(extra)}}}. "
                f"Missing but required: {{{','.join(missing)}}}."
            )

    def _array(self, name, proto, dtype):
        if proto.dtype != dtype:
            expected, got = tf.as_dtype(dtype).name, tf.as_dtype(proto.dtype).name
            raise invalid(f"input {name} expects to be {expected} but is {got}")
        try:
            return tf.make_ndarray(proto)
        except (TypeError, ValueError) as error:
            raise invalid(f"tensor parsing error: {name}") from error

    def _of_method(self, request, method, kind):
        name = request.model_spec.signature_name or DEFAULT
        if name not in self.signatures:
            raise invalid(f"No signature was found with the name: {name}")
        signature = self.signatures[name]
        if signature.method_name != method:
            raise invalid(
                f"Expected {kind} signature method_name to be {method}. "
                f"Was: {signature.method_name}"
            )
        return signature

    def _of_input(self, request, signature, names):
        examples = request.input.example_list.examples
        if not examples:
            raise invalid("Input is empty.")
        serialized = np.array([e.SerializeToString() for e in examples], object)
        return self._run(
            [signature.outputs[name].name for name in names],
            {signature.inputs["inputs"].name: serialized},
        )

    def _run(self, fetches, fed):
        try:
            return self.session.run(fetches, fed)
        except tf.errors.OpError as error:
            raise Refused(CODES[error.error_code], error.message) from error
        except ValueError as error:  # a shape that Python checks
            raise invalid(str(error)) from error

    def _warm_up(self, file):
        if not file.is_file():
            return
        records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        for number, record in enumerate(records, start=1):
            log = prediction_log_pb2.PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            answers = {
                "predict_log": self.predict,
                "classify_log": self.classify,
                "regress_log": self.regress,
            }
            answers[kind](getattr(log, kind).request)
            if number > LARGEST_WARM_UP:
                raise invalid("Number of warmup records exceeds the maximum (1000)")


class Models:
    """Models by name, each at its newest version that loads.

    Args:
        bases: The folder of versions by the model's name.

    Attributes:
        busy: How many of the next requests are answered with UNAVAILABLE.
        rows: The number of rows of each request to predict.
    """

    def __init__(self, bases: Mapping[str, Path]):
        self.bases = dict(bases)
        self.loaded = {}
        self.states = {name: {} for name in bases}
        self.busy = 0
        self.rows = []
        self.poll()

    def poll(self):
        """Loads what is new, as the server does every second."""
        for name, base in self.bases.items():
            newest = max(versions(base), default=None)
            if newest is not None and newest not in self.states[name]:
                self._load(name, newest)

    def _load(self, name, number):
        try:
            version = Version(self.bases[name] / str(number))
        except Exception as error:
            self.states[name][number] = State.END, str(error)
            return
        before = self.loaded.get(name)
        self.loaded[name] = number, version
        self.states[name][number] = State.AVAILABLE, ""
        if before:
            self.states[name][before[0]] = State.END, ""
            before[1].close()

    def close(self):
        for _, version in self.loaded.values():
            version.close()

    def find(self, spec):
        """The version that a request asks for, and its number."""
        number, version = self.loaded.get(spec.name, (None, None))
        wanted = spec.version.value if spec.HasField("version") else number
        if version is None or wanted != number:
            asked = (
                f"Specific({spec.name}, {spec.version.value})"
                if spec.HasField("version")
                else f"Latest({spec.name})"
            )
            raise Refused(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}"
            )
        return number, version

    def answer(self, method, request):
        """The response of `predict`, `classify` or `regress`."""
        if self.busy:
            self.busy -= 1
            raise Refused(grpc.StatusCode.UNAVAILABLE, "The batch queue is full.")
        number, version = self.find(request.model_spec)
        if method == "predict":
            shapes = [i.tensor_shape.dim for i in request.inputs.values()]
            self.rows += [shape[0].size for shape in shapes[:1] if shape]
        response = getattr(version, method)(request)
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = number
        return response

    def metadata(self, request):
        if list(request.metadata_field) != ["signature_def"]:
            raise invalid(f"Metadata field {request.metadata_field} is not supported")
        number, version = self.find(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = number
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in version.signatures.items():
            found.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(found)
        return response

    def status(self, request):
        name = request.model_spec.name
        states = self.states.get(name, {})
        if request.model_spec.HasField("version"):
            wanted = request.model_spec.version.value
            states = {k: state for k, state in states.items() if k == wanted}
        if not states:
            raise Refused(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find any versions of model {name}",
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in sorted(states, reverse=True):
            state, message = states[number]
            found = response.model_version_status.add(version=number, state=state)
            if message:
                found.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
                found.status.error_message = message
        return response


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self.models = models

    def Predict(self, request, context):
        return answered(context, self.models.answer, "predict", request)

    def Classify(self, request, context):
        return answered(context, self.models.answer, "classify", request)

    def Regress(self, request, context):
        return answered(context, self.models.answer, "regress", request)

    def GetModelMetadata(self, request, context):
        return answered(context, self.models.metadata, request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models):
        self.models = models

    def GetModelStatus(self, request, context):
        return answered(context, self.models.status, request)


def answered(context, answer, *arguments):
    try:
        return answer(*arguments)
    except Refused as refused:
        context.abort(refused.code, str(refused))


@contextmanager
def serving(models: Models) -> Iterator[str]:
    """Serves models by gRPC at a free port of this machine, whose address it gives."""
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, options=UNLIMITED)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(models), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(models), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(10)
