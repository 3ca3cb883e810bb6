"""From what a tower computes to what a task predicts, and back for a loss."""

from typing import Any

import keras
from keras import ops

Tensor = Any

_LARGEST = 30.0  # exp(30) is 1e13: no watch time or count, and no infinity
_SMALLEST = 1e-7  # of a probability whose logit is not known


@keras.saving.register_keras_serializable(package="tfmtl")
def positive(x: Tensor) -> Tensor:
    """A number greater than 0: `exp(x)`, with x kept in [-30, 30].

    Args:
        x: Of any shape.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> float(tfmtl.ops.positive(ops.array(0.0)))
        1.0
    """
    return ops.exp(ops.clip(x, -_LARGEST, _LARGEST))


@keras.saving.register_keras_serializable(package="tfmtl")
def exceedance(x: Tensor) -> Tensor:
    """Probabilities that an ordered label exceeds each of its levels but the last.

    ```
    P(y > k) = sigmoid(l_k),  l_0 = x_0,  l_k = l_{k-1} - softplus(x_k)
    ```

    They never rise with k, whatever x.

    Args:
        x: Shape `(batch, levels - 1)`.

    Returns:
        P(y > k) for k = 0 … levels - 2, of the same shape.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> p = tfmtl.ops.exceedance(ops.array([[0.0, 0.0]]))
        >>> [round(float(v), 4) for v in p[0]]
        [0.5, 0.3333]

    Source: McCullagh, "Regression Models for Ordinal Data", 1980, the cumulative
    logits; ordered in every example by construction.
    """
    steps = ops.cumsum(ops.softplus(x[:, 1:]), axis=1)
    return ops.sigmoid(ops.concatenate([x[:, :1], x[:, :1] - steps], axis=1))


def logit_of(p: Tensor) -> Tensor:
    """The logit of a probability: exactly that of the sigmoid that gave it, if known.

    Keras notes on the result of a sigmoid what it was given, for losses to be stable
    where the probability rounds to 0 or 1. Without that, p is kept 1e-7 away from both.

    Args:
        p: Probabilities, of any shape.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> round(float(tfmtl.ops.logit_of(ops.array(0.75))), 4)
        1.0986
    """
    logit = getattr(p, "_keras_logits", None)
    if logit is not None:
        return ops.cast(logit, p.dtype)
    p = ops.clip(p, _SMALLEST, 1 - _SMALLEST)
    return ops.log(p) - ops.log1p(-p)


def log_loss(labels: Tensor, p: Tensor) -> Tensor:
    """Cross-entropy of probabilities, entry by entry, from their logits.

    ```
    -y log p - (1 - y) log(1 - p) = softplus(l) - y l,  l the logit of p
    ```

    Args:
        labels: y in [0, 1], of p's shape.
        p: Probabilities.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> p = ops.sigmoid(ops.array([50.0]))
        >>> float(tfmtl.ops.log_loss(ops.array([0.0]), p)[0])
        50.0
    """
    logit = logit_of(p)
    return ops.softplus(logit) - ops.cast(labels, logit.dtype) * logit


def joint_probability(p: Tensor, conditional: Tensor) -> Tensor:
    """The probability that both of two steps are taken, with its logit noted.

    ```
    P(both) = P(first) P(second | first)
    logit   = -log(exp(-a) + exp(-b) + exp(-a - b)),  a and b the logits of the two
    ```

    Args:
        p: P(first), of any shape.
        conditional: P(second | first), of the same shape.

    Returns:
        Their product; a loss finds its logit as that of any sigmoid's result.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> both = tfmtl.ops.joint_probability(ops.array([0.5]), ops.array([0.25]))
        >>> float(both[0])
        0.125

    Source: Ma et al., "Entire Space Multi-Task Model", SIGIR 2018, eq. 1; the logit
    follows from 1/p - 1 of the product.
    """
    a, b = logit_of(p), logit_of(conditional)
    product = p * conditional
    try:
        product._keras_logits = -ops.logsumexp(ops.stack([-a, -b, -a - b]), axis=0)
    except AttributeError:  # tensors of JAX take no notes
        pass
    return product
