"""Vocabularies as files of the SavedModel, whatever the look-up was made of.

A vocabulary of a million values loads eight times faster from a file than from the
graph. Keras puts one into the graph that was given as a list or learned, and every one
that was saved in a `.keras` file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from tfmtl.serving.stateless import walk

LIMIT = 1000  # values from which a vocabulary is a file
DELIMITERS = "\t\x1f"


@contextmanager
def vocabularies_in_files(model: keras.Model, folder: Path) -> Iterator[None]:
    """Lets a model's look-ups read their vocabularies from files for a while.

    Args:
        model: The model, whose `StringLookup`s and `IntegerLookup`s are changed and
            changed back. Vocabularies of less than 1,000 values stay where they are,
            and those with line breaks.
        folder: Where the files are written. They must be there until a SavedModel,
            which copies them, is saved.

    Example:
        `with vocabularies_in_files(model, folder): tf.saved_model.save(…)`
    """
    kinds = keras.layers.StringLookup | keras.layers.IntegerLookup
    changed: dict[keras.Layer, tf.lookup.StaticHashTable] = {}
    try:
        for layer in walk(model, lambda value: isinstance(value, kinds)):
            table = _of_file(layer, folder / f"{len(changed)}_{layer.name}.txt")
            if table is not None:
                changed[layer] = layer.lookup_table
                layer.lookup_table = table
        yield
    finally:
        for layer, table in changed.items():
            layer.lookup_table = table


def _of_file(layer: keras.Layer, file: Path) -> tf.lookup.StaticHashTable | None:
    """The layer's table, of a file; `None` where there is no reason or no way."""
    table = layer.lookup_table
    if layer.invert or int(table.size()) < LIMIT:
        return None
    keys, rows = (tensor.numpy().tolist() for tensor in table.export())
    if table.key_dtype != tf.string:
        keys = [b"%d" % key for key in keys]
    used = set(b"".join(keys))
    delimiter = next((d for d in DELIMITERS if ord(d) not in used), None)
    if delimiter is None or used & set(b"\r\n"):
        return None
    # with its row beside it, since an empty line cannot stand for the missing value
    pairs = sorted(zip(rows, keys, strict=True))
    lines = [b"%s%s%d\n" % (key, delimiter.encode(), row) for row, key in pairs]
    file.write_bytes(b"".join(lines))
    initializer = tf.lookup.TextFileInitializer(
        str(file), table.key_dtype, 0, table.value_dtype, 1, delimiter=delimiter
    )
    return tf.lookup.StaticHashTable(initializer, table.default_value)
