"""One score to rank by, from the predictions of several tasks."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfmtl.layers.checks import number

Tensor = Any

_KINDS = ("sum", "product")
_LEAST = 1e-12  # of what is raised to a power


@keras.saving.register_keras_serializable(package="tfmtl")
class ScoreFusion(keras.layers.Layer):
    """A formula over the outputs of tasks.

    ```
    sum       score = sum_k w_k p_k
    product   score = prod_k (p_k + offset)^w_k
    input {task: (batch, 1)}, output (batch, 1)
    ```

    The weights are chosen, not trained. Computed in float32. What is less than 1e-12 in
    a product, `p_k + offset`, counts as 1e-12: a negative regression has no power.

    Args:
        weights: w_k by task name.
        kind: `"sum"` or `"product"`. Defaults to `"sum"`.
        offset: Added to each prediction of a product, at least 0. Defaults to 0.0.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an argument does not fit, or an input lacks a task or is wider.

    Example:
        >>> import keras, tfmtl
        >>> click, like = keras.ops.array([[0.5]]), keras.ops.array([[0.1]])
        >>> fusion = tfmtl.layers.ScoreFusion({"click": 1.0, "like": 10.0})
        >>> float(fusion({"click": click, "like": like})[0, 0])
        1.5

    Source: the weighted multiplication of Zhao et al., "Recommending What Video to
    Watch Next", RecSys 2019, section 4.1.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        kind: str = "sum",
        offset: float = 0.0,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        given = weights.values() if isinstance(weights, Mapping) else ()
        if not given or not all(math.isfinite(number(weight)) for weight in given):
            raise ValueError(
                "`weights` should be a dict of finite numbers by task name. "
                f"Received: weights={weights!r}"
            )
        if kind not in _KINDS:
            raise ValueError(
                f"`kind` should be one of {_KINDS}. Received: kind={kind!r}"
            )
        if not 0 <= number(offset) < math.inf:
            raise ValueError(
                f"`offset` should be at least 0. Received: offset={offset!r}"
            )
        self.fusion_weights = {task: float(w) for task, w in weights.items()}
        self.kind = kind
        self.offset = float(offset)

    def build(self, input_shape: Any) -> None:
        """Checks that there is a prediction of width 1 for each weight."""
        names = sorted(input_shape) if isinstance(input_shape, Mapping) else input_shape
        if not set(self.fusion_weights) <= set(names):
            raise ValueError(
                "ScoreFusion should be called on a dict of predictions, with those of "
                f"{sorted(self.fusion_weights)}. Received: {names}"
            )
        wide = {
            task: tuple(input_shape[task])
            for task in self.fusion_weights
            if tuple(input_shape[task])[1:] != (1,)
        }
        if wide:
            raise ValueError(
                "ScoreFusion should be called on predictions of shape (batch, 1). "
                f"Received: shapes={wide}"
            )
        self.built = True

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the score, `(batch, 1)`."""
        if self.kind == "sum":
            return sum(w * inputs[task] for task, w in self.fusion_weights.items())
        return math.prod(
            ops.power(ops.maximum(inputs[task] + self.offset, _LEAST), w)
            for task, w in self.fusion_weights.items()
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of a prediction."""
        return input_shape[next(iter(self.fusion_weights))]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "weights": self.fusion_weights,
            "kind": self.kind,
            "offset": self.offset,
        }
