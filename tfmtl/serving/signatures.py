"""The signatures of an exported model: what a client may ask for.

All read from two calls of one function, which alone holds the weights: of columns, and
of examples. A session runs the part of it that leads to what is asked, so a task's own
signature costs that task's sub-graph.
"""

import math

import keras
import tensorflow as tf

from tfmtl.data.files.schema import MISSING
from tfmtl.serving.one_graph import Function, Signature, Tensors
from tfmtl.serving.saved_model import DEFAULT
from tfmtl.tasks import (
    Binary,
    Count,
    LogNormal,
    MultiClass,
    Ranking,
    Regression,
    Task,
    WeightedLogistic,
)

EXAMPLES = "serving_examples"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
_CLASSIFIED = (Binary, MultiClass)
_REGRESSED = (Regression, LogNormal, WeightedLogistic, Count, Ranking)


def signatures(
    model: keras.Model, default: Signature, serve: Function
) -> dict[str, Signature]:
    """Makes the signatures of a model.

    | name | input | output |
    |---|---|---|
    | `serving_default` | raw columns | all outputs |
    | each output's name | raw columns | this output |
    | `serving_examples` | `examples`, serialised `tf.train.Example`s | all outputs |
    | `classify_<task>` | `inputs`, the same | `scores`, `classes`, `(batch, classes)` |
    | `regress_<task>` | `inputs`, the same | `outputs`, `(batch, 1)` |

    The last two are those of the tasks of a `MultiTaskModel` that are yes/no or of
    several classes, or a number. In an example a column that is left out is missing:
    NaN, -1 or `""` (0 where a type has no such value); a list longer than the column is
    cut. A column of free length is as long as the longest list of the batch, filled up
    with what is missing: its layers should leave that out, as those of
    `tfmtl.features.Sequence` do.

    Args:
        model: A Functional model with dict inputs and outputs.
        default: Columns and outputs of a call, in the graph that is the default one.
        serve: Calls the model with other tensors, from inputs to outputs by name.

    Returns:
        The signatures by name.

    Raises:
        ValueError: If an output has the name of another signature.

    Example:
        `with_signatures(folder, functools.partial(signatures, model))`
    """
    examples = tf.compat.v1.placeholder(tf.string, (None,), "examples")
    of_examples = serve(_columns(model, examples))
    found = {DEFAULT: default, EXAMPLES: Signature({"examples": examples}, of_examples)}
    for task in getattr(model, "tasks", ()):
        score = of_examples[task.name]
        if isinstance(task, _CLASSIFIED):
            answer = Signature({"inputs": examples}, _classified(task, score), CLASSIFY)
            found[f"classify_{task.name}"] = answer
        elif isinstance(task, _REGRESSED):
            answer = Signature({"inputs": examples}, {"outputs": score}, REGRESS)
            found[f"regress_{task.name}"] = answer
    taken = sorted(set(found) & set(model.output))
    if taken:
        raise ValueError(
            f"The names of `model.output` should be none of {sorted(found)}, which are "
            f"signatures. Received: {taken}"
        )
    for name, output in default.outputs.items():
        found[name] = Signature(default.inputs, {name: output})
    return found


def _classified(task: Task, score: tf.Tensor) -> Tensors:
    if isinstance(task, Binary):
        score = tf.concat([1.0 - score, score], axis=1)
    names = [str(k) for k in range(int(score.shape[1]))]
    classes = tf.tile(tf.constant([names]), [tf.shape(score)[0], 1])
    return {"scores": score, "classes": classes}


def _columns(model: keras.Model, examples: tf.Tensor) -> Tensors:
    features = {
        name: tf.io.RaggedFeature(_stored(tensor), row_splits_dtype=tf.int64)
        for name, tensor in model.input.items()
    }
    parsed = tf.io.parse_example(examples, features)
    return {name: _column(parsed[name], tensor) for name, tensor in model.input.items()}


def _stored(tensor: keras.KerasTensor) -> tf.DType:
    """The type of an example's list that holds a column's values."""
    dtype = tf.as_dtype(tensor.dtype)
    if dtype.is_floating:
        return tf.float32
    return tf.string if dtype == tf.string else tf.int64


def _column(values: tf.RaggedTensor, tensor: keras.KerasTensor) -> tf.Tensor:
    """Values of each row as a column, filled up with what is missing."""
    shape = tuple(tensor.shape[1:])
    known = math.prod(size for size in shape if size is not None)
    width = None if None in shape else known
    missing = MISSING[values.dtype.name]
    if tensor.dtype == "bool" or tensor.dtype.startswith("uint"):
        missing = 0
    dense = values.to_tensor(missing, shape=(None, width))
    if width is None and known > 1:  # up to whole rows of the known sizes
        lacking = tf.math.floormod(-tf.shape(dense)[1], known)
        dense = tf.pad(dense, [[0, 0], [0, lacking]], constant_values=missing)
    if len(shape) != 1:
        sizes = [-1 if size is None else size for size in shape]
        dense = tf.reshape(dense, [tf.shape(dense)[0], *sizes])
    return dense if values.dtype == tf.string else tf.cast(dense, tensor.dtype)
