"""Made-up rows for a model's inputs."""

from typing import Any

import keras
import numpy as np

from tfmtl.folding.graph import record

_UNKNOWN = ("", "unknown", "a b", "übergröße")


def made_up_rows(model: keras.Model, rows: int = 64, seed: int = 0) -> Any:
    """Rows that fit a model's inputs, the same for one seed.

    Numbers are normal, integers 0 or 1, strings a mix of what the look-up that
    reads them knows and of what it does not.

    Args:
        model: A built Functional or Sequential model.
        rows: Number of rows.
        seed: Seed of the values.

    Returns:
        NumPy arrays structured like the model's input; strings as objects.
    """
    generator = np.random.default_rng(seed)
    graph = record(model)
    known: dict[Any, list[str]] = {}
    for call in graph.calls:
        if hasattr(call.operation, "get_vocabulary"):
            words = call.operation.get_vocabulary(include_special_tokens=False)
            for ref in call.inputs:
                known.setdefault(ref, []).extend(str(word) for word in words[:16])

    def column(tensor: keras.KerasTensor, ref: Any) -> np.ndarray:
        shape = (rows, *(size or 1 for size in tensor.shape[1:]))
        if tensor.dtype == "string":
            words = [*known.get(ref, []), *_UNKNOWN]
            return generator.choice(np.array(words, object), shape)
        if "int" in tensor.dtype:
            return generator.integers(0, 2, shape).astype(tensor.dtype)
        return generator.standard_normal(shape).astype(tensor.dtype)

    return keras.tree.map_structure(column, model.input, graph.inputs)
