"""The effect of where an item was shown, learned apart from its merit."""

from typing import Any

import keras
from keras import ops

from tfmtl.layers.checks import positive_int, share

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class PositionBias(keras.layers.Layer):
    """A logit of the position, to add to a task's logit.

    ```
    training    bias[position], or bias[missing] for a share `dropout` of examples
    otherwise   bias[missing], whatever the position
    input (batch, 1) integers, output (batch, 1) float32
    ```

    The position explains a part of the clicks in training; when serving there is
    none yet, so that evaluation and serving take it as missing, and an exported
    model has no such input. A position outside `0 … num_positions - 1` is missing.
    All biases start at 0.

    Args:
        num_positions: Number of positions.
        dropout: Share of examples whose position is taken as missing in training.
            Defaults to 0.1.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument or the input's shape does not fit.

    Example:
        >>> import keras, tfmtl
        >>> bias = tfmtl.layers.PositionBias(10)(keras.ops.array([[0], [3]]))
        >>> tuple(bias.shape)
        (2, 1)

    Source: Zhao et al., "Recommending What Video to Watch Next: A Multitask Ranking
    System", RecSys 2019, section 4.3.
    """

    def __init__(self, num_positions: int, dropout: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False  # a position is no number to round
        self.num_positions = positive_int("num_positions", num_positions)
        self.dropout = share("dropout", dropout)
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: Any) -> None:
        """Creates a bias for each position, the first for a missing one."""
        if len(input_shape) != 2 or input_shape[1] != 1:
            raise ValueError(
                "PositionBias should be called on positions of shape (batch, 1). "
                f"Received: shape={tuple(input_shape)}"
            )
        self.bias = self.add_weight(
            name="bias",
            shape=(self.num_positions + 1, 1),
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the logits, `(batch, 1)`, float32."""
        positions = ops.cast(inputs[:, 0], "float32")
        row = ops.zeros_like(positions)
        if training:
            known = (positions >= 0) & (positions < self.num_positions)
            draw = keras.random.uniform(ops.shape(positions), seed=self.seed_generator)
            row = ops.where(known & (draw >= self.dropout), positions + 1, row)
        return ops.take(self.bias, ops.cast(row, "int32"), axis=0)

    def compute_output_spec(
        self, inputs: Tensor, training: bool | None = None
    ) -> keras.KerasTensor:
        """`(batch, 1)`, float32."""
        return keras.KerasTensor((inputs.shape[0], 1), "float32")

    @property
    def training_only(self) -> bool:
        """Whether the input matters in training alone."""
        return True

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "num_positions": self.num_positions,
            "dropout": self.dropout,
        }
