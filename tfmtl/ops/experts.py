"""A stack of experts that share one kernel tensor."""

from typing import Any

from keras import ops

Tensor = Any


def experts(inputs: Tensor, kernel: Tensor) -> Tensor:
    """Applies expert e's own kernel: to the one input, or to slot e of a stack.

    ```
    y_e = x K_e        inputs (batch, d): all experts read the same x
    y_e = x_e K_e      inputs (batch, e, d): one input each
    ```

    Args:
        inputs: `(batch, d)` or `(batch, e, d)`.
        kernel: One kernel per expert, shape `(e, d, h)`.

    Returns:
        Expert outputs, shape `(batch, e, h)`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> y = tfmtl.ops.experts(ops.ones((5, 3)), ops.ones((2, 3, 4)))
        >>> tuple(y.shape)
        (5, 2, 4)

    Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts", KDD 2018, the experts f_i of eq. 6.
    """
    e, d, h = kernel.shape
    if len(inputs.shape) == 2:
        side_by_side = ops.reshape(ops.transpose(kernel, (1, 0, 2)), (d, e * h))
        return ops.reshape(ops.matmul(inputs, side_by_side), (-1, e, h))
    return ops.einsum("bed,edh->beh", inputs, kernel)
