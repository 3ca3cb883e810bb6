"""DSelect-k of Hazimeh et al. (NeurIPS 2021): k of n experts by binary codes.

Symbols, shared by every function here: n experts are numbered in m binary digits,
m = ceil(log2 n), the most significant first. `z`, real, stands for m digits, S(z) for
the same between 0 and 1; a *selector* r is n weights, one per expert, of which a single
one is 1 where all digits are 0 or 1. `gamma` > 0 is the width of S.
"""

from typing import Any

import numpy as np
from keras import ops

Tensor = Any

_EPSILON = 1e-6  # of the authors' entropy; also the least sum that is inverted


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """A step from 0 to 1 with a continuous slope, and exact ends.

    ```
    S(t) = 0                                     where t <= -gamma / 2
         = -2 t^3 / gamma^3 + 3 t / (2 gamma) + 1 / 2
         = 1                                     where t >= gamma / 2
    ```

    Args:
        t: Any shape.
        gamma: Width of the part between 0 and 1, > 0.

    Returns:
        S(t) in [0, 1], of `t`'s shape; its slope is 0 where it is 0 or 1.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> s = tfmtl.ops.smooth_step(ops.array([-0.5, 0.0, 0.25, 0.5]), 1.0)
        >>> [float(v) for v in s]
        [0.0, 0.5, 0.84375, 1.0]

    Source: Hazimeh et al., "The Tree Ensemble Layer: Differentiability meets
    Conditional Computation", ICML 2020.
    """
    u = ops.clip(t / gamma + 0.5, 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)  # the same polynomial, never below 0 or above 1


def single_expert_selector(digits: Tensor, num_experts: int) -> Tensor:
    """Weights of the experts by the binary digits of one expert's number.

    ```
    r_e = product over digits j of   s_j        where digit j of e is 1
                                     1 - s_j    where it is 0
    ```

    The weights of all 2^m numbers sum to 1. Those of the first n sum to less where
    the digits stand, wholly or in part, for a number that no expert has.

    Args:
        digits: s in [0, 1], shape `(..., m)`, the most significant digit first.
        num_experts: n, at most 2^m.

    Returns:
        Weights r, shape `(..., n)`; a single 1 where the digits are 0 or 1.

    Raises:
        ValueError: If m digits are too few for n experts.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> r = tfmtl.ops.single_expert_selector(ops.array([1.0, 0.25]), 4)
        >>> [float(v) for v in r]
        [0.0, 0.0, 0.75, 0.25]

    Source: Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of
    Experts with Applications to Multi-Task Learning", NeurIPS 2021: r.
    """
    m = digits.shape[-1]
    if num_experts > 2**m:
        raise ValueError(
            f"`num_experts` should be at most {2**m} with {m} digits. "
            f"Received: num_experts={num_experts}"
        )
    selector = ops.ones_like(ops.sum(digits, axis=-1, keepdims=True))
    for j in range(m):
        is_one = np.arange(num_experts) >> (m - 1 - j) & 1 == 1
        digit = digits[..., j : j + 1]
        selector = selector * ops.where(is_one, digit, 1.0 - digit)
    return selector


def dselect_k(
    alpha: Tensor, z: Tensor, num_experts: int, gamma: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weights of n experts, of which k at most are not 0 once the digits are.

    ```
    q = sum_i softmax(alpha)_i r(S(z^(i))),    i = 1..k
    ```

    The weights sum to 1 where n is a power of two. Otherwise what falls on the
    numbers that no expert has is lost, as in the authors' code:
    `reachability_penalty` keeps it small in training.

    Args:
        alpha: Logits of the k selectors, shape `(..., k)`.
        z: Their digits before the smooth step, shape `(..., k, m)`.
        num_experts: n, at most 2^m.
        gamma: Width of the smooth step, > 0. Defaults to 1.0.

    Returns:
        The weights q, shape `(..., n)`, and the selectors r, `(..., k, n)`.

    Example:
        >>> from keras import ops
        >>> import tfmtl
        >>> z = ops.array([[9.0, 9.0], [-9.0, 9.0]])
        >>> q, r = tfmtl.ops.dselect_k(ops.zeros(2), z, 4)
        >>> [float(v) for v in q]
        [0.0, 0.5, 0.0, 0.5]

    Source: Hazimeh et al., NeurIPS 2021: q.
    """
    selectors = single_expert_selector(smooth_step(z, gamma), num_experts)
    several = alpha.shape[-1] > 1  # Keras warns of a softmax over a single logit
    shares = ops.softmax(alpha, axis=-1) if several else ops.ones_like(alpha)
    return ops.sum(ops.expand_dims(shares, -1) * selectors, axis=-2), selectors


def selector_entropy(selectors: Tensor) -> Tensor:
    """How far selectors are from choosing a single expert.

    ```
    h(r) = -sum_e r_e log(r_e + 1e-6)
    ```

    Args:
        selectors: r, shape `(..., n)`.

    Returns:
        Entropies in nats, shape `(...)`: 0 for a single expert, log n at most.

    Example:
        >>> from keras import ops
        >>> from tfmtl.ops.dselect_k import selector_entropy
        >>> round(float(selector_entropy(ops.array([0.5, 0.5, 0.0, 0.0]))), 4)
        0.6931

    Source: Hazimeh et al., NeurIPS 2021: the entropy regulariser; the constant
    is that of the authors' code.
    """
    return -ops.sum(selectors * ops.log(selectors + _EPSILON), axis=-1)


def reachability_penalty(selectors: Tensor) -> Tensor:
    """Keeps selectors away from numbers that no expert has.

    ```
    1 / sum_e r_e
    ```

    Args:
        selectors: r, shape `(..., n)`, over the experts that there are.

    Returns:
        Penalties, shape `(...)`: 1 where nothing is lost, 1e6 at most, so that a
        selector with nothing on any expert gives no infinite loss.

    Example:
        >>> from keras import ops
        >>> from tfmtl.ops.dselect_k import reachability_penalty
        >>> float(reachability_penalty(ops.array([0.25, 0.25, 0.0])))
        2.0

    Source: the code of Hazimeh et al., NeurIPS 2021.
    """
    return 1.0 / ops.maximum(ops.sum(selectors, axis=-1), _EPSILON)
