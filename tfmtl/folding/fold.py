"""Trained model in, smaller model with the same outputs out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras

from tfmtl.folding.facts import Facts, training_only_inputs
from tfmtl.folding.graph import as_functional, is_graph, record
from tfmtl.folding.inference import as_served
from tfmtl.folding.merge import merged
from tfmtl.folding.proof import FoldError, as_tensors, check_tolerance, prove
from tfmtl.folding.rebuild import rebuild
from tfmtl.folding.rows import made_up_rows
from tfmtl.layers.checks import entries, positive_int
from tfmtl.ops.grouping import device_named


def fold(
    model: keras.Model,
    inputs: Any = None,
    tolerance: float | None = None,
    tasks: Sequence[str] | None = None,
    drop_inputs: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
) -> keras.Model:
    """Makes the model of what pruning left, and proves that it is the same.

    Connections and task-expert pairs whose gate serves exactly 0, sub-networks
    that nobody reads or that read nothing, and what only they needed are gone;
    gates in between are multiplied into their kernel. A sub-network without a live
    input is a constant: it becomes bias. Works on Functional and Sequential models
    that hold layers with slots, with plain Keras layers between, and looks into
    nested Functional models; what a composite layer holds inside stays as it is.

    What only training needs goes too: dropout, noise and the like. Batch
    normalisation goes into the kernel beside it, and linear maps that follow each
    other become one where that costs no more FLOPs:

    ```
    (x A + a) K + b = x (A K) + (a K + b)
    ```

    This leaves layers in mixed precision as they are, and does not merge what is
    frozen with what is trained. Where it alone would make outputs differ by more than
    the tolerance, nothing is merged.

    The result is an ordinary Keras model with the same inputs, those that nobody
    reads any more included (but not the named ones that matter in training alone,
    such as a position that only `PositionBias` reads), and the same outputs by the
    keys of their dict, so that clients need not change (Keras names outputs that
    are no dict after the layer that gives them, and that layer may be another). It
    can be saved, trained on, exported and folded again; the model given is left as
    it is.

    To train on, connections that are closed stay closed. The result is not compiled and
    holds no optimizer: `compile` it with the optimizer, `balancing`, `loss_weights`,
    `metrics` and whatever else is to hold again, without `sparsity`. A `MultiTaskModel`
    keeps its tasks, with their own losses, weights and metrics; what balancing learned
    starts anew.

    Args:
        model: A built Functional or Sequential model.
        inputs: Rows to prove equality on, structured like the model's input.
            Defaults to rows made up from the inputs' shapes and types.
        tolerance: Largest difference allowed per output, relative to the output
            where that exceeds 1. Defaults to 1e-5, to 5e-3 where the model
            computes in float16, and to 5e-2 in bfloat16.
        tasks: Names of the outputs to keep, of a model whose outputs are a dict; what
            only others need goes. A later step of a funnel is the probability over
            all exposures also where the step before is not kept; its conditional is
            an output of its own, kept only by name. A `MultiTaskModel` has the tasks
            that are left. Defaults to `None`, all outputs.
        drop_inputs: Whether inputs of a dict or list that nothing reads any more are
            left out, which changes the signature that clients see.
        batch_size: Number of examples that routings are laid out for, as no layout is
            fastest for all. Defaults to `None`, fast for hundreds without being slow
            for one.
        device: Where the result is served, `"cpu"` or `"gpu"`: a GPU computes a few
            products with zeros faster than many without. Defaults to `"cpu"`.

    Returns:
        The folded model.

    Raises:
        ValueError: If the model is not Functional or Sequential or has a layer that
            cannot be copied, `inputs` are structured unlike its input, `tasks` are not
            names of its outputs, `tolerance` is negative, `batch_size` is not positive,
            or there is no such `device`.
        FoldError: If an output differs by more than the tolerance, or the model
            itself gives NaN on the rows.

    Example:
        >>> import keras, tfmtl
        >>> inputs = keras.Input((8,))
        >>> x = tfmtl.layers.Experts(4, 8)(inputs)
        >>> routing = tfmtl.layers.SubNetworkRouting(1, 2)
        >>> model = keras.Model(inputs, routing(x)[:, 0])
        >>> routing.gate.set_log_alpha([[4.0, -4.0, -4.0, 4.0]])
        >>> folded = tfmtl.folding.fold(model)
        >>> folded.count_params(), folded.count_params() < model.count_params() / 2
        (176, True)
    """
    given, model = model, as_functional(model)
    if batch_size is not None:
        positive_int("batch_size", batch_size)
    device_named(device)
    check_tolerance(tolerance)
    layout = None if (batch_size, device) == (None, "cpu") else (batch_size, device)
    rows = made_up_rows(model) if inputs is None else inputs
    rows = as_tensors(model.input, rows)
    graph = as_served(record(model))
    if tasks is not None:
        graph = replace(graph, outputs=_named(tasks, graph.outputs))
    pruned = folded = rebuild(given, Facts(graph), drop_inputs, layout)
    while (smaller := merged(record(folded))) is not None:
        folded = rebuild(folded, Facts(smaller), drop_inputs, layout)
    try:
        prove(model, folded, rows, tolerance)
    except FoldError:
        if folded is pruned:
            raise
        folded = pruned
        prove(model, folded, rows, tolerance)
    return folded


def _named(tasks: Sequence[str], outputs: Any) -> dict[str, Any]:
    """The outputs of these names, in the model's order."""
    names = list(outputs) if isinstance(outputs, dict) else []
    kept = entries(tasks)
    if not kept or not all(name in names for name in kept):
        raise ValueError(
            "`tasks` should be a list of names of the model's outputs, of "
            f"{names or 'a dict, which they are not'}. Received: tasks={tasks!r}"
        )
    return {name: ref for name, ref in outputs.items() if name in kept}


def training_inputs(model: keras.Model) -> set[str]:
    """Names of the inputs that matter in training alone, of a model of named inputs.

    Args:
        model: A built model.

    Returns:
        The names, none where the model is no graph or its inputs are no dict.

    Example:
        >>> import keras, tfmtl
        >>> x, shown = keras.Input((3,), name="x"), keras.Input((1,), name="shown")
        >>> logit = keras.layers.Dense(1)(x) + tfmtl.layers.PositionBias(9)(shown)
        >>> model = keras.Model({"x": x, "shown": shown}, {"click": logit})
        >>> tfmtl.folding.training_inputs(model)
        {'shown'}
    """
    if not is_graph(model) or not isinstance(model.input, dict):
        return set()
    graph = record(model)
    unread = training_only_inputs(graph)
    return {name for name, ref in graph.inputs.items() if ref in unread}


def without_training_inputs(model: keras.Model) -> keras.Model:
    """The model as it serves: without named inputs that matter in training alone.

    Args:
        model: A built model.

    Returns:
        The model itself where it has no such input, otherwise a copy in which what
        they fed is a constant.

    Example:
        >>> import keras, tfmtl
        >>> x, shown = keras.Input((3,), name="x"), keras.Input((1,), name="shown")
        >>> logit = keras.layers.Dense(1)(x) + tfmtl.layers.PositionBias(9)(shown)
        >>> model = keras.Model({"x": x, "shown": shown}, {"click": logit})
        >>> list(tfmtl.folding.without_training_inputs(model).input)
        ['x']
    """
    if not training_inputs(model):
        return model
    return rebuild(model, Facts(record(model), prune=False))


def with_layers(
    model: keras.Model, replacement: Callable[[keras.Operation], keras.Operation]
) -> keras.Model:
    """The model with other layers in some layers' places.

    Args:
        model: A built Functional or Sequential model.
        replacement: What stands for a layer or operation: itself, of which the copy
            has a copy, or another one that takes and gives the same shapes.

    Returns:
        A copy of the model.

    Raises:
        ValueError: If the model is not Functional or Sequential.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.Input((3,))
        >>> model = keras.Model(x, keras.layers.Dropout(0.5)(x))
        >>> none = keras.layers.Identity()
        >>> drops = lambda layer: isinstance(layer, keras.layers.Dropout)
        >>> copy = tfmtl.folding.with_layers(model, lambda l: none if drops(l) else l)
        >>> [type(layer).__name__ for layer in copy.layers]
        ['InputLayer', 'Identity']
    """
    graph = record(model)
    operations = {id(call.operation): call.operation for call in graph.calls}
    others = {key: replacement(operation) for key, operation in operations.items()}
    return rebuild(model, Facts(graph.with_operations(others), prune=False))
