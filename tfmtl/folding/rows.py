"""Made-up rows for a model's inputs."""

from typing import Any

import keras
import numpy as np

from tfmtl.folding.graph import record

_UNKNOWN = ("", "unknown", "a b", "übergröße")
_SEVERAL = 3
_HASHED = 64


def made_up_rows(model: keras.Model, rows: int = 64, seed: int = 0) -> Any:
    """Rows that fit a model's inputs, the same for one seed.

    Numbers are normal; strings and ids a mix of what the look-up that reads them
    knows and of what it does not, several to a row where the width is free; ids that
    are hashed any, missing ones among them; other integers 0 or 1.

    Args:
        model: A built Functional or Sequential model.
        rows: Number of rows.
        seed: Seed of the values.

    Returns:
        NumPy arrays structured like the model's input; strings as objects.
    """
    generator = np.random.default_rng(seed)
    graph = record(model)
    known: dict[Any, list[Any]] = {}
    source: dict[Any, Any] = {}  # the tensor that one was made of, and no other
    for call in graph.calls:
        if hasattr(call.operation, "get_vocabulary"):
            words = call.operation.get_vocabulary(include_special_tokens=False)
            for ref in call.inputs:
                known.setdefault(source.get(ref, ref), []).extend(words[:16])
        elif getattr(call.operation, "takes_any_id", False):
            ids = [-1, *generator.integers(0, 2**40, _HASHED).tolist()]
            for ref in call.inputs:
                known.setdefault(source.get(ref, ref), []).extend(ids)
        elif len(call.inputs) == 1:
            [read] = call.inputs
            source |= dict.fromkeys(call.results, source.get(read, read))

    def column(tensor: keras.KerasTensor, ref: Any) -> np.ndarray:
        free = _SEVERAL if ref in known else 1
        shape = (rows, *(size or free for size in tensor.shape[1:]))
        if tensor.dtype == "string":
            words = [*map(str, known.get(ref, [])), *_UNKNOWN]
            return generator.choice(np.array(words, object), shape)
        if "int" in tensor.dtype:
            ids = [*known.get(ref, []), 0, 1]
            return generator.choice(np.array(ids, tensor.dtype), shape)
        return generator.standard_normal(shape).astype(tensor.dtype)

    return keras.tree.map_structure(column, model.input, graph.inputs)
