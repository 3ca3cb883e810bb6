"""Scores rows with TF Serving by gRPC.

    python export/grpc_client.py runs/models/ranker/1

asks a server of the version in this folder for the scores of its golden rows, and
prints how far they are from the Keras model's. Needs the extra `.[serving]`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from batches import MAX_ROWS, Deadline, parts
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfmtl.folding.proof import difference
from tfmtl.serving.golden import read_golden
from tfmtl.serving.rows import encode

Columns = Mapping[str, Any]
State = get_model_status_pb2.ModelVersionStatus.State


class GrpcClient:
    """A connection to one model; several threads may share it.

    Columns are arrays, one row per example, of the type that the signature has; of
    numbers that NumPy makes float64, float32 is sent. Requests of more than `max_rows`
    rows are cut, the answers joined. A request that the server has no room for
    (UNAVAILABLE) is sent again after a pause, by gRPC itself.

    Args:
        address: The host and port of the server. The connection is not encrypted.
        model: The model's name.
        version: The version's number. Defaults to `None`, the server's newest.
        max_rows: The most rows of one request; at most the server's `max_batch_size`.
        timeout: The seconds after which a call fails, all its requests together.
        attempts: How often a request is sent at most, from 1 to 5.

    Raises:
        ValueError: If `attempts` is not from 1 to 5.

    Example:
        `GrpcClient().predict({"age": [[31.0]]})["click"]`
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8500",
        model: str = "ranker",
        *,
        version: int | None = None,
        max_rows: int = MAX_ROWS,
        timeout: float = 2.0,
        attempts: int = 3,
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.per_rpc_retry_buffer_size", 64 << 20),  # else large ones are not
            *_retries(attempts),
        ]
        self.model = model
        self.version = version
        self.max_rows = max_rows
        self.timeout = timeout
        self._channel = grpc.insecure_channel(address, options)
        self._scores = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> "GrpcClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def predict(
        self, columns: Columns, signature: str = "serving_default"
    ) -> dict[str, np.ndarray]:
        """Asks for the outputs of a signature.

        Args:
            columns: One array per input, `(rows, width)`; the one input of
                `serving_examples` is `(rows,)`, see `examples`.
            signature: The signature's name: `serving_default`, an output's name,
                `serving_examples`.

        Returns:
            One array per output, `(rows, width)`.

        Raises:
            ValueError: If the columns have different numbers of rows, or a column of
                texts has something else.
            grpc.RpcError: If the server refuses or does not answer in time.
            TimeoutError: If the time is up between two requests.
        """
        arrays = {name: _array(name, column) for name, column in columns.items()}
        deadline = Deadline(self.timeout)
        answers = []
        for part in parts(arrays, self.max_rows):
            request = predict_pb2.PredictRequest()
            self._fill(request, signature)
            for name, array in part.items():
                request.inputs[name].CopyFrom(_tensor(array))
            response = self._scores.Predict(request, timeout=deadline.left())
            answers.append(response.outputs)
        return {
            name: np.concatenate([tf.make_ndarray(answer[name]) for answer in answers])
            for name in answers[0]
        }

    def classify(self, columns: Columns, signature: str) -> list[dict[str, float]]:
        """Asks for the scores of the classes, for example of `classify_click`.

        Args:
            columns: As of `predict`, one row or more; columns may be left out.
            signature: The signature's name.

        Returns:
            The score by class, for each row.

        Raises:
            ValueError: If the columns have different numbers of rows, or a column of
                texts has something else.
            grpc.RpcError: If the server refuses or does not answer in time.
            TimeoutError: If the time is up between two requests.
        """
        found: list[dict[str, float]] = []
        deadline = Deadline(self.timeout)
        for rows in self._rows(columns):
            request = classification_pb2.ClassificationRequest()
            self._fill(request, signature)
            request.input.example_list.examples.extend(rows)
            response = self._scores.Classify(request, timeout=deadline.left())
            found += [
                {each.label: each.score for each in row.classes}
                for row in response.result.classifications
            ]
        return found

    def regress(self, columns: Columns, signature: str) -> np.ndarray:
        """Asks for a number, for example of `regress_watch_time`.

        Args:
            columns: As of `classify`.
            signature: The signature's name.

        Returns:
            The numbers, `(rows,)`.

        Raises:
            ValueError: If the columns have different numbers of rows, or a column of
                texts has something else.
            grpc.RpcError: If the server refuses or does not answer in time.
            TimeoutError: If the time is up between two requests.
        """
        found: list[float] = []
        deadline = Deadline(self.timeout)
        for rows in self._rows(columns):
            request = regression_pb2.RegressionRequest()
            self._fill(request, signature)
            request.input.example_list.examples.extend(rows)
            response = self._scores.Regress(request, timeout=deadline.left())
            found += [each.value for each in response.result.regressions]
        return np.array(found, np.float32)

    def status(self) -> dict[int, str]:
        """Asks for the state of each version, `"AVAILABLE"` or another.

        Raises:
            grpc.RpcError: If the server does not know the model or does not answer.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model
        response = self._models.GetModelStatus(request, timeout=self.timeout)
        return {
            found.version: State.Name(found.state)
            for found in response.model_version_status
        }

    def _fill(self, request: Any, signature: str) -> None:
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version

    def _rows(self, columns: Columns) -> Iterator[list[tf.train.Example]]:
        arrays = {name: _array(name, column) for name, column in columns.items()}
        for part in parts(arrays, self.max_rows):
            yield examples(part)


def examples(columns: Columns) -> list[tf.train.Example]:
    """Makes one `tf.train.Example` of each row.

    `serving_examples` takes them serialised: `{"examples": [example.SerializeToString()
    for example in examples(columns)]}`.

    Args:
        columns: One array per column, `(rows,)` or `(rows, width)`.

    Returns:
        An example per row, with a list of bytes, floats or integers per column.

    Raises:
        ValueError: If a column of texts has something else.

    Example:
        `examples({"age": [[31.0]]})`
    """
    arrays = {name: _array(name, column) for name, column in columns.items()}
    found = []
    for row in range(len(next(iter(arrays.values())))):
        example = tf.train.Example()
        for name, array in arrays.items():
            _add(example.features.feature[name], array[row, ...].ravel())
        found.append(example)
    return found


def _add(feature: tf.train.Feature, values: np.ndarray) -> None:
    if values.dtype == object:
        feature.bytes_list.value.extend(values)
    elif values.dtype.kind == "f":
        feature.float_list.value.extend(values)
    else:
        feature.int64_list.value.extend(values)


def _array(name: str, column: Any) -> np.ndarray:
    array = np.asarray(column)
    if array.dtype.kind in "SUOT":
        # NumPy's own arrays of texts drop zeros at the end, which an example may have.
        array = np.array(column, object)
        for index, text in np.ndenumerate(array):
            array[index] = encode(name, text)
        return array
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _tensor(array: np.ndarray) -> Any:
    dtype = tf.string if array.dtype == object else None
    return tf.make_tensor_proto(array, dtype)


def _retries(attempts: int) -> list[tuple[str, Any]]:
    if not 1 <= attempts <= 5:
        raise ValueError(
            f"`attempts` should be from 1 to 5. Received: attempts={attempts}"
        )
    if attempts == 1:
        return [("grpc.enable_retries", 0)]
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
    return [("grpc.service_config", json.dumps(config))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares a server's scores of the golden rows with the Keras model's.

    Args:
        arguments: Words of the command line. Defaults to the process's own.

    Returns:
        The exit status, 1 if a score is not the Keras model's.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", type=Path, help="the version's folder")
    parser.add_argument("--address", default="127.0.0.1:8500")
    parser.add_argument("--model", default="ranker")
    options = parser.parse_args(arguments)
    golden = read_golden(options.version)
    folder = options.version.resolve().name
    number = int(folder) if folder.isdecimal() else None
    with GrpcClient(options.address, options.model, version=number) as client:
        print(client.status())
        scores = client.predict(golden.rows)
    lacking = sorted(set(golden.outputs) - set(scores))
    if lacking:
        print(
            f"The server should have the outputs {lacking}. Received: {sorted(scores)}"
        )
        return 1
    largest = {
        name: difference(scores[name], values)
        for name, values in golden.outputs.items()
    }
    for name, value in largest.items():
        print(f"{name}: {len(scores[name])} rows, largest difference {value:.1e}")
    return int(not all(value <= golden.tolerance for value in largest.values()))


if __name__ == "__main__":
    sys.exit(main())
