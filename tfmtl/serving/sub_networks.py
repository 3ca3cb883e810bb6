"""Which sub-networks a version computes, for its manifest."""

from typing import Any

import keras

from tfmtl.folding.graph import is_graph, record
from tfmtl.folding.protocol import GateLayer, SlotLayer


def sub_networks(model: keras.Model) -> list[dict[str, Any]]:
    """Lists the layers with slots, in the order in which they are called.

    Args:
        model: The model as it is served, folded or not.

    Returns:
        `{"layer": …, "slots": …, "connections": …}` for each: its name, how many slots
        it gives, and how many connections they read that are open. The slots of a gate
        are the mixtures that it weighs, and its connections the experts of each.

    Example:
        >>> import keras, tfmtl
        >>> from tfmtl.serving.sub_networks import sub_networks
        >>> x = keras.Input((3,), name="x")
        >>> experts = tfmtl.layers.Experts(4, 8, name="experts")
        >>> sub_networks(keras.Model({"x": x}, {"y": experts(x)}))
        [{'layer': 'experts', 'slots': 4, 'connections': 4}]
    """
    calls = record(model).calls if is_graph(model) else ()
    layers = {id(call.operation): call.operation for call in calls}
    return [_facts(layer) for layer in layers.values() if _has_slots(layer)]


def _has_slots(layer: Any) -> bool:
    """Whether a layer computes slots, and does not just pass them on."""
    return isinstance(layer, SlotLayer) and hasattr(layer, "flops")


def _facts(layer: Any) -> dict[str, Any]:
    is_gate = isinstance(layer, GateLayer)
    pairs = layer.open_pairs() if is_gate else layer.slot_reads()
    return {
        "layer": layer.name,
        "slots": len(pairs),
        "connections": int(pairs.sum()),
    }
