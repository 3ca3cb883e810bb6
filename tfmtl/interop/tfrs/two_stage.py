"""Retrieval by TFRS and ranking by tfmtl in one: a user in, ranked items out."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.folding import without_training_inputs
from tfmtl.interop.tfrs.candidates import BruteForce, candidates_of
from tfmtl.interop.tfrs.items import columns_of, rows_of
from tfmtl.layers.checks import positive_int

Tensors = Mapping[str, tf.Tensor]
Query = str | Callable[[Tensors], Any]


class TwoStage:
    """An index that finds candidates and a ranker that scores and orders them.

    ```
    user's columns -> query tower -> `candidates` nearest items
    user's and items' columns -> ranker -> scores -> the best `k` by one of them
    ```

    Called on columns of users, `(batch, width)` each, it gives identifiers, `(batch,
    k)`, and every output of the ranker, `(batch, k)` or `(batch, k, width)`, in the
    order of the items. `export_two_stage` makes a version for TF Serving of it.

    A `Streaming` index is read once, into a `BruteForce` of the same numbers: a server
    would read the stream anew for each request. Items of equal scores keep the order
    of the index.

    Args:
        index: A `BruteForce` or `Streaming` layer of TFRS, with a query tower.
        ranker: A Functional Keras 3 model with dicts of inputs and outputs.
        items: The items' columns by name, arrays of one row for each item, in any
            order: the identifiers, and what the ranker reads of an item. All that the
            index has should be among them.
        ids: Name of the identifiers in `items` and in the answer.
        by: Name of the ranker's output to order by, of width 1: a task, or the score of
            `tfmtl.models.with_score`.
        query: Name of the column that the query tower reads, as `(batch,)`, or a
            function from all columns to what it reads.
        candidates: How many items the ranker scores; all, if there are fewer. Defaults
            to 100.
        k: How many are given back. Defaults to `None`, all that are scored.
        columns: Columns of the user that `query` reads and the ranker does not, as a
            `tf.TensorSpec` by name. Defaults to `None`.

    Raises:
        ValueError: If an argument does not fit, or an item is missing or twice there.

    Example:
        >>> import keras, numpy as np, tensorflow as tf, tfmtl
        >>> import tensorflow_recommenders as tfrs
        >>> from tfmtl.interop.tfrs import TwoStage
        >>> tower = tf.keras.Sequential([tf.keras.layers.Embedding(10, 4)])
        >>> index = tfrs.layers.factorized_top_k.BruteForce(tower)
        >>> index = index.index(tf.random.normal((5, 4)), tf.range(5) + 100)
        >>> inputs = {name: keras.Input((1,), name=name) for name in ("user", "price")}
        >>> x = keras.layers.Concatenate()([*inputs.values()])
        >>> ranker = keras.Model(inputs, {"click": keras.layers.Dense(1)(x)})
        >>> items = {"item": np.arange(100, 105), "price": np.ones(5)}
        >>> stages = TwoStage(
        ...     index, ranker, items, ids="item", by="click", query="user", k=3
        ... )
        >>> answer = stages({"user": np.array([[7.0], [8.0]])})
        >>> {name: tuple(values.shape) for name, values in answer.items()}
        {'item': (2, 3), 'click': (2, 3)}
    """

    def __init__(
        self,
        index: Any,
        ranker: keras.Model,
        items: Mapping[str, Any],
        *,
        ids: str,
        by: str,
        query: Query,
        candidates: int = 100,
        k: int | None = None,
        columns: Mapping[str, tf.TensorSpec] | None = None,
    ) -> None:
        _check_ranker(ranker, ids, by)
        embeddings, identifiers = candidates_of(index)
        self.ranker = without_training_inputs(ranker)
        self.num_items = len(identifiers)
        self.candidates = min(positive_int("candidates", candidates), self.num_items)
        self.k = self.candidates if k is None else positive_int("k", k)
        self.k = min(self.k, self.candidates)
        self.by, self.ids, self.query = by, ids, query
        self.index = BruteForce(index.query_model).index(embeddings)  # gives rows
        order = rows_of(items, ids, identifiers.numpy())
        self.identifiers = tf.Variable(identifiers, trainable=False)
        self.items = {
            name: tf.Variable(values[order], trainable=False)
            for name, values in columns_of(items, self.ranker.input).items()
        }
        self.columns = {
            name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name)
            for name, tensor in self.ranker.input.items()
            if name not in items
        }
        for name, spec in (columns or {}).items():
            self.columns.setdefault(name, tf.TensorSpec(spec.shape, spec.dtype, name))
        _check_query(query, self.columns)

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the items for each user and their scores, the best first."""
        return self.answer(self._tensors(columns), self._score)

    def answer(
        self, columns: Tensors, score: Callable[[Tensors], Tensors]
    ) -> dict[str, tf.Tensor]:
        """The same of tensors, with a function in the ranker's place."""
        _, rows = self.index(self._queries(columns), k=self.candidates)
        scores = self._scores(columns, rows, score)
        order = tf.math.top_k(scores[self.by], self.k).indices
        found = {self.ids: tf.gather(self.identifiers, rows), **scores}
        return {
            name: tf.ensure_shape(
                tf.gather(values, order, batch_dims=1),
                (None, self.k, *values.shape[2:]),
            )
            for name, values in found.items()
        }

    def margins(self, columns: Mapping[str, Any]) -> np.ndarray:
        """How far each user's answer is from another one, `(batch,)`.

        That is the least difference of scores next to each other, in the order and
        where the index or `k` cuts.
        """
        tensors = self._tensors(columns)
        one_more = min(self.candidates + 1, self.num_items)
        near, rows = self.index(self._queries(tensors), k=one_more)
        scores = self._scores(tensors, rows[:, : self.candidates], self._score)
        best = tf.sort(scores[self.by], direction="DESCENDING")[:, : self.k + 1]
        gaps = best[:, :-1] - best[:, 1:]
        if one_more > self.candidates:
            gaps = tf.concat([gaps, near[:, -2:-1] - near[:, -1:]], 1)
        return np.min(gaps.numpy(), axis=1, initial=np.inf)

    @property
    def parts(self) -> list[Any]:
        """Variables and lookup tables of the index, and the items' columns."""
        found = tf.train.TrackableView(self.index).descendants()
        return [*found, self.identifiers, *self.items.values()]

    def facts(self) -> dict[str, Any]:
        """The sizes, for people."""
        return {
            "by": self.by,
            "candidates": self.candidates,
            "items": self.num_items,
            "k": self.k,
        }

    def _queries(self, columns: Tensors) -> Any:
        if isinstance(self.query, str):
            return tf.reshape(columns[self.query], (-1,))
        return self.query(columns)

    def _scores(
        self, columns: Tensors, rows: tf.Tensor, score: Callable[[Tensors], Tensors]
    ) -> dict[str, tf.Tensor]:
        """The ranker's outputs for items by row, `(batch, candidates, …)`."""
        pairs = {
            name: tf.repeat(columns[name], self.candidates, axis=0)
            for name in self.ranker.input
            if name not in self.items
        }
        flat = tf.reshape(rows, (-1,))
        pairs |= {name: tf.gather(values, flat) for name, values in self.items.items()}
        return {
            name: _by_user(values, self.candidates)
            for name, values in score(pairs).items()
        }

    def _score(self, pairs: Tensors) -> dict[str, tf.Tensor]:
        outputs = self.ranker(pairs, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    def _tensors(self, columns: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        missing = sorted(set(self.columns) - set(columns))
        if missing:
            raise ValueError(
                f"`columns` should have the columns {sorted(self.columns)}. "
                f"Received: columns={sorted(columns)}"
            )
        return {
            name: tf.convert_to_tensor(columns[name], spec.dtype)
            for name, spec in self.columns.items()
        }


def _by_user(values: tf.Tensor, candidates: int) -> tf.Tensor:
    width = values.shape[1:]
    shape = () if tuple(width) == (1,) else tuple(width)
    return tf.reshape(values, (-1, candidates, *shape))


def _check_ranker(ranker: Any, ids: str, by: str) -> None:
    ends = [getattr(ranker, end, None) for end in ("input", "output")]
    if not all(isinstance(tensors, Mapping) for tensors in ends):
        raise ValueError(
            "`ranker` should be a Functional model of Keras 3 with dicts of inputs and "
            f"outputs. Received: ranker={ranker!r}"
        )
    wide = [name for name, y in ranker.output.items() if tuple(y.shape[1:]) != (1,)]
    if by not in ranker.output or by in wide:
        fit = sorted(set(ranker.output) - set(wide))
        raise ValueError(f"`by` should be one of {fit}. Received: by={by!r}")
    if ids in ranker.output:
        raise ValueError(
            f"`ids` should not be the name of an output. Received: ids={ids!r}"
        )


def _check_query(query: Query, columns: Mapping[str, tf.TensorSpec]) -> None:
    if callable(query):
        return
    widths = {name: tuple(spec.shape[1:]) for name, spec in columns.items()}
    fit = [name for name, width in widths.items() if width in ((), (1,))]
    if query not in fit:
        raise ValueError(
            f"`query` should be one of {sorted(fit)}, columns of users of width 1 (or "
            "others by `columns`), or a function of the columns. "
            f"Received: query={query!r}"
        )
