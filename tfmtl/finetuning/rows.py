"""What the rows of embedding tables stand for."""

from collections.abc import Iterator
from typing import Any

import keras

from tfmtl.folding.graph import Call, Graph, Ref

_LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup)


def lookups(graph: Graph) -> dict[str, Call]:
    """The call that looks a column up in a vocabulary, by name of the column."""
    if not isinstance(graph.inputs, dict):
        return {}
    found = {}
    for name, ref in graph.inputs.items():
        call = _first_lookup(graph, ref)
        if call is not None:
            found[name] = call
    return found


def tables(graph: Graph, ids: Ref) -> Iterator[tuple[Any, int]]:
    """The embedding layers that read ids, and as which of their fields."""
    for call in graph.readers(ids):
        if hasattr(call.operation, "embeddings"):
            yield call.operation, call.inputs.index(ids)


def known_values(lookup: Any) -> list[Any]:
    """The values of a vocabulary, without those that stand for missing and unknown."""
    values = lookup.get_vocabulary(include_special_tokens=False)
    missing = "" if isinstance(lookup, keras.layers.StringLookup) else -1
    return [value for value in values if value != missing]


def _first_lookup(graph: Graph, ref: Ref) -> Call | None:
    """The look-up that reads a column, as it is, in part, or with a bound."""
    for call in graph.readers(ref):
        if isinstance(call.operation, _LOOKUPS):
            return call
        if not getattr(call.operation, "weights", ()) and call.inputs == [ref]:
            found = _first_lookup(graph, call.results[0])
            if found is not None:
                return found
    return None
