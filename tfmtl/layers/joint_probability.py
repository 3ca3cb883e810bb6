"""The probability of a step of a funnel, over all exposures."""

from typing import Any

import keras

from tfmtl.ops import joint_probability

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class JointProbability(keras.layers.Layer):
    """Multiplies a step's probability with that of the next one, given the step.

    ```
    P(both) = P(first) P(second | first)
    inputs [(batch, 1), (batch, 1)], output (batch, 1)
    ```

    Where both come from sigmoids, a loss of the product is computed from their
    logits, stable for any of them.

    Args:
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the inputs are not two of one shape.

    Example:
        >>> import keras, tfmtl
        >>> click, purchase = keras.ops.array([[0.5]]), keras.ops.array([[0.25]])
        >>> float(tfmtl.layers.JointProbability()([click, purchase])[0, 0])
        0.125

    Source: Ma et al., "Entire Space Multi-Task Model: An Effective Approach for
    Estimating Post-Click Conversion Rate", SIGIR 2018, eq. 1.
    """

    def build(self, input_shape: Any) -> None:
        """Checks that there are two probabilities of one shape."""
        several = all(isinstance(shape, tuple | list) for shape in input_shape)
        shapes = [tuple(shape) for shape in input_shape] if several else [input_shape]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ValueError(
                "JointProbability should be called on two probabilities of one shape. "
                f"Received: shapes={shapes}"
            )
        self.built = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Returns the product."""
        first, second = inputs
        return joint_probability(first, second)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of either input."""
        return input_shape[0]
