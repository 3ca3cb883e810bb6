"""The hard-concrete gate of Louizos et al. (ICLR 2018).

Symbols, shared by every function here: `log_alpha` is the learnable location of
a gate, `beta` > 0 its temperature, and (`gamma`, `zeta`), with gamma < 0 and
zeta > 1, the interval to which the concrete variable is stretched before it is
clipped to [0, 1]. Clipping is what gives exact zeros and exact ones.
"""

import math
from typing import Any

from keras import ops

Tensor = Any


def hard_concrete_sample(
    log_alpha: Tensor, uniform: Tensor, beta: float, gamma: float, zeta: float
) -> Tensor:
    """Draws gates for a training step.

    ```
    s = sigmoid((log u - log(1 - u) + log_alpha) / beta)
    z = min(1, max(0, s (zeta - gamma) + gamma))
    ```

    Args:
        log_alpha: Location of each gate, any shape.
        uniform: Draws from U(0, 1), strictly inside, of the same shape.
        beta: Temperature; it divides the whole sum.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Returns:
        Gates in [0, 1], of `log_alpha`'s shape.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> z = tfmtl.ops.hard_concrete_sample(
        ...     ops.array([0.0]), ops.array([0.5]), 2 / 3, -0.1, 1.1
        ... )
        >>> round(float(z[0]), 6)
        0.5

    Source: Louizos et al., "Learning Sparse Neural Networks through L0
    Regularization", ICLR 2018, eq. 10-11.
    """
    noise = ops.log(uniform) - ops.log1p(-uniform)
    return _stretch_and_clip(ops.sigmoid((noise + log_alpha) / beta), gamma, zeta)


def hard_concrete(log_alpha: Tensor, gamma: float, zeta: float) -> Tensor:
    """The gate without noise, for evaluation and serving.

    ```
    z = min(1, max(0, sigmoid(log_alpha) (zeta - gamma) + gamma))
    ```

    Args:
        log_alpha: Location of each gate, any shape.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Returns:
        Gates in [0, 1], of `log_alpha`'s shape; exactly 0 where `log_alpha` is
        at or below `closed_below(gamma, zeta)`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> z = tfmtl.ops.hard_concrete(ops.array([-3.0, 0.0, 3.0]), -0.1, 1.1)
        >>> [round(float(v), 6) for v in z]
        [0.0, 0.5, 1.0]

    Source: Louizos et al., ICLR 2018, eq. 13 (no temperature, no noise).
    """
    return _stretch_and_clip(ops.sigmoid(log_alpha), gamma, zeta)


def open_probability(
    log_alpha: Tensor, beta: float, gamma: float, zeta: float
) -> Tensor:
    """P(z != 0) of a training draw: the L0 penalty of one gate.

    ```
    P(z != 0) = sigmoid(log_alpha - beta log(-gamma / zeta))
    ```

    Args:
        log_alpha: Location of each gate, any shape.
        beta: Temperature.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Returns:
        Probabilities, of `log_alpha`'s shape.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> p = tfmtl.ops.open_probability(ops.array([0.3]), 2 / 3, -0.1, 1.1)
        >>> round(float(p[0]), 4)
        0.8697

    Source: Louizos et al., ICLR 2018, eq. 12.
    """
    return ops.sigmoid(log_alpha - beta * math.log(-gamma / zeta))


def fully_open_probability(
    log_alpha: Tensor, beta: float, gamma: float, zeta: float
) -> Tensor:
    """P(z = 1) of a training draw.

    ```
    P(z = 1) = sigmoid(log_alpha - beta log((1 - gamma) / (zeta - 1)))
    ```

    Args:
        log_alpha: Location of each gate, any shape.
        beta: Temperature.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Returns:
        Probabilities, of `log_alpha`'s shape.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> p = tfmtl.ops.fully_open_probability(ops.array([0.0]), 2 / 3, -0.1, 1.1)
        >>> round(float(p[0]), 4)
        0.1682

    Source: the same distribution as Louizos et al., ICLR 2018, eq. 12, at 1.
    """
    return ops.sigmoid(log_alpha - beta * math.log((1.0 - gamma) / (zeta - 1.0)))


def closed_below(gamma: float, zeta: float) -> float:
    """The `log_alpha` at and below which the gate without noise is exactly 0.

    ```
    sigmoid(log_alpha) <= -gamma / (zeta - gamma)  <=>  log_alpha <= log(-gamma / zeta)
    ```

    Args:
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Returns:
        The threshold, in units of `log_alpha`.

    Example:
        >>> import tfmtl
        >>> round(tfmtl.ops.closed_below(-0.1, 1.1), 3)
        -2.398

    Source: Louizos et al., ICLR 2018, eq. 13 solved for 0.
    """
    return math.log(-gamma / zeta)


def _stretch_and_clip(s: Tensor, gamma: float, zeta: float) -> Tensor:
    return ops.clip(s * (zeta - gamma) + gamma, 0.0, 1.0)
