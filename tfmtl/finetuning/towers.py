"""Where a task's tower is in a recorded model, and what it reads."""

from collections import deque

from tfmtl.folding.graph import Call, Graph, Ref
from tfmtl.folding.protocol import MixtureLayer
from tfmtl.layers import Tower
from tfmtl.tasks.task import Task


def outputs_of(graph: Graph, task: Task) -> list[Ref]:
    """The outputs of a task, that of its tower first."""
    own = [graph.outputs[task.name]]
    if task.after is not None and task.conditional_name in graph.outputs:
        own.insert(0, graph.outputs[task.conditional_name])
    return own


def tower_of(graph: Graph, output: Ref) -> Call | None:
    """The call of the tower nearest before an output."""
    makers = graph.makers()
    waiting = deque([output])
    while waiting:
        call = makers.get(waiting.popleft())
        if call is not None and isinstance(call.operation, Tower):
            return call
        waiting.extend(call.inputs if call is not None else ())
    return None


def trunk_of_one(graph: Graph, stream: Ref) -> list[Ref]:
    """What the last mixture or routing before a stream reads, or the stream itself."""
    makers = graph.makers()
    ref = stream
    while (call := makers.get(ref)) is not None:
        if isinstance(call.operation, MixtureLayer):
            return call.inputs[:1]
        if hasattr(call.operation, "connections"):
            return call.inputs
        if getattr(call.operation, "weights", ()) or len(call.inputs) != 1:
            break
        [ref] = call.inputs
    return [stream]
