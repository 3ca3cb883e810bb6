"""Mixtures of experts: weights from a gate, and the sums they weigh."""

from typing import Any

from keras import ops

Tensor = Any

_CLOSED = -1e9  # as a logit: exp gives exactly 0 beside any open pair


def gate_weights(logits: Tensor, z: Tensor | None = None) -> Tensor:
    """Softmax over open pairs, each counted as far as it is open.

    ```
    g_te = z_te exp(l_te) / sum_e' z_te' exp(l_te')
    ```

    A closed pair, z = 0, has weight 0 exactly, and so has every pair of a row in
    which all are closed. With all z = 1 it is the softmax.

    Args:
        logits: l, shape `(batch, outputs, experts)`.
        z: Openness in [0, 1], of a shape that broadcasts to that of `logits`.
            Defaults to `None`, all 1.

    Returns:
        Weights g, shape `(batch, outputs, experts)`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> z = ops.array([[1.0, 1.0, 0.0]])
        >>> g = tfmtl.ops.gate_weights(ops.zeros((1, 1, 3)), z)
        >>> [float(v) for v in g[0, 0]]
        [0.5, 0.5, 0.0]

    Source: Ma et al., KDD 2018 (MMoE), eq. 7, with the gates of Louizos et al.,
    ICLR 2018, on its pairs; renormalised as in Zhao et al., "Recommending What
    Video to Watch Next", RecSys 2019, section 5.3.
    """
    if z is not None:
        logits = logits + log_openness(z)
    if logits.shape[-1] == 1:  # Keras warns of a softmax over one value
        weights = ops.ones_like(logits)
    else:
        weights = ops.softmax(logits, axis=-1)
    if z is None:
        return weights
    reads = ops.any(z > 0, axis=-1, keepdims=True)
    return ops.where(reads, weights, ops.zeros_like(weights))


def log_openness(z: Tensor) -> Tensor:
    """log z, and so low a number for z = 0 that a softmax gives exactly 0 for it.

    Args:
        z: Openness in [0, 1], of any shape.

    Returns:
        What is added to the logits, of `z`'s shape.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> [float(v) for v in tfmtl.ops.log_openness(ops.array([1.0, 0.0]))]
        [0.0, -1000000000.0]
    """
    is_open = z > 0
    log_z = ops.log(ops.where(is_open, z, ops.ones_like(z)))
    return ops.where(is_open, log_z, ops.full_like(log_z, _CLOSED))


def mixture(weights: Tensor, experts: Tensor) -> Tensor:
    """Sums experts, weighted for each output and example.

    ```
    f_t = sum_e g_te f_e
    ```

    Args:
        weights: g, shape `(batch, outputs, experts)`.
        experts: f_e, shape `(batch, experts, d)`.

    Returns:
        Mixtures f_t, shape `(batch, outputs, d)`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> g, f = ops.array([[[0.25, 0.75]]]), ops.array([[[4.0], [8.0]]])
        >>> float(tfmtl.ops.mixture(g, f)[0, 0, 0])
        7.0

    Source: Ma et al., KDD 2018 (MMoE), eq. 6.
    """
    return ops.matmul(weights, experts)
