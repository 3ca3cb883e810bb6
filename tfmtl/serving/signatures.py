"""The signatures of an exported model: what a client may ask for.

All call one function, which alone holds the weights. A session runs the part of it that
leads to what is asked, so a task's own signature costs that task's sub-graph.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfmtl.data.files.schema import MISSING
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

DEFAULT = "serving_default"
EXAMPLES = "serving_examples"
PREDICT, CLASSIFY, REGRESS = (
    f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress")
)
_CLASSIFIED = (Binary, MultiClass)
_REGRESSED = (Regression, LogNormal, WeightedLogistic, Count, Ranking)

Tensors = Mapping[str, tf.Tensor]
Function = Callable[[Tensors], Tensors]


class Signature(NamedTuple):
    """One thing to ask for.

    Attributes:
        function: From tensors by name to tensors by name.
        method: The method of TF Serving's API that it answers.
    """

    function: Function
    method: str = PREDICT


def signatures(model: keras.Model, function: Function) -> dict[str, Signature]:
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
        function: The model's concrete function, from inputs to outputs by name.

    Returns:
        The signatures by name.

    Raises:
        ValueError: If an output has the name of another signature.

    Example:
        `sorted(signatures(model, function))  # ['click', 'serving_default', …]`
    """
    columns = {
        name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
        for name, tensor in model.input.items()
    }
    parse = _parse(model)

    def of_examples(name: str, answer: Function, method: str = PREDICT) -> Signature:
        specs = {name: tf.TensorSpec((None,), tf.string, name=name)}
        made = _concrete(lambda inputs: answer(function(parse(inputs[name]))), specs)
        return Signature(made, method)

    found = {DEFAULT: Signature(function), EXAMPLES: of_examples("examples", dict)}
    for task in getattr(model, "tasks", ()):
        if isinstance(task, _CLASSIFIED):
            answer, name = _classified(task), f"classify_{task.name}"
            found[name] = of_examples("inputs", answer, CLASSIFY)
        elif isinstance(task, _REGRESSED):
            answer, name = _regressed(task), f"regress_{task.name}"
            found[name] = of_examples("inputs", answer, REGRESS)
    taken = sorted(set(found) & set(model.output))
    if taken:
        raise ValueError(
            f"The names of `model.output` should be none of {sorted(found)}, which are "
            f"signatures. Received: {taken}"
        )
    for name in model.output:
        found[name] = Signature(_concrete(_only(name, function), columns))
    return found


def set_methods(folder: Path, methods: Mapping[str, str]) -> None:
    """Writes into a SavedModel which method of the API each signature answers.

    Args:
        folder: The SavedModel, not yet published.
        methods: The method by the signature's name.

    Example:
        `set_methods(folder, {"classify_click": "tensorflow/serving/classify"})`
    """
    file = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for meta_graph in proto.meta_graphs:
        for name, method in methods.items():
            meta_graph.signature_def[name].method_name = method
    file.write_bytes(proto.SerializeToString(deterministic=True))


def _only(name: str, function: Function) -> Function:
    return lambda inputs: {name: function(inputs)[name]}


def _classified(task: Task) -> Function:
    def answer(outputs: Tensors) -> Tensors:
        scores = outputs[task.name]
        if isinstance(task, Binary):
            scores = tf.concat([1.0 - scores, scores], axis=1)
        names = [str(k) for k in range(int(scores.shape[1]))]
        classes = tf.tile(tf.constant([names]), [tf.shape(scores)[0], 1])
        return {"scores": scores, "classes": classes}

    return answer


def _regressed(task: Task) -> Function:
    return lambda outputs: {"outputs": outputs[task.name]}


def _parse(model: keras.Model) -> Callable[[tf.Tensor], Tensors]:
    """One function from examples to columns, which all signatures of them call."""
    features = {
        name: tf.io.RaggedFeature(_stored(tensor), row_splits_dtype=tf.int64)
        for name, tensor in model.input.items()
    }

    def parse(examples: tf.Tensor) -> Tensors:
        parsed = tf.io.parse_example(examples, features)
        return {
            name: _column(parsed[name], tensor) for name, tensor in model.input.items()
        }

    spec = tf.TensorSpec((None,), tf.string, name="examples")
    return tf.function(parse, autograph=False).get_concrete_function(spec)


def _concrete(function: Function, specs: Mapping[str, tf.TensorSpec]) -> Function:
    compiled = tf.function(function, autograph=False, jit_compile=False)
    return compiled.get_concrete_function(dict(specs))


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
