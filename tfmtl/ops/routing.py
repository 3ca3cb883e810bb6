"""Sub-network routing of Ma et al. (AAAI 2019), as one matrix product."""

from typing import Any

from keras import ops

Tensor = Any


def route_transformation(inputs: Tensor, kernel: Tensor, gates: Tensor) -> Tensor:
    """SNR-Trans: every connection transforms what it passes on.

    ```
    v_i = sum_j z_ij W_ij u_j
    ```

    Args:
        inputs: Lower sub-networks u, shape `(batch, j, d)`.
        kernel: Transformations W, shape `(j, d, i, h)`: the order in which the
            product over all connections is a single matrix product.
        gates: Gates z, shape `(i, j)`.

    Returns:
        Upper sub-networks v, shape `(batch, i, h)`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> u, w = ops.ones((1, 2, 3)), ops.ones((2, 3, 1, 4))
        >>> v = tfmtl.ops.route_transformation(u, w, ops.array([[1.0, 0.0]]))
        >>> v.shape[1:], float(v[0, 0, 0])
        (TensorShape([1, 4]), 3.0)

    Source: Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing
    in Multi-Task Learning", AAAI 2019, SNR-Trans.
    """
    j, d, i, h = kernel.shape
    gated = kernel * ops.transpose(gates)[:, None, :, None]
    flat = ops.reshape(inputs, (-1, j * d))
    routed = ops.matmul(flat, ops.reshape(gated, (j * d, i * h)))
    return ops.reshape(routed, (-1, i, h))


def route_average(inputs: Tensor, gates: Tensor) -> Tensor:
    """SNR-Aver: every connection passes its input on, weighted by its gate.

    ```
    v_i = sum_j z_ij u_j
    ```

    The sum is not divided by the sum of the gates.

    Args:
        inputs: Lower sub-networks u, shape `(batch, j, d)`.
        gates: Gates z, shape `(i, j)`.

    Returns:
        Upper sub-networks v, shape `(batch, i, d)`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> v = tfmtl.ops.route_average(ops.ones((1, 2, 3)), ops.array([[1.0, 0.5]]))
        >>> float(v[0, 0, 0])
        1.5

    Source: Ma et al., AAAI 2019, SNR-Aver.
    """
    return ops.matmul(gates, inputs)
