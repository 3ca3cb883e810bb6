"""Proof that a folded model computes what the model computed."""

from typing import Any

import keras
import numpy as np
from keras import ops


class FoldError(ValueError):
    """A folded model whose outputs differ from the model's."""


def prove(
    model: keras.Model, folded: keras.Model, inputs: Any, tolerance: float | None
) -> dict[str, float]:
    """Compares both models on the same rows.

    The folded model may have fewer inputs, and fewer outputs where they are a dict.

    Returns:
        The largest difference per output, relative to the output where that
        exceeds 1.

    Raises:
        FoldError: If an output differs by more than the tolerance or is NaN.
    """
    if tolerance is None:
        tolerance = rounding(model)
    given = _tensors(model.input, inputs)
    names = [tensor.name for tensor in keras.tree.flatten(model.input)]
    columns = dict(zip(names, keras.tree.flatten(given), strict=True))
    kept = keras.tree.map_structure(lambda tensor: columns[tensor.name], folded.input)
    got = _named(model, folded(kept, training=False))
    expected = _named(model, model(given, training=False))
    for name in got:
        value = expected[name]
        if not value.size or np.isnan(value).any():
            raise FoldError(
                "The rows to prove equality on should be at least one, and such that "
                f"the model itself gives no NaN: give others as `inputs`. Received: "
                f"output {name!r} of shape {value.shape} with "
                f"{int(np.isnan(value).sum())} NaN"
            )
    worst = {name: _difference(expected[name], got[name]) for name in got}
    name = max(worst, key=lambda name: np.nan_to_num(worst[name], nan=np.inf))
    if not worst[name] <= tolerance:
        raise FoldError(
            f"The folded model should give the model's outputs within {tolerance:g}. "
            f"Received: output {name!r} differs by {worst[name]:g}"
        )
    return worst


def _tensors(symbolic: Any, rows: Any) -> Any:
    if isinstance(symbolic, dict):
        return {name: _tensors(tensor, rows[name]) for name, tensor in symbolic.items()}
    if isinstance(symbolic, (list, tuple)):
        return [_tensors(*pair) for pair in zip(symbolic, rows, strict=True)]
    return None if rows is None else ops.convert_to_tensor(rows, symbolic.dtype)


def _named(model: keras.Model, outputs: Any) -> dict[str, np.ndarray]:
    if not isinstance(outputs, dict):
        leaves = keras.tree.flatten(outputs)
        outputs = dict(zip(model.output_names, leaves, strict=True))
    flat = {}
    for name, value in outputs.items():
        for k, leaf in enumerate(keras.tree.flatten(value)):
            flat[name if k == 0 else f"{name}[{k}]"] = ops.convert_to_numpy(leaf)
    return flat


def _difference(expected: np.ndarray, got: np.ndarray) -> float:
    expected, got = expected.astype("f8"), got.astype("f8")
    if expected.shape != got.shape:
        return float("nan")
    scale = np.maximum(np.abs(expected), 1.0)
    return float(np.max(np.abs(expected - got) / scale, initial=0.0))


def rounding(model: keras.Model) -> float:
    """A few rounding steps of the coarsest type that a model computes in.

    Args:
        model: A Keras model.

    Returns:
        A tolerance for differences of its outputs, relative beyond 1.

    Example:
        >>> import keras
        >>> from tfmtl.folding.proof import rounding
        >>> inputs = keras.Input((3,))
        >>> outputs = keras.layers.Dense(1, dtype="mixed_bfloat16")(inputs)
        >>> rounding(keras.Model(inputs, outputs))
        0.05
    """
    types = {layer.compute_dtype for layer in model.layers}
    if "bfloat16" in types:
        return 5e-2
    return 5e-3 if "float16" in types else 1e-5
