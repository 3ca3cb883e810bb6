"""Trained model in, smaller model with the same outputs out."""

from collections.abc import Mapping

import keras
import numpy as np

from tfmtl.folding.facts import Facts, training_only_inputs
from tfmtl.folding.graph import as_functional, is_graph, record
from tfmtl.folding.proof import prove
from tfmtl.folding.rebuild import rebuild
from tfmtl.folding.rows import made_up_rows


def fold(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray] | None = None,
    tolerance: float | None = None,
) -> keras.Model:
    """Makes the model of what pruning left, and proves that it is the same.

    Connections and task-expert pairs whose gate serves exactly 0, sub-networks
    that nobody reads or that read nothing, and what only they needed are gone;
    gates in between are multiplied into their kernel. A sub-network without a live
    input is a constant: it becomes bias. Works on Functional and Sequential models
    that hold layers with slots, with plain Keras layers between, and looks into
    nested Functional models; what a composite layer holds inside stays as it is.

    The result is an ordinary Keras model with the same inputs, those that nobody
    reads any more included (but not the named ones that matter in training alone,
    such as a position that only `PositionBias` reads), and the same outputs by the
    keys of their dict, so that clients need not change (Keras names outputs that
    are no dict after the layer that gives them, and that layer may be another). It
    can be saved, trained on, exported and folded again; the model given is left as
    it is.

    Args:
        model: A built Functional or Sequential model.
        inputs: Rows to prove equality on, structured like the model's input.
            Defaults to rows made up from the inputs' shapes and types.
        tolerance: Largest difference allowed per output, relative to the output
            where that exceeds 1. Defaults to 1e-5, to 5e-3 where the model
            computes in float16, and to 5e-2 in bfloat16.

    Returns:
        The folded model.

    Raises:
        ValueError: If the model is not Functional or Sequential.
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
        >>> model.count_params(), folded.count_params()
        (357, 176)
    """
    given, model = model, as_functional(model)
    folded = rebuild(given, Facts(record(model)))
    prove(model, folded, made_up_rows(model) if inputs is None else inputs, tolerance)
    return folded


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
    if not is_graph(model) or not isinstance(model.input, dict):
        return model
    graph = record(model)
    if not training_only_inputs(graph):
        return model
    return rebuild(model, Facts(graph, prune=False))
