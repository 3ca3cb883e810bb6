"""New statistics of numeric columns in a trained model, and scores that stay."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from tfmtl.features.batches import checked_batches
from tfmtl.features.specs import Numeric
from tfmtl.finetuning.affine import Map, layers_behind
from tfmtl.finetuning.trained import with_operations
from tfmtl.folding.graph import Graph, Ref, record
from tfmtl.layers import Standardize


class ColumnDrift(NamedTuple):
    """Old and new statistics of one value of a numeric column, of g(clip(x)).

    Attributes:
        column: Name of the column.
        value: Number of the value in the column.
        mean: The mean that the model has.
        std: Its standard deviation.
        new_mean: The mean of the data.
        new_std: Its standard deviation.
    """

    column: str
    value: int
    mean: float
    std: float
    new_mean: float
    new_std: float


@dataclass(frozen=True)
class Drift:
    """How far numeric columns have moved.

    Attributes:
        columns: Old and new statistics, of every value of every column.
    """

    columns: list[ColumnDrift]

    def __str__(self) -> str:
        names = ("mean", "std", "new mean", "new std", "moved by")
        lines = [f"{'column':<20} " + " ".join(f"{name:>11}" for name in names)]
        for column, value, mean, std, *new in self.columns:
            cells = [f"{number:.4g}" for number in (mean, std, *new)]
            cells.append(f"{(new[0] - mean) / std:+.2f} std")
            name = f"{column}[{value}]"
            lines.append(f"{name:<20} " + " ".join(f"{cell:>11}" for cell in cells))
        return "\n".join(lines)


class _Learned(NamedTuple):
    """New statistics of a value, and where in which layer it is."""

    layer: Standardize
    position: int
    found: ColumnDrift


def drift(
    model: keras.Model,
    data: Mapping[str, Any] | Iterable[Any],
    columns: Sequence[str] | None = None,
) -> Drift:
    """The statistics of a model's numeric columns beside those of data.

    Args:
        model: A built Functional model with a dict of inputs.
        data: Columns by name, each `(rows, ...)`, or batches of them, each a dict or a
            tuple that starts with one, such as a finite `tf.data.Dataset`.
        columns: Names of numeric columns. Defaults to all.

    Returns:
        Old and new mean and standard deviation by column. Print it.

    Raises:
        ValueError: If a column is not numeric or not in the data, or has no finite
            value there.

    Example:
        >>> import numpy as np, tfmtl
        >>> age = tfmtl.features.Numeric("age", mean=(40,), std=(10,))
        >>> model = tfmtl.models.shared_bottom([age], [tfmtl.tasks.Binary("click")])
        >>> data = {"age": np.array([[25.0], [65.0]])}
        >>> print(tfmtl.finetuning.drift(model, data))
        column                      mean         std    new mean     new std    moved by
        age[0]                        40          10          45          20   +0.50 std
    """
    learned = _learn(record(model), data, columns)
    return Drift([value.found for value in learned])


def readapt(
    model: keras.Model,
    data: Mapping[str, Any] | Iterable[Any],
    columns: Sequence[str] | None = None,
    keep_scores: bool = True,
) -> keras.Model:
    """A trained model with the statistics of new data, and the scores that it had.

    ```
    y = (g(clip(x)) - mean) / std,     y' the same with mean' and std'
    y = a y' + b,                      a = std' / std,  b = (mean' - mean) / std
    y K + c = y' (diag(a) K) + (b K + c)
    ```

    Statistics are those that `adapt` learns of the new data, with the columns' own
    `log`, `clip` and `missing`. The first kernels behind take the difference in, so
    that the model trains on with inputs of mean 0 and variance 1 and no output moves
    but for rounding, which grows with b, and for values more than 1000 standard
    deviations from either mean, which are cut. A missing value stays what it was, the
    old mean, by `fill` of `Standardize`. A batch normalisation takes the difference
    into its own statistics.

    In training, a dropped input and a field whose gate closes leave the new mean, and
    penalties are those of the new kernels. Bucketised columns keep their boundaries.

    Args:
        model: A trained model with a dict of inputs, also one loaded or folded. It is
            left as it is.
        data: Columns by name, each `(rows, ...)`, or batches of them, each a dict or a
            tuple that starts with one, such as a finite `tf.data.Dataset`.
        columns: Names of numeric columns. Defaults to all; the others stay as they are.
        keep_scores: Whether the layers behind make up for the difference. Otherwise
            the statistics alone are replaced, and scores move. Defaults to `True`.

    Returns:
        A new model, not compiled, that holds copies of the layers.

    Raises:
        ValueError: If a column is not numeric or not in the data, has no finite value
            there, or is read by a layer that cannot make up for the difference.

    Example:
        >>> import numpy as np, tfmtl
        >>> age = tfmtl.features.Numeric("age", mean=(40,), std=(10,))
        >>> model = tfmtl.models.shared_bottom([age], [tfmtl.tasks.Binary("click")])
        >>> data = {"age": np.array([[25.0], [65.0]])}
        >>> newer = tfmtl.finetuning.readapt(model, data)
        >>> newer.get_layer("standardized_1").mean
        [45.0]
        >>> before, after = model(data)["click"], newer(data)["click"]
        >>> np.allclose(before, after, rtol=1e-5)
        True
    """
    graph = record(model)
    learned = _learn(graph, data, columns)
    new: dict[int, Any] = {}
    maps: dict[Ref, Map] = {}
    for call in graph.calls:
        own = [value for value in learned if value.layer is call.operation]
        if own:
            layer, moved = _restated(own, keep_scores)
            new[id(call.operation)] = layer
            [result] = call.results
            shape = [size or 0 for size in result.shape[1:]]
            maps[result] = Map(*(part.reshape(shape) for part in moved))
    if keep_scores:
        new |= layers_behind(graph, maps)
    return with_operations(model, graph, new)


def _restated(learned: list[_Learned], keep_missing: bool) -> tuple[Standardize, Map]:
    """The layer with other statistics, and what it gave by what it gives then."""
    layer = learned[0].layer
    config = layer.get_config()
    old = np.array([layer.mean, layer.std])
    new = old.copy()
    for _, position, found in learned:
        new[:, position] = found.new_mean, found.new_std
    moved = Map(new[1] / old[1], (new[0] - old[0]) / old[1])
    if keep_missing:
        fill = (np.array(layer.fill or [0.0]) - moved.shift) / moved.scale
        config["fill"] = fill.tolist() if fill.any() else None
    mean, std = new.tolist()
    return type(layer).from_config({**config, "mean": mean, "std": std}), moved


def _learn(graph: Graph, data: Any, columns: Sequence[str] | None) -> list[_Learned]:
    """Old and new statistics of every value, in the layers' order."""
    found = list(_values(graph))
    standardized = {column for _, _, column, _ in found}
    names = [name for name in graph.inputs if name in standardized] if found else []
    chosen = names if columns is None else list(columns)
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise ValueError(
            "`columns` should be numeric columns that the model standardises, of "
            f"{names}. Received: {unknown or chosen}"
        )
    # values of a column and a layer that are read alike are learned together
    alike: dict[Any, list[tuple[int, int]]] = {}
    for layer, position, column, value in found:
        if column in chosen:
            clip = (None, None) if layer.clip is None else tuple(layer.clip[position])
            missing = None if layer.missing is None else layer.missing[position]
            key = layer, column, layer.log[position], clip, missing
            alike.setdefault(key, []).append((position, value))
    readers = []
    for (_, column, log, clip, missing), places in alike.items():
        feature = Numeric(column, log, len(places), clip, missing=missing)
        readers.append((feature, feature.learner(), [value for _, value in places]))
    inputs = {name: graph.inputs[name] for name in chosen}
    for batch in checked_batches(inputs, data):
        for feature, learner, values in readers:
            rows = np.asarray(batch[feature.name])
            rows = rows.reshape(len(rows), -1)
            feature.read(learner, rows[:, values])
    learned = []
    for (layer, *_), places, (feature, learner, _) in zip(
        alike, alike.values(), readers, strict=True
    ):
        new: Any = feature.learned(learner)
        for k, (position, value) in enumerate(places):
            old = layer.mean[position], layer.std[position]
            row = ColumnDrift(feature.name, value, *old, new.mean[k], new.std[k])
            learned.append(_Learned(layer, position, row))
    return learned


def _values(graph: Graph) -> Iterator[tuple[Standardize, int, str, int]]:
    """Layer and number in it of every standardised value, its column, number there."""
    inputs = graph.inputs if isinstance(graph.inputs, dict) else {}
    names = {ref: name for name, ref in inputs.items()}
    calls_of = Counter(id(call.operation) for call in graph.calls)
    for call in graph.calls:
        layer = call.operation
        if not isinstance(layer, Standardize) or calls_of[id(layer)] > 1:
            continue  # statistics of several columns are no column's
        position = 0
        for ref in call.inputs:
            for value in range(ref.shape[-1] or 0):
                if ref in names:
                    yield layer, position, names[ref], value
                position += 1
