"""A model with one more output: a score over its tasks."""

from collections.abc import Mapping

from tfmtl.layers import ScoreFusion
from tfmtl.models.multi_task_model import MultiTaskModel


def with_score(
    model: MultiTaskModel,
    weights: Mapping[str, float],
    kind: str = "sum",
    offset: float = 0.0,
    name: str = "score",
) -> MultiTaskModel:
    """A model that also gives a score over its tasks, by a formula.

    Args:
        model: A model of a recipe; it shares its layers and weights with the result.
        weights: Weights, or exponents, by name of an output; see `ScoreFusion`.
        kind: `"sum"` or `"product"`. Defaults to `"sum"`.
        offset: Added to each prediction of a product. Defaults to 0.0.
        name: Name of the output. Defaults to `"score"`.

    Returns:
        The model with the further output; compile it before it trains on.

    Raises:
        ValueError: If an output has the name, or a weight is that of no output, or of
            one with several columns.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.shared_bottom([x], tasks)
        >>> ranker = tfmtl.models.with_score(model, {"click": 1.0, "like": 5.0})
        >>> sorted(ranker.output)
        ['click', 'like', 'score']
    """
    if name in model.output:
        raise ValueError(
            f"`name` should be that of no output. Received: name={name!r} of "
            f"outputs={sorted(model.output)}"
        )
    layer = ScoreFusion(weights, kind, offset, name=name)
    if not set(weights) <= set(model.output):
        raise ValueError(
            "`weights` should be by name of an output, one of "
            f"{sorted(model.output)}. Received: weights={weights!r}"
        )
    read = {task: model.output[task] for task in weights}
    outputs = {**model.output, name: layer(read)}
    return model.of_graph(model.input, outputs, model.name)
