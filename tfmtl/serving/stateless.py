"""A Keras model as a function of raw tensors, without the Keras model.

A SavedModel that tracks a Keras 3 model fails in a C++ session, and `Model.export`
stores every weight twice. Here large tables stay the raw `tf.Variable`s, smaller
weights become constants, and each is stored once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.layers.gates import gates

CONSTANT_LIMIT = 1 << 20  # bytes from which a weight stays a variable


class Served(tf.Module):
    """All that a SavedModel tracks: large tables and lookup tables.

    Args:
        tables: The large weights.
        lookups: The lookup tables, whose initialisers run at loading.
    """

    def __init__(
        self,
        tables: Sequence[tf.Variable],
        lookups: Sequence[tf.saved_model.experimental.TrackableResource],
    ) -> None:
        super().__init__()
        self.tables = list(tables)
        self.lookups = list(lookups)


def read_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Reads all variables of a model.

    Args:
        model: The model.

    Returns:
        The arrays by position and path.

    Raises:
        ValueError: If a number is NaN or infinite.

    Example:
        `sum(array.nbytes for array in read_weights(model).values())`
    """
    arrays = {}
    for index, variable in enumerate(model.variables):
        array = variable.numpy()
        floating = keras.backend.is_float_dtype(variable.dtype)
        if floating and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise ValueError(
                "`model` should have finite weights. Received: "
                f"{count} NaN or infinite numbers in {variable.path!r}"
            )
        arrays[f"{index}:{variable.path}"] = array
    return arrays


def serving_function(
    model: keras.Model,
) -> tuple[tf.types.experimental.Callable, Served]:
    """Makes the function that all signatures call, and the module to save with it.

    Args:
        model: A Functional model with dict inputs and outputs.

    Returns:
        The concrete function, from inputs by name to float32 tensors by task, and
        the module.

    Example:
        `function, module = serving_function(model)`
    """
    trainable = [_keep(variable) for variable in model.trainable_variables]
    fixed = [_keep(variable) for variable in model.non_trainable_variables]
    shapes = {task: tensor.shape for task, tensor in model.output.items()}
    unread = {id(gate.l0) for gate in gates(model)}  # by training alone

    def state_of_fixed() -> list[tf.Tensor]:
        pairs = zip(model.non_trainable_variables, fixed, strict=True)
        return [
            tf.fill(variable.shape, 0.0) if id(variable) in unread else _tensor(weight)
            for variable, weight in pairs
        ]

    def serve(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs, _ = model.stateless_call(
            [_tensor(weight) for weight in trainable],
            state_of_fixed(),
            inputs,
            training=False,
        )
        return {task: _finish(outputs[task], shapes[task]) for task in shapes}

    specs = {
        name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
        for name, tensor in model.input.items()
    }
    compiled = tf.function(serve, autograph=False, jit_compile=False)
    function = compiled.get_concrete_function(specs)
    tables = [w for w in trainable + fixed if isinstance(w, tf.Variable)]
    return function, Served(tables, _lookups(model, function))


def _lookups(
    model: keras.Model, function: tf.types.experimental.Callable
) -> list[tf.saved_model.experimental.TrackableResource]:
    # A layer also holds tables for `adapt` alone; only what the function reads counts.
    handles = {id(tensor) for tensor in function.captured_inputs}
    kind = tf.saved_model.experimental.TrackableResource
    found = walk(model, lambda value: isinstance(value, kind))
    return [table for table in found if id(table.resource_handle) in handles]


def _keep(variable: keras.Variable) -> tf.Variable | np.ndarray:
    value = variable.value
    size = value.dtype.size * value.shape.num_elements()
    return value if size >= CONSTANT_LIMIT else variable.numpy()


def _tensor(weight: tf.Variable | np.ndarray) -> tf.Tensor:
    return tf.convert_to_tensor(weight)


def _finish(output: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    output.set_shape((None, *shape[1:]))
    return as_served(output)


def as_served(output: tf.Tensor) -> tf.Tensor:
    """An output in the type that clients get: float32, but for identifiers.

    Args:
        output: The output, in the model's type.

    Returns:
        int64 of whole numbers, the same of texts, else float32.

    Example:
        `as_served(tf.constant([3], tf.int32)).dtype  # int64`
    """
    dtype = output.dtype.name
    if dtype == "string":
        return output
    return tf.cast(output, "int64" if keras.backend.is_int_dtype(dtype) else "float32")


def walk(root: keras.Layer, wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """Finds what layers hold, at any depth.

    Args:
        root: A layer or model.
        wanted: Whether a value is wanted.

    Yields:
        The values, each once.

    Example:
        `list(walk(model, lambda value: isinstance(value, keras.layers.Dense)))`
    """
    seen: set[int] = set()
    pending: list[Any] = [root]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if wanted(value):
            yield value
        if isinstance(value, keras.Layer):
            pending.extend(vars(value).values())
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple | set):
            pending.extend(value)
