"""Gradients of each task on what the tasks share, and their products."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from tfmtl.balancing.partition import Partition

Tensor = Any


class TaskGradients:
    """Gradients of each task's loss on what the tasks share.

    ```
    backwards once through the towers      dL_t / dF, F what the towers read
    backwards T times from there           J_t = dL_t / dF · dF / dθ
    ```

    The T passes stand in the graph side by side; on a CPU that is faster than one
    vectorised pass, which has to transpose and tile. Tables keep their sparse
    gradients.

    Args:
        model: A Functional model.
        parts: What its tasks share.
    """

    def __init__(self, model: keras.Model, parts: Partition) -> None:
        self.parts, cut = parts, parts.cut
        outputs = {"outputs": cut.outputs, "frontier": cut.frontier}
        self._run = keras.Model(cut.inputs, outputs)
        self._run.model = model  # tracks the layers, for their losses

    def forward(
        self, x: Any, training: bool = True
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Outputs and frontier."""
        found = self._run(x, training=training)
        return found["outputs"], found["frontier"]

    @property
    def penalty(self) -> Tensor:
        """Sum of the losses that layers added in `forward`, a share of each replica."""
        penalties = [tf.cast(loss, tf.float32) for loss in self._run.losses]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return tf.add_n([tf.zeros(()), *penalties]) / replicas

    def of_towers(
        self, tape: tf.GradientTape, losses: list[Tensor], frontier: list[Tensor]
    ) -> tuple[list[Tensor], list[list[Any]]]:
        """`dL_t / dF`, `(T, …)` for each tensor F of the frontier, and those of `own`.

        Args:
            tape: A persistent tape that saw `forward`.
            losses: A scalar for each task, seen by the tape.
            frontier: What `forward` gave.

        Returns:
            The first, and by task a list of what `own` lists, `None` where a variable
            has no gradient.
        """
        cotangents, own, size = [], [], len(frontier)
        for loss, variables in zip(losses, self.parts.own.values(), strict=True):
            values = [_value(variable) for variable in variables]
            found = tape.gradient(loss, [*frontier, *values])
            pairs = zip(frontier, found[:size], strict=True)
            cotangents.append([tf.zeros_like(f) if g is None else g for f, g in pairs])
            own.append(found[size:])
        return [tf.stack(found) for found in zip(*cotangents, strict=True)], own

    def of_shared(
        self, tape: tf.GradientTape, frontier: list[Tensor], cotangents: list[Tensor]
    ) -> dict[int, Any]:
        """The gradient of each shared variable that has one, by id, from dL / dF."""
        values = [_value(variable) for variable in self.parts.shared]
        found = tape.gradient(frontier, values, output_gradients=cotangents)
        pairs = zip(self.parts.shared, found, strict=True)
        return {id(variable): g for variable, g in pairs if g is not None}

    def by_task(
        self, tape: tf.GradientTape, frontier: list[Tensor], cotangents: list[Tensor]
    ) -> dict[int, tuple[Any, ...]]:
        """`of_shared` for each task, from `of_towers`; all dense or all sparse."""
        per_task = [
            self.of_shared(tape, frontier, [found[t] for found in cotangents])
            for t in range(len(self.parts.tasks))
        ]
        return {key: tuple(found[key] for found in per_task) for key in per_task[0]}


def gram_of(gradients: Iterable[tuple[Any, ...]]) -> Tensor:
    """Products of the tasks' gradients over all variables, `(T, T)`, in float64.

    Products of float32 numbers are exact there, and no GPU rounds them to TF32. Under
    `tf.distribute` gradients are first summed over the replicas, so that the products
    are those of the global batch.

    Args:
        gradients: T dense or T sparse gradients for each variable.
    """
    rows = [tf.cast(_rows_by_task(found), tf.float64) for found in gradients]
    return tf.add_n([_products(found) for found in rows])


def gram_of_examples(gradients: Iterable[Tensor]) -> Tensor:
    """As `gram_of` for gradients `(T, batch, …)` of activations, in their own type.

    They are many where the step is cheap, and float64 would take a tenth of it. Each
    replica has examples of its own, so that products are summed.
    """
    products = [tf.cast(_products(found), tf.float64) for found in gradients]
    return of_all_replicas(tf.add_n(products))


def _products(rows: Tensor) -> Tensor:
    rows = tf.reshape(rows, (rows.shape[0], -1))
    return tf.matmul(rows, rows, transpose_b=True)


def _rows_by_task(found: tuple[Any, ...]) -> Tensor:
    """`(T, …)`; of sparse gradients the rows that the batch reads, each row once."""
    if not isinstance(found[0], tf.IndexedSlices):
        return of_all_replicas(tf.stack(found))
    indices = _gathered(found[0].indices)
    values = [_gathered(g.values) for g in found]
    order = tf.argsort(indices, stable=True)
    indices = tf.gather(indices, order)
    new = tf.concat([[0], tf.cast(indices[1:] != indices[:-1], tf.int32)], 0)
    row, count = tf.cumsum(new), tf.shape(indices)[0]
    sorted_values = [tf.gather(v, order) for v in values]
    return tf.stack(
        [tf.math.unsorted_segment_sum(v, row, count) for v in sorted_values]
    )


def combined(weights: Tensor, found: tuple[Any, ...]) -> Any:
    """The weighted sum of gradients of one variable; sparse stays sparse."""
    parts = [g.values if isinstance(g, tf.IndexedSlices) else g for g in found]
    weighted = zip(tf.unstack(weights), parts, strict=True)
    total = tf.add_n([tf.cast(w, g.dtype) * g for w, g in weighted])
    if isinstance(found[0], tf.IndexedSlices):
        return tf.IndexedSlices(total, found[0].indices, found[0].dense_shape)
    return total


def of_all_replicas(values: Tensor) -> Tensor:
    """The sum over the replicas of `tf.distribute`, in each of them."""
    context = _replicas()
    if context is None:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def _value(variable: Any) -> Any:
    return getattr(variable, "value", variable)


def _replicas() -> Any:
    context = tf.distribute.get_replica_context()
    return context if context and context.num_replicas_in_sync > 1 else None


def _gathered(values: Tensor) -> Tensor:
    context = _replicas()
    return values if context is None else context.all_gather(values, axis=0)
