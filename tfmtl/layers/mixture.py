"""Experts mixed by the weights of a gate."""

from typing import Any

import keras
import numpy as np

from tfmtl.layers.static_mixture import StaticMixture
from tfmtl.ops import mixture

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class Mixture(keras.layers.Layer):
    """Sums of experts, weighted for each output and example.

    ```
    f_t = sum_e g_te f_e
    inputs [experts (batch, e, d), weights (batch, t, e)], output (batch, t, d)
    ```

    The weights come from a gate: `SoftmaxGate`, `DSelectKGate`, or a layer of your
    own. Being a tensor of the model, they can be looked at as any other output.

    Args:
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the weights are not one for each expert.

    Example:
        >>> import keras, tfmtl
        >>> x = keras.Input((3,))
        >>> experts = tfmtl.layers.Experts(4, 8)(x)
        >>> weights = tfmtl.layers.SoftmaxGate(2, 4)(x)
        >>> tfmtl.layers.Mixture()([experts, weights]).shape
        (None, 2, 8)

    Source: Ma et al., KDD 2018 (MMoE), eq. 6.
    """

    def build(self, input_shape: Any) -> None:
        """Checks that there is a weight for each expert."""
        several = all(isinstance(shape, tuple | list) for shape in input_shape)
        shapes = list(input_shape) if several else [input_shape]
        fits = [len(shape) for shape in shapes] == [3, 3]
        if not fits or shapes[0][1] != shapes[1][2]:
            raise ValueError(
                "Mixture should be called on [experts, weights] of shapes "
                "(batch, experts, d) and (batch, outputs, experts). "
                f"Received: shapes={[tuple(shape) for shape in shapes]}"
            )
        (_, self.num_experts, self.width), (_, self.num_outputs, _) = shapes
        self.built = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Returns the mixtures, `(batch, t, d)`."""
        experts, weights = inputs
        return mixture(weights, experts)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, Any, Any]:
        """`(batch, t, d)`."""
        experts, weights = input_shape
        return (experts[0], weights[1], experts[2])

    def expert_reads(self, open_pairs: np.ndarray) -> np.ndarray:
        """Which experts each output reads, `(t, e)`: those of its open pairs."""
        return open_pairs

    def fold_static(self, weights: np.ndarray) -> keras.layers.Layer:
        """A layer of the experts alone, where the weights are constants `(t, e)`."""
        return StaticMixture.of(
            weights,
            self.width,
            name=self.name,
            dtype=self.dtype_policy,
            trainable=False,  # they stay what the gate gave
        )

    def flops(self) -> int:
        """Floating-point operations of the sums, per example."""
        return 2 * self.num_outputs * self.num_experts * self.width
