"""Warm-up records, which a model server answers before a version gets requests.

A version that cannot answer them never becomes available, and the one before goes on
serving. So every version has some.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from tensorflow.core.framework import tensor_pb2

from tfmtl.serving.rows import repeat
from tfmtl.serving.saved_model import PathLike

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS = 1000


def write_warm_up(
    folder: Path,
    rows: Mapping[str, np.ndarray],
    batch_sizes: Sequence[int],
    signature: str = "serving_default",
) -> None:
    """Writes one request for each batch size.

    The file holds `PredictionLog`s, as TF Serving reads them.

    Args:
        folder: The SavedModel, not yet published.
        rows: One array per input, of the signature's types.
        batch_sizes: The batch sizes, at most `MOST_RECORDS`.
        signature: The signature's name.

    Example:
        `write_warm_up(folder, {"age": ages}, [1, 64])`
    """
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for size in batch_sizes:
            writer.write(_prediction_log(repeat(rows, size), signature))


def read_warm_up(folder: PathLike) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Reads the requests that a model server would answer.

    Args:
        folder: The version.

    Returns:
        For each record the signature's name and one array per input; none where there
        is no file.

    Raises:
        ValueError: If a record is something else than such a request.
        DecodeError: If it is no protocol buffer.

    Example:
        `[(signature, rows)] = read_warm_up("models/ranker/1")`
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return []
    return [_request(r) for r in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()]


def _request(record: bytes) -> tuple[str, dict[str, np.ndarray]]:
    try:
        [log] = _contents(record, 6)
        [request] = _contents(log, 1)
        [spec] = _contents(request, 1)
        [signature] = _contents(spec, 3)
        rows = {}
        for entry in _contents(request, 2):
            [[name], [content]] = (_contents(entry, number) for number in (1, 2))
            proto = tensor_pb2.TensorProto.FromString(content)
            rows[name.decode()] = tf.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{FILE} should hold requests of a signature. Received: {record[:40]!r} …"
        ) from error
    return signature.decode(), rows


def _contents(message: bytes, number: int) -> list[bytes]:
    """What a message has in the fields of a number."""
    fields = UnknownFieldSet(Empty.FromString(message))
    return [field.data for field in fields if field.field_number == number]


def _prediction_log(rows: Mapping[str, np.ndarray], signature: str) -> bytes:
    """`PredictionLog{predict_log{request{model_spec, inputs}}}` on the wire."""
    spec = _field(3, signature.encode())  # signature_name
    inputs = [
        _field(1, name.encode()) + _field(2, _tensor(array))
        for name, array in rows.items()
    ]
    request = _field(1, spec) + b"".join(_field(2, entry) for entry in inputs)
    return _field(6, _field(1, request))


def _tensor(array: np.ndarray) -> bytes:
    dtype = tf.string if array.dtype == object else None
    return tf.make_tensor_proto(array, dtype).SerializeToString(deterministic=True)


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that has a length."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content
