"""A new task for a trained model."""

from collections.abc import Sequence
from typing import Any

import keras

from tfmtl.finetuning.branch import Branch
from tfmtl.finetuning.groups import weights_of
from tfmtl.finetuning.own import Own
from tfmtl.finetuning.towers import outputs_of, tower_of, trunk_of_one
from tfmtl.finetuning.trained import copied
from tfmtl.folding import training_inputs
from tfmtl.folding.graph import Call, Graph, Ref
from tfmtl.layers.checks import mapping
from tfmtl.models import MultiTaskModel
from tfmtl.models.parts import Arguments, predict
from tfmtl.tasks.task import Task, check_tasks

_OF_TOWER = ("name", "output_units", "head_activation", "trainable")


def add_task(
    model: MultiTaskModel,
    task: Task,
    like: str | None = None,
    tower: Arguments | None = None,
    shared: Sequence[str] | None = None,
    reads: str | None = None,
    own: Sequence[str] = (),
) -> MultiTaskModel:
    """A trained model with one more task.

    The new task gets, with new weights, what another task has of its own: its tower,
    its gate or its row of one, its output of a routing, its specific experts. It reads
    what all share, and what several tasks share, as that task does. Each new part is a
    layer of its own beside the old ones, `<task>_<layer>`: the old tasks' outputs stay
    the same to the bit, and `freeze(model, but=["new"])` trains the new parts alone.

    What is a task's own follows from the graph, so this works for every architecture,
    for models composed by hand, and for folded ones, in which a new output of a routing
    reads what the other task's reads.

    Args:
        model: A trained model, also one loaded or folded. It is left as it is.
        task: The new task; it may come `after` a task of the model.
        like: Name of the task whose parts the new ones are like. Defaults to the first.
        tower: Arguments of the new `Tower`. Defaults to those of the other task's.
        shared: Names of layers that the new task shares, with all that they depend on,
            whatever the rule says. Defaults to none; in a model of one task, where
            nothing tells what tasks would share, to what its last mixture or routing
            reads, or else its tower.
        reads: Name of the layer, of a single output, that takes the place of what the
            other task's tower reads. Needed where that task has no `Tower`.
        own: Groups, see `groups`, or names of layers, that the new task gets copies of,
            with all that is between them and its tower. What was shared starts as it
            was trained, what was the other task's own starts anew. For a task that the
            trunk knows too little of, `own=["embeddings"]`, at the price of a second
            network in the model. Defaults to none.

    Returns:
        A new model, not compiled, that holds copies of the layers.

    Raises:
        ValueError: If the task's name is taken, or an argument names no task or layer.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.mmoe([x], tasks, experts=4)
        >>> follow = tfmtl.tasks.Binary("follow")
        >>> grown = tfmtl.finetuning.add_task(model, follow)
        >>> old = {layer.name for layer in model.layers}
        >>> [n for n in (layer.name for layer in grown.layers) if n not in old]
        ['follow_task_gate', 'follow_task_mixture', 'follow_tower']
    """
    tasks = _known_tasks(model, task)
    like = tasks[0].name if like is None else like
    if like not in [known.name for known in tasks]:
        raise ValueError(
            f"`like` should be a task of the model, of {[t.name for t in tasks]}. "
            f"Received: like={like!r}"
        )
    trunk = copied(model)
    copy: Any = trunk.build()
    graph = trunk.facts.graph
    outputs = {known.name: outputs_of(graph, known) for known in tasks}
    call = tower_of(graph, outputs[like][0])
    if reads is not None:
        stream = _result(graph, reads, "reads")
    elif call is None:
        raise ValueError(
            f"Task {like!r} should have a tfmtl.layers.Tower to read what it reads; "
            "otherwise `reads` should name the layer that the new tower reads. "
            "Received: reads=None"
        )
    else:
        [stream] = call.inputs
    if shared is not None:
        kept = [_result(graph, name, "shared") for name in shared]
    else:
        kept = [] if len(tasks) > 1 else trunk_of_one(graph, stream)
    facts = Own(graph, outputs, like, kept)
    if own:
        _take(facts, model, [own] if isinstance(own, str) else own, stream)
    if shared is not None and any(facts.own[ref].any() for ref in kept):
        raise ValueError(
            "`shared` should not name what comes after layers of `own`. "
            f"Received: shared={[*shared]}, own={own!r}"
        )
    grown = Branch(facts, trunk, task.name).grow(stream)
    found: dict[str, Any] = dict(copy.output)
    inputs = dict(copy.input)
    positions = {known.position.column for known in tasks if known.position}
    columns = [
        name for name in inputs if name not in positions & training_inputs(model)
    ]
    given = _arguments(call) if tower is None else tower
    predict(task, grown, inputs, found, given, columns)
    return MultiTaskModel(inputs, found, name=model.name, tasks=[*tasks, task])


def _known_tasks(model: Any, task: Any) -> tuple[Task, ...]:
    tasks = getattr(model, "tasks", ())
    if not tasks or not isinstance(model, MultiTaskModel):
        raise ValueError(
            "`model` should be a tfmtl.models.MultiTaskModel with tasks; of another "
            "Functional model, MultiTaskModel(model.input, model.output, tasks=…) is "
            f"one. Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    check_tasks([*tasks, task])
    taken = {task.name, task.conditional_name} & {*model.output}
    if taken:
        raise ValueError(
            "The new task's outputs should have names that the model's outputs, "
            f"{[*model.output]}, do not have. Received: {sorted(taken)}"
        )
    return tasks


def _take(facts: Own, model: Any, names: Sequence[str], stream: Ref) -> None:
    of_names = [
        _results(facts.graph, name, weights)
        for name, weights in zip(names, weights_of(model, names), strict=True)
    ]
    before = dict(facts.own)
    facts.take([ref for refs in of_names for ref in refs], stream)
    for name, refs in zip(names, of_names, strict=True):
        if not any((facts.own[ref] & ~before[ref]).any() for ref in refs):
            raise ValueError(
                "`own` should name what several tasks share and the new tower depends "
                f"on. Received: own={[*names]}, of which {name!r} is not"
            )


def _results(graph: Graph, name: str, weights: Sequence[Any]) -> list[Ref]:
    """What a layer gives, or the layers that hold some of the weights."""
    group = {id(weight) for weight in weights}
    found = []
    for call in graph.calls:
        held = {id(weight) for weight in getattr(call.operation, "weights", ())}
        if call.operation.name == name or held & group:
            found += call.results
    return found


def _result(graph: Graph, name: str, argument: str) -> Ref:
    found = [call.results for call in graph.calls if call.operation.name == name]
    if len(found) != 1 or len(found[0]) != 1:
        received = f"{len(found)} calls of it" if found else "no such layer"
        raise ValueError(
            f"`{argument}` should name a layer that is called once and has one output. "
            f"Received: {argument}={name!r}, {received}"
        )
    return found[0][0]


def _arguments(tower: Call | None) -> dict[str, Any]:
    """Arguments of a tower like another one, for any task."""
    layer: Any = None if tower is None else tower.operation
    config = {} if layer is None else keras.saving.serialize_keras_object(layer)
    given = dict(config.get("config", {}))
    return mapping("tower", {k: v for k, v in given.items() if k not in _OF_TOWER}, ())
