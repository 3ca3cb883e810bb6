"""The small optimisation problems of the methods, on unit gradients.

Shared symbols: C, `cosines`, is the Gram matrix of T unit gradients, positive
semidefinite with a diagonal of 1; y are weights of the unit gradients. Where a task is
bought at a price, w_i = a_i y_i is its weight in a convex combination of gradients of
length 1 / a_i. A singular C gets a ridge of `ridge(dtype)`, which moves a combined unit
gradient by at most half the root of it: 3e-6 in float64, 2.5e-3 in float32, where the
rounding of C moves it as far.
"""

from typing import Any

import numpy as np
from keras import backend, ops

Tensor = Any


def epsilon(dtype: Any) -> float:
    """The relative rounding of a floating type."""
    return float(np.finfo(backend.standardize_dtype(dtype)).eps)


def ridge(dtype: Any) -> float:
    """What is added to the diagonal of a C that may be singular."""
    return epsilon(dtype) ** (2 / 3)


def quotient(x: Any, y: Tensor) -> Tensor:
    """x / y, and 0 where y is not above 0."""
    above = y > 0
    return ops.where(above, x / ops.where(above, y, 1.0), 0.0)


def ridged(cosines: Tensor) -> Tensor:
    """C + ridge I."""
    dtype = cosines.dtype
    return cosines + ridge(dtype) * ops.eye(cosines.shape[0], dtype=dtype)


def nonnegative_minimum(matrix: Tensor, linear: Tensor) -> Tensor:
    """The least of ½ xᵀ M x + qᵀ x over x ≥ 0, for several q at once.

    Block principal pivoting: guess which x are above 0, solve for them, exchange all
    whose sign is wrong; where that stops helping, only the last of them, which cannot
    cycle.

    Args:
        matrix: M, `(n, n)`, positive definite.
        linear: q, `(problems, n)`.

    Returns:
        x, `(problems, n)`.

    Example:
        >>> import keras
        >>> from tfmtl.balancing.solvers import nonnegative_minimum
        >>> matrix = keras.ops.array([[2.0, 1.0], [1.0, 2.0]])
        >>> linear = keras.ops.array([[-2.0, -2.0], [-2.0, 1.0]])
        >>> print(nonnegative_minimum(matrix, linear).numpy().round(3))
        [[0.667 0.667]
         [1.    0.   ]]

    Source: Kim and Park, "Fast Nonnegative Matrix Factorization", SIAM Journal on
    Scientific Computing 2011, section 3.
    """
    problems, n = linear.shape
    one = ops.eye(n, dtype=matrix.dtype)
    place = ops.arange(n, dtype="int32")
    rounding = 10 * n * epsilon(matrix.dtype)

    def solved(above: Tensor) -> Tensor:
        both = ops.logical_and(above[:, :, None], above[:, None, :])
        system = ops.where(both, matrix, one)
        right = ops.where(above, -linear, 0.0)
        return ops.solve(system, right[:, :, None])[:, :, 0]

    def wrong_signs(above: Tensor) -> Tensor:
        x = solved(above)
        slope = ops.matmul(x, matrix) + linear
        size = ops.max(ops.abs(matrix)) * ops.sum(ops.abs(x), axis=1, keepdims=True)
        size = size + ops.max(ops.abs(linear), axis=1, keepdims=True)
        return ops.where(above, x < 0, slope < -rounding * size)

    def unfinished(step: Tensor, above: Tensor, wrong: Tensor, *_: Tensor) -> Tensor:
        return ops.logical_and(step < 10 * n, ops.any(wrong))

    def exchange(
        step: Tensor, above: Tensor, wrong: Tensor, fewest: Tensor, chances: Tensor
    ) -> tuple[Tensor, ...]:
        count = ops.sum(ops.cast(wrong, "int32"), axis=1)
        better = count < fewest
        chances = ops.where(better, 3, chances - 1)
        last = ops.max(ops.where(wrong, place, -1), axis=1, keepdims=True)
        all_of_them = chances[:, None] >= 0
        swap = ops.logical_and(wrong, ops.logical_or(all_of_them, place == last))
        above = ops.logical_xor(above, swap)
        return step + 1, above, wrong_signs(above), ops.minimum(count, fewest), chances

    above = ops.zeros((problems, n), dtype="bool")
    counts = ops.full((problems,), n + 1, dtype="int32")
    start = (ops.zeros((), "int32"), above, linear < 0, counts, ops.zeros_like(counts))
    above = ops.while_loop(unfinished, exchange, start)[1]
    return ops.where(above, ops.maximum(solved(above), 0.0), 0.0)


def shortest(cosines: Tensor, prices: Tensor) -> Tensor:
    """The least of yᵀ C y over y ≥ 0 with a · y = 1: the hull's point nearest to 0.

    It is x / (a · x) for the least of ½ xᵀ (C + a aᵀ) x − a · x over x ≥ 0.

    Args:
        cosines: C, `(T, T)`.
        prices: a, `(T,)`, the largest 1; 0 for an absent task.

    Returns:
        y, `(T,)`; 0 for absent tasks.
    """
    matrix = ridged(cosines) + prices[:, None] * prices
    x = nonnegative_minimum(matrix, -prices[None])[0]
    return quotient(x, ops.sum(prices * x))


def dual_cone(cosines: Tensor) -> Tensor:
    """Projections of the unit gradients on the vectors at odds with none of them.

    Row i is the least of yᵀ C y over y ≥ e_i.

    Args:
        cosines: C, `(T, T)`.

    Returns:
        y of each unit gradient, `(T, T)`.
    """
    one = ops.eye(cosines.shape[0], dtype=cosines.dtype)
    return one + nonnegative_minimum(ridged(cosines), cosines)


def worst_case(
    cosines: Tensor, slopes: Tensor, prices: Tensor, radius: Tensor
) -> Tensor:
    """The step of a given length that helps the task that a start helps least.

    The greatest min_i (b_i + u_i · Σ_j y_j u_j) / a_i over yᵀ C y ≤ r², y ≥ 0. For a
    level μ of that minimum, the shortest such step is the least of
    ½ yᵀ C y + (b − μ a) · y over y ≥ 0. Its length is convex in μ, with the slope
    a · y / length, so that Newton's method from a level too high falls to the one of
    length r.

    Args:
        cosines: C, `(T, T)`.
        slopes: b, `(T,)`, u_i · start.
        prices: a, `(T,)`, the largest 1; 0 for an absent task.
        radius: r, a scalar.

    Returns:
        y, `(T,)`.
    """
    matrix = ridged(cosines)

    def step(level: Tensor) -> Tensor:
        return nonnegative_minimum(matrix, (slopes - level * prices)[None])[0]

    def length(y: Tensor) -> Tensor:
        return ops.sqrt(ops.maximum(ops.sum(ops.matmul(matrix, y) * y), 0.0))

    def unfinished(level: Tensor, y: Tensor) -> Tensor:
        return ops.abs(length(y) - radius) > ridge(y.dtype) * radius

    def newton(level: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        excess = length(y) * (length(y) - radius)
        level = level - quotient(excess, ops.sum(prices * y))
        return level, step(level)

    levels = quotient(slopes + radius, prices)
    level = ops.min(ops.where(prices > 0, levels, ops.max(levels)))
    start, limit = (level, step(level)), 2 * cosines.shape[0] + 10
    y = ops.while_loop(unfinished, newton, start, maximum_iterations=limit)[1]
    return quotient(radius * y, length(y))


def bargain(cosines: Tensor, iterations: int) -> Tensor:
    """The y > 0 with (C y)_i = 1 / y_i, the least of ½ yᵀ C y − Σ_i log y_i.

    Newton's method, damped as for any self-concordant function; each step ends at the
    best multiple of where it went, the one with yᵀ C y = T.

    Args:
        cosines: C, `(T, T)`.
        iterations: Most steps.

    Returns:
        y, `(T,)`.
    """
    matrix = ridged(cosines)
    one = ops.eye(cosines.shape[0], dtype=cosines.dtype)

    def rescaled(y: Tensor) -> Tensor:
        square = ops.sum(ops.matmul(matrix, y) * y)
        return y * ops.sqrt(quotient(cosines.shape[0], square))

    def newton(y: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        hessian = y[:, None] * matrix * y + one
        slope = 1.0 - y * ops.matmul(matrix, y)
        relative = ops.solve(hessian, slope[:, None])[:, 0]
        decrement = ops.sqrt(ops.maximum(ops.sum(slope * relative), 0.0))
        damping = ops.where(decrement > 0.25, 1.0 + decrement, 1.0)
        return rescaled(y * (1.0 + relative / damping)), decrement

    def unfinished(y: Tensor, decrement: Tensor) -> Tensor:
        return decrement > 10 * epsilon(y.dtype)

    start = (rescaled(ops.diagonal(one)), ops.ones((), cosines.dtype))
    return ops.while_loop(unfinished, newton, start, maximum_iterations=iterations)[0]
