"""Proof that a folded model computes what the model computed."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import number


class FoldError(ValueError):
    """A folded model whose outputs differ from the model's."""


def prove(
    model: keras.Model, folded: keras.Model, inputs: Any, tolerance: float | None
) -> dict[str, float]:
    """Compares both models on the same rows.

    The folded model may have fewer inputs, and fewer outputs where they are a dict.
    Strings and equal infinities differ by 0, those that are unlike by infinity.

    Args:
        model: The model.
        folded: What was made of it.
        inputs: Rows, as `as_tensors` gives them.
        tolerance: The largest difference allowed, or `None`, that of `rounding`.

    Returns:
        The largest difference per output, relative to the output where that
        exceeds 1.

    Raises:
        FoldError: If an output differs by more than the tolerance or is NaN.
    """
    if tolerance is None:
        tolerance = rounding(model)
    names = [tensor.name for tensor in keras.tree.flatten(model.input)]
    columns = dict(zip(names, keras.tree.flatten(inputs), strict=True))
    kept = keras.tree.map_structure(lambda tensor: columns[tensor.name], folded.input)
    got = _named(model, folded(kept, training=False))
    expected = _named(model, model(inputs, training=False))
    for name in got:
        value = expected[name]
        unknown = 0 if _is_text(value) else int(np.isnan(value).sum())
        if not value.size or unknown:
            raise FoldError(
                "The rows to prove equality on should be at least one, and such that "
                f"the model itself gives no NaN: give others as `inputs`. Received: "
                f"output {name!r} of shape {value.shape} with "
                f"{unknown} NaN"
            )
    worst = {name: difference(got[name], expected[name]) for name in got}
    name = max(worst, key=lambda name: np.nan_to_num(worst[name], nan=np.inf))
    if not worst[name] <= tolerance:
        infinite = np.isinf(worst[name])
        amount = "an infinite amount" if infinite else f"{worst[name]:g}"
        raise FoldError(
            f"The folded model should give the model's outputs within {tolerance:g}. "
            f"Received: output {name!r} differs by {amount}"
        )
    return worst


def as_tensors(symbolic: Any, rows: Any) -> Any:
    """Rows as tensors of a model's input.

    Args:
        symbolic: The model's input.
        rows: Arrays structured like it; of a dict other columns are ignored.

    Raises:
        ValueError: If the rows are structured otherwise.
    """
    names = [*rows.keys()] if hasattr(rows, "keys") else None
    received = type(rows).__name__ if names is None else f"the columns {names}"
    if isinstance(symbolic, dict):
        if names is None or not set(symbolic) <= set(names):
            raise ValueError(
                f"`inputs` should be a dict with the columns {[*symbolic]}. "
                f"Received: {received}"
            )
        return {name: as_tensors(x, rows[name]) for name, x in symbolic.items()}
    if isinstance(symbolic, (list, tuple)):
        if not isinstance(rows, (list, tuple)) or len(rows) != len(symbolic):
            count = f" of {len(rows)}" if isinstance(rows, (list, tuple)) else ""
            raise ValueError(
                f"`inputs` should be a list of {len(symbolic)} arrays. "
                f"Received: {received}{count}"
            )
        return [as_tensors(*pair) for pair in zip(symbolic, rows, strict=True)]
    if isinstance(rows, Mapping):
        raise ValueError(f"`inputs` should be one array. Received: {received}")
    return None if rows is None else ops.convert_to_tensor(rows, symbolic.dtype)


def difference(answer: Any, expected: Any) -> float:
    """The largest difference of two arrays, relative to the expected beyond 1.

    Equal infinities do not differ; others, and an infinity from a number, infinitely.

    Args:
        answer: Numbers, or identifiers: integers or strings, which are the same or not.
        expected: The same.

    Returns:
        The difference; infinite where identifiers differ, NaN where either is NaN or
        the shapes differ.

    Example:
        >>> import numpy as np
        >>> from tfmtl.folding.proof import difference
        >>> difference(np.array([0.5, 11.0]), np.array([0.5, 10.0]))
        0.1
        >>> difference([np.inf], [np.inf]), difference([np.nan], [np.nan])
        (0.0, nan)
    """
    answer, expected = np.asarray(answer), np.asarray(expected)
    if answer.shape != expected.shape:
        return float("nan")
    if expected.dtype.kind in "biuSUO":
        same = answer.astype(object) == expected.astype(object)
        return 0.0 if same.all() else float("inf")
    answer, expected = answer.astype("f8"), expected.astype("f8")
    differs = answer != expected  # equal infinities do not
    answer, expected = answer[differs], expected[differs]
    size = np.where(np.isinf(expected), 1.0, np.abs(expected))
    return float(np.max(np.abs(answer - expected) / np.maximum(size, 1.0), initial=0.0))


def check_tolerance(tolerance: Any) -> None:
    """Raises `ValueError` unless a tolerance is `None` or a number, 0 or more."""
    if tolerance is not None and not number(tolerance) >= 0:
        raise ValueError(
            "`tolerance` should be a number, 0 or more. "
            f"Received: tolerance={tolerance!r}"
        )


def _named(model: keras.Model, outputs: Any) -> dict[str, np.ndarray]:
    if not isinstance(outputs, dict):
        leaves = keras.tree.flatten(outputs)
        outputs = dict(zip(model.output_names, leaves, strict=True))
    flat = {}
    for name, value in outputs.items():
        for k, leaf in enumerate(keras.tree.flatten(value)):
            flat[name if k == 0 else f"{name}[{k}]"] = ops.convert_to_numpy(leaf)
    return flat


def _is_text(values: np.ndarray) -> bool:
    return values.dtype.kind in "OSU"


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
