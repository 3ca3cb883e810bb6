"""Values that a trained model does not know yet."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.features.batches import batches
from tfmtl.features.learning.counts import Counts
from tfmtl.finetuning.rows import known_values, lookups, tables
from tfmtl.finetuning.trained import with_operations
from tfmtl.folding.graph import record

_FILE = "vocabulary.txt"  # the name that Keras gives an asset


def new_values(
    model: keras.Model,
    data: Mapping[str, Any] | Iterable[Any],
    min_count: int = 1,
) -> dict[str, list[Any]]:
    """The values in data that a model's vocabularies do not have.

    Args:
        model: A built Functional model with a dict of inputs.
        data: Columns by name, or batches of them, each a dict or a tuple that starts
            with one, such as a finite `tf.data.Dataset`.
        min_count: How often a value must occur.

    Returns:
        New values by column, most frequent first, for `grow_vocabularies`; columns
        without any are left out. Columns of one shared table are counted together, and
        listed under the first.

    Example:
        >>> import numpy as np, tfmtl
        >>> sex = tfmtl.features.Categorical("sex", vocabulary=("Male", "Female"))
        >>> model = tfmtl.models.shared_bottom([sex], [tfmtl.tasks.Binary("click")])
        >>> data = {"sex": np.array([["Male"], ["Other"], ["Other"]])}
        >>> tfmtl.finetuning.new_values(model, data)
        {'sex': ['Other']}
    """
    found = lookups(record(model))
    first: dict[int, str] = {}
    counts: dict[str, Counts] = {}
    for column, call in found.items():
        text = isinstance(call.operation, keras.layers.StringLookup)
        name = first.setdefault(id(call.operation), column)
        counts.setdefault(name, Counts(name, str if text else int))
    for columns in batches(data):
        for column, call in found.items():
            if column in columns:
                values = columns[column]
                values = getattr(values, "flat_values", values)
                counts[first[id(call.operation)]].update(np.asarray(values))
    unknown = {}
    for name, counted in counts.items():
        known = set(known_values(found[name].operation))
        listed = [v for v in counted.frequent(min_count) if v not in known]
        if listed:
            unknown[name] = listed
    return unknown


def grow_vocabularies(
    model: keras.Model, values: Mapping[str, Sequence[Any]]
) -> keras.Model:
    """A trained model that knows more values, with a row of its own for each.

    A new value starts with the row of unknown values, which is what it had before: no
    score moves until the model is trained (but where a `Cross` reads the column). Rows
    that were learned stay as they are, and ids too: new values come after the known
    ones. `keep_rows` lets the new rows alone train.

    Args:
        model: A trained model, also one loaded or folded. It is left as it is.
        values: New values by column, as of `new_values`; a column that shares its table
            gives the values to all of the table's columns.

    Returns:
        A new model, not compiled, that holds copies of the layers.

    Raises:
        ValueError: If a column has no vocabulary, or a value is missing, of another
            type, known already or given twice.

    Example:
        >>> import tfmtl
        >>> sex = tfmtl.features.Categorical("sex", vocabulary=("Male", "Female"))
        >>> model = tfmtl.models.shared_bottom([sex], [tfmtl.tasks.Binary("click")])
        >>> grown = tfmtl.finetuning.grow_vocabularies(model, {"sex": ["Other"]})
        >>> [str(v) for v in grown.get_layer("sex_lookup").get_vocabulary()][2:]
        ['Male', 'Female', 'Other']
    """
    graph = record(model)
    found = lookups(graph)
    _check(values, found)
    grown: dict[int, Any] = {}
    added: dict[int, dict[int, int]] = {}  # rows by field, of each table
    unknown: dict[int, dict[int, int]] = {}  # its row in the field
    layers: dict[int, Any] = {}
    for column, new in values.items():
        call = found[column]
        grown[id(call.operation)] = _grown_lookup(call.operation, [*new])
        for other in graph.calls:
            if other.operation is not call.operation:
                continue
            for layer, field in tables(graph, other.results[0]):
                layers[id(layer)] = layer
                field = field if hasattr(layer, "sizes") else 0
                added.setdefault(id(layer), {})[field] = len(new)
                row = 0 if call.operation.mask_token is None else 1
                unknown.setdefault(id(layer), {})[field] = row
    for key, layer in layers.items():
        grown[key] = _grown_table(layer, added[key], unknown[key])
    return with_operations(model, graph, grown)


def keep_rows(model: keras.Model, old: keras.Model) -> keras.Model:
    """Of the tables that have grown, lets only the rows train that are new.

    Other tables and layers train as they do: `freeze` what else should stay. After
    every step of the optimizer the old rows get their values back, so that they stay
    the same to the bit. It holds until the model is saved.

    Args:
        model: What `grow_vocabularies` made of the old model. It is changed.
        old: The old model.

    Returns:
        The model.

    Raises:
        ValueError: If no table has grown.

    Example:
        >>> import tfmtl
        >>> sex = tfmtl.features.Categorical("sex", vocabulary=("Male", "Female"))
        >>> model = tfmtl.models.shared_bottom([sex], [tfmtl.tasks.Binary("click")])
        >>> grown = tfmtl.finetuning.grow_vocabularies(model, {"sex": ["Other"]})
        >>> grown = tfmtl.finetuning.keep_rows(grown, model)
    """
    before = {layer.name: layer for layer in model_layers(old)}
    count = 0
    for layer in model_layers(model):
        table = getattr(layer, "embeddings", None)
        if table is None or layer.name not in before:
            continue
        sizes, known = _sizes(layer), _sizes(before[layer.name])
        if sizes != known and len(sizes) == len(known):
            table.constraint = KeepRows(_is_new(sizes, known), table)
            count += 1
    if not count:
        raise ValueError(
            "`model` should have tables with more rows than those of the same name in "
            "`old`. Received: no such table"
        )
    return model


def model_layers(model: keras.Model) -> list[Any]:
    """The layers of a model, those of models inside it included."""
    return [call.operation for call in record(model).calls]


class KeepRows(keras.constraints.Constraint):
    """Gives some rows of a table their values back.

    Args:
        trained: Booleans `(rows,)`: which rows train.
        table: The table as it is.
    """

    def __init__(self, trained: np.ndarray, table: Any) -> None:
        self._trained = trained[:, None]
        self._table = ops.convert_to_numpy(table)

    def __call__(self, table: Any) -> Any:
        kept = ops.convert_to_tensor(self._table, table.dtype)
        return ops.where(ops.convert_to_tensor(self._trained), table, kept)


def _sizes(layer: Any) -> list[int]:
    return list(getattr(layer, "sizes", [int(layer.embeddings.shape[0])]))


def _is_new(sizes: Sequence[int], known: Sequence[int]) -> np.ndarray:
    pairs = zip(sizes, known, strict=True)
    return np.concatenate([np.arange(size) >= old for size, old in pairs])


def _grown_lookup(lookup: Any, values: list[Any]) -> Any:
    config = lookup.get_config()
    config["vocabulary_size"] = None  # of the old one
    if config["vocabulary"] is not None:
        config["vocabulary"] = [*config["vocabulary"], *values]
        return type(lookup).from_config(config)
    layer = type(lookup).from_config(config)  # the vocabulary is a file
    with tempfile.TemporaryDirectory() as folder:
        lookup.save_assets(folder)
        path = Path(folder, _FILE)
        known = path.read_text("utf-8").split("\n")
        path.write_text("\n".join([*known, *map(str, values)]), "utf-8")
        layer.load_assets(folder)
    return layer


def _grown_table(layer: Any, added: dict[int, int], unknown: dict[int, int]) -> Any:
    sizes = _sizes(layer)
    starts = np.cumsum([0, *sizes])
    table = ops.convert_to_numpy(layer.embeddings)
    parts = []
    for field, size in enumerate(sizes):
        rows = table[starts[field] : starts[field] + size]
        row = rows[[unknown.get(field, 0)]]
        parts.append(np.concatenate([rows, *[row] * added.get(field, 0)]))
    config = layer.get_config()
    if hasattr(layer, "sizes"):
        config["sizes"] = [len(part) for part in parts]
    else:
        config["input_dim"] = len(parts[0])
    new = type(layer).from_config(config)
    new.build((None, len(sizes)))
    new.set_weights([np.concatenate(parts)])
    return new


def _check(values: Mapping[str, Sequence[Any]], found: Mapping[str, Any]) -> None:
    users: dict[int, str] = {}
    for column, new in values.items():
        if column not in found:
            raise ValueError(
                "`values` should be for columns with a vocabulary, of "
                f"{list(found)}. Received: {column!r}"
            )
        lookup: Any = found[column].operation
        other = users.setdefault(id(lookup), column)
        if other != column:
            raise ValueError(
                "`values` should be given once for columns of one table. "
                f"Received: {other!r} and {column!r}"
            )
        kind = str if isinstance(lookup, keras.layers.StringLookup) else int
        known = set(known_values(lookup))
        fits = [isinstance(v, kind) and v not in ("", *known) for v in new]
        if isinstance(new, str) or not new or not all(fits) or len({*new}) < len(new):
            odd = [v for v, fit in zip(new, fits, strict=True) if not fit]
            raise ValueError(
                f"`values` of {column!r} should be different values of type "
                f"{kind.__name__} that are not known yet. Received: {odd or list(new)}"
            )
        if kind is int and min(new) < 0:
            raise ValueError(
                f"`values` of {column!r} should be ids of at least 0, since negative "
                f"ones are missing. Received: {min(new)}"
            )
