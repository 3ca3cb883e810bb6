"""Warm-up records, which a model server answers before a version gets requests.

A version that cannot answer them never becomes available, and the one before goes on
serving. So every version has some.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmtl.serving.rows import repeat

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
