"""What only training needs is gone from a graph."""

import keras

from tfmtl.folding import stock
from tfmtl.folding.graph import Call, Graph, Ref
from tfmtl.folding.protocol import ServedLayer


def as_served(graph: Graph) -> Graph:
    """The graph without operations that are the identity in inference.

    Dropout, noise, regularisers of activities and linear activations go, and layers
    with such parts inside are replaced by what they say they are when `served`. A
    layer that is called with `training=True` stays.
    """
    stay = {id(call.operation) for call in graph.calls if not call.is_plain}
    served: dict[int, keras.Operation] = {}
    same: dict[Ref, Ref] = {}
    calls = []
    for call in graph.calls:
        call, operation = call.renamed(same), call.operation
        if stock.is_identity(call):
            same[call.results[0]] = call.inputs[0]
            continue
        if isinstance(operation, ServedLayer) and id(operation) not in stay:
            if id(operation) not in served:
                served[id(operation)] = operation.served()
            operation = served[id(operation)]
        calls.append(Call(operation, call.args, call.kwargs, call.outputs))
    return graph.with_calls(calls, same)
