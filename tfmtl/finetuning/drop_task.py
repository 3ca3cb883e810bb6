"""A trained model without some of its tasks."""

from dataclasses import replace

from tfmtl.finetuning.trained import Trimmer
from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import record
from tfmtl.models import MultiTaskModel


def drop_task(
    model: MultiTaskModel, *names: str, drop_inputs: bool = False
) -> MultiTaskModel:
    """A trained model without some tasks, nor what only they used.

    Towers, rows of gates, outputs of a routing, experts that nobody else weighs and
    tables that nobody else reads go, also out of layers that hold those of other tasks.
    Unlike `tfmtl.folding.fold(model, tasks=…)`, the model is one that trains on as it
    did: gates, dropout and regularisers are there.

    A later step of a funnel stays the probability over all exposures, where the step
    before is dropped, and keeps what it needs of that.

    Args:
        model: A trained model. It is left as it is.
        *names: Names of the tasks, or of other outputs, such as a score.
        drop_inputs: Whether columns that nothing reads any more are no inputs either,
            which changes the signature that clients see. The column of a position that
            only dropped tasks read goes in any case.

    Returns:
        A new model, not compiled, that holds copies of the layers.

    Raises:
        ValueError: If a name is that of no output, or no task would be left.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.ple([x], tasks, specific=2, shared=1)
        >>> smaller = tfmtl.finetuning.drop_task(model, "like")
        >>> smaller.get_layer("level_2_experts").num_experts
        3
    """
    tasks = getattr(model, "tasks", ())
    known = [*model.output] if isinstance(model.output, dict) else []
    left = [task.name for task in tasks if task.name not in names]
    if not names or not set(names) <= set(known) or not left:
        raise ValueError(
            f"`names` should be some of the model's outputs, {known}, but not all of "
            f"its tasks, {[task.name for task in tasks]}. Received: {list(names)}"
        )
    gone = {*names, *(task.conditional_name for task in tasks if task.name in names)}
    graph = record(model)
    kept = {name: ref for name, ref in graph.outputs.items() if name not in gone}
    facts = Facts(replace(graph, outputs=kept), serving=False)
    smaller: MultiTaskModel = Trimmer(facts, model, drop_inputs).build()
    return smaller
