"""Scores rows with TF Serving by REST, with the standard library alone.

    echo '{"age": [[31.0]], "country": [["at"]]}' | python export/rest_client.py

reads columns as JSON and prints the outputs as JSON. TF Serving's JSON is strict, and
the client knows how: 1.0 is no integer, so the columns of integers are written without
a point; bytes that are no text are `{"b64": …}`.
"""

import argparse
import base64
import http.client
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batches import MAX_ROWS, Deadline, parts

Columns = Mapping[str, Any]
DEFAULT = "serving_default"
INTEGERS = {"DT_INT8", "DT_INT16", "DT_INT32", "DT_INT64", "DT_UINT8"}
FLOATS = {"DT_FLOAT", "DT_DOUBLE"}
CHANGED = "The outputs have changed between two requests."


class RestError(RuntimeError):
    """A server's answer that is an error, or not the API's.

    Attributes:
        status: The HTTP status, such as 400.
        passes: Whether another attempt may succeed.
    """

    def __init__(self, status: int, message: str, passes: bool = False) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.passes = passes


class RestClient:
    """A connection to one model; each thread needs its own.

    Columns are lists or arrays, one row per example. Requests of more than `max_rows`
    rows are cut, the answers joined. A request that fails for want of a connection or
    of room (503), or whose answer is not JSON or breaks off, is sent again after a
    pause.

    Args:
        address: The host and port of the server. The connection is not encrypted.
        model: The model's name.
        max_rows: The most rows of one request; at most the server's `max_batch_size`.
        timeout: The seconds after which a call fails, all its requests together; while
            an answer arrives it may pass.
        attempts: How often a request is sent at most.
        pause: The seconds before the second attempt, doubled before each further one.

    Example:
        `RestClient().predict({"age": [[31.0]]})["click"]`
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8501",
        model: str = "ranker",
        *,
        max_rows: int = MAX_ROWS,
        timeout: float = 2.0,
        attempts: int = 3,
        pause: float = 0.05,
    ) -> None:
        if attempts < 1:
            raise ValueError(
                "`attempts` should be a positive integer. Received: "
                f"attempts={attempts}"
            )
        self.max_rows = max_rows
        self.timeout = timeout
        self.attempts = attempts
        self.pause = pause
        self._path = f"/v1/models/{model}"
        self._connection = http.client.HTTPConnection(address)
        self._known: dict[str, Any] = {}

    def __enter__(self) -> "RestClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def predict(
        self, columns: Columns, signature: str = DEFAULT
    ) -> dict[str, list[Any]]:
        """Asks for the outputs of a signature.

        Args:
            columns: One list or array per input, `(rows, width)`; the one input of
                `serving_examples` is `(rows,)`, of bytes.
            signature: The signature's name: `serving_default`, an output's name,
                `serving_examples`.

        Returns:
            One list per output, `(rows, width)`; without rows, empty ones.

        Raises:
            ValueError: If the columns have different numbers of rows, a column of
                integers has a fraction, or the signature has no such column.
            RestError: If the server refuses.
            OSError: If there is no connection, or the time is up.
        """
        deadline = Deadline(self.timeout)
        inputs = self._inputs(columns, signature, deadline)
        names = self._signature(signature, deadline)["outputs"]
        answers = []
        for part in self._parts(columns, inputs):
            content = {"signature_name": signature, "inputs": part}
            outputs = self._post(":predict", content, deadline)["outputs"]
            answers.append(self._named(outputs, signature, deadline))
            names = answers[0]
            if set(answers[-1]) != set(names):
                raise RestError(200, CHANGED)
        return {
            name: [row for answer in answers for row in answer[name]]
            for name in sorted(names)
        }

    def classify(self, columns: Columns, signature: str) -> list[dict[str, float]]:
        """Asks for the scores of the classes, for example of `classify_click`.

        Args:
            columns: As of `predict`; columns may be left out.
            signature: The signature's name.

        Returns:
            The score by class, for each row.

        Raises:
            ValueError: As of `predict`.
            RestError: If the server refuses.
            OSError: If there is no connection, or the time is up.
        """
        return [dict(row) for row in self._of_examples(":classify", columns, signature)]

    def regress(self, columns: Columns, signature: str) -> list[float]:
        """Asks for a number, for example of `regress_watch_time`.

        Args:
            columns: As of `classify`.
            signature: The signature's name.

        Returns:
            The number of each row.

        Raises:
            ValueError: As of `predict`.
            RestError: If the server refuses.
            OSError: If there is no connection, or the time is up.
        """
        return self._of_examples(":regress", columns, signature)

    def status(self) -> dict[int, str]:
        """Asks for the state of each version, `"AVAILABLE"` or another.

        Raises:
            RestError: If the server does not know the model.
            OSError: If there is no connection, or the time is up.
        """
        answer = self._send("GET", "", None, Deadline(self.timeout))
        return {
            int(found["version"]): found["state"]
            for found in answer["model_version_status"]
        }

    def _of_examples(self, verb: str, columns: Columns, signature: str) -> list[Any]:
        deadline = Deadline(self.timeout)
        inputs = self._signature(DEFAULT, deadline)["inputs"]
        found: list[Any] = []
        for part in self._parts(columns, inputs):
            rows = zip(*part.values(), strict=True)
            examples = [dict(zip(part, row, strict=True)) for row in rows]
            content = {"signature_name": signature, "examples": examples}
            found += self._post(verb, content, deadline)["results"]
        return found

    def _parts(
        self, columns: Columns, inputs: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        for part in parts(columns, self.max_rows):
            encoded = {
                name: encode(name, column, inputs.get(name, {}).get("dtype", ""))
                for name, column in part.items()
            }
            if all(encoded.values()):
                yield encoded

    def _signature(self, name: str, deadline: Deadline) -> dict[str, Any]:
        if not self._known:
            answer = self._send("GET", "/metadata", None, deadline)
            self._known = answer["metadata"]["signature_def"]["signature_def"]
        if name not in self._known:
            known = sorted(self._known)
            self._known = {}
            raise ValueError(
                f"`signature` should be one of {known}. Received: signature={name!r}"
            )
        return self._known[name]

    def _inputs(
        self, columns: Columns, signature: str, deadline: Deadline
    ) -> dict[str, Any]:
        """The signature's inputs; the server ignores a column that is none of them."""
        inputs = self._signature(signature, deadline)["inputs"]
        if not set(columns) <= set(inputs):
            self._known = {}  # a new version may have it
            inputs = self._signature(signature, deadline)["inputs"]
        if not set(columns) <= set(inputs):
            raise ValueError(
                f"`columns` should be of {sorted(inputs)}. Received: {sorted(columns)}"
            )
        return inputs

    def _named(
        self, outputs: Any, signature: str, deadline: Deadline
    ) -> dict[str, list[Any]]:
        """The outputs by name; the server leaves out the name of an only one."""
        names = self._signature(signature, deadline)["outputs"]
        found = set(outputs) if isinstance(outputs, dict) else None
        if found != (set(names) if len(names) > 1 else None):
            self._known = {}  # a new version has other outputs
            names = self._signature(signature, deadline)["outputs"]
        if found:
            return outputs
        if len(names) > 1:
            raise RestError(200, CHANGED)
        return {next(iter(names)): outputs}

    def _post(self, verb: str, content: Any, deadline: Deadline) -> Any:
        try:
            return self._send("POST", verb, json.dumps(content).encode(), deadline)
        except RestError:
            self._known = {}  # a new version may have other columns
            raise

    def _send(
        self, method: str, path: str, body: bytes | None, deadline: Deadline
    ) -> Any:
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(method, self._path + path, body, deadline)
            except (ConnectionError, RestError) as error:
                if attempt == self.attempts or not getattr(error, "passes", True):
                    raise
            time.sleep(min(self.pause * 2 ** (attempt - 1), deadline.left()))
        raise AssertionError("unreachable")

    def _once(
        self, method: str, path: str, body: bytes | None, deadline: Deadline
    ) -> Any:
        connection = self._connection
        connection.timeout = deadline.left()
        if connection.sock:
            connection.sock.settimeout(connection.timeout)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
        except OSError:
            connection.close()
            raise
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"There is no whole answer: {error!r}") from error
        return _read(response, content)


def _read(response: http.client.HTTPResponse, content: bytes) -> dict[str, Any]:
    """The JSON object of an answer that is no error."""
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):  # of what stands before the server, or cut
        raise RestError(response.status, response.reason, passes=True)
    if response.status != http.client.OK:
        message = answer.get("error", response.reason)
        raise RestError(response.status, message, passes=response.status == 503)
    return answer


def encode(name: str, value: Any, dtype: str) -> Any:
    """Makes JSON values of a column, as TF Serving wants them.

    Args:
        name: The column's name.
        value: A value, an array, or nested lists of these.
        dtype: The type of the signature's input, such as `"DT_INT64"`.

    Returns:
        The value, or nested lists of values.

    Raises:
        ValueError: If an integer is wanted and the value has a fraction.

    Example:
        `encode("item", [7.0, 8.0], "DT_INT64")  # [7, 8]`
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [encode(name, each, dtype) for each in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if dtype in INTEGERS and isinstance(value, float):
        if not value.is_integer():
            raise ValueError(
                f"Column {name!r} should have whole numbers. Received: {value}"
            )
        return int(value)
    if dtype in FLOATS and isinstance(value, int):
        return float(value)
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores the columns of the standard input.

    Args:
        arguments: Words of the command line. Defaults to the process's own.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:8501")
    parser.add_argument("--model", default="ranker")
    parser.add_argument("--signature", default=DEFAULT)
    options = parser.parse_args(arguments)
    columns = json.load(sys.stdin)
    if not isinstance(columns, dict):
        parser.error(
            "The standard input should be a JSON object of columns. Received: "
            f"{type(columns).__name__}"
        )
    with RestClient(options.address, options.model) as client:
        outputs = client.predict(columns, options.signature)
    print(json.dumps(outputs))


if __name__ == "__main__":
    main()
