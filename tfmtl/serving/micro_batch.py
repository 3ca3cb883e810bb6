"""Requests of many rows, computed some rows at a time."""

from collections.abc import Mapping

import tensorflow as tf

Tensors = Mapping[str, tf.Tensor]


def in_micro_batches(
    function: tf.types.experimental.ConcreteFunction, rows: int
) -> tf.types.experimental.ConcreteFunction:
    """Makes the same function, which computes some rows after another.

    What a network keeps of some hundred rows fits into the cache of one processor
    core; what it keeps of thousands goes through memory.

    Args:
        function: From columns by name to tensors by name, each with one row per
            example, which depends on its own example only.
        rows: The most that are computed at a time. A request of fewer is computed
            as it is.

    Returns:
        The function, with the same inputs and outputs.

    Example:
        `in_micro_batches(function, 512)`
    """
    (columns,), _ = function.structured_input_signature
    outputs = function.structured_outputs

    def in_parts(columns: Tensors) -> dict[str, tf.Tensor]:
        count = tf.shape(next(iter(columns.values())))[0]
        parts = tf.maximum(-(-count // rows), 1)  # an empty request is one part

        def compute(part: tf.Tensor, *done: tf.TensorArray) -> tuple:
            here = slice(part * rows, (part + 1) * rows)
            found = function({name: x[here] for name, x in columns.items()})
            written = (
                array.write(part, found[name])
                for name, array in zip(outputs, done, strict=True)
            )
            return part + 1, *written

        arrays = (
            tf.TensorArray(y.dtype, parts, element_shape=y.shape, infer_shape=False)
            for y in outputs.values()
        )
        _, *done = tf.while_loop(
            lambda part, *_: part < parts, compute, (0, *arrays), parallel_iterations=1
        )
        return {
            name: tf.ensure_shape(array.concat(), y.shape)
            for (name, y), array in zip(outputs.items(), done, strict=True)
        }

    return tf.function(in_parts, autograph=False).get_concrete_function(columns)
