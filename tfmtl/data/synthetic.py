"""Synthetic tasks with a chosen correlation (Ma et al., MMoE, KDD 2018, §4).

Tasks are made from a `task_seed`, examples from a `seed`: the training and the
test set of the same tasks are two calls that differ in `seed` alone.
"""

from typing import Literal, NamedTuple

import numpy as np

NUM_SINES = 10  # m; α_i = i and β_i = i² for i = 1 … m.
NOISE_STDDEV = 0.1  # ε ~ N(0, .01), read as a variance of .01.

# Median of z + Σ sin(iz + i²) + ε for z ~ N(0, 1): the same for every task, since
# every weight vector is a unit vector. Found by bisection on the distribution
# function, integrated over z.
POPULATION_MEDIAN = 0.157469

_SINGULAR = 1e-6  # A smaller pivot is a zero pivot: correlation at its limit.


class SyntheticData(NamedTuple):
    """Features and labels, as Keras and `tfmtl.data.batches` take them.

    Attributes:
        features: `{"x": (n, d) float32}`, standard normal.
        labels: `{"task_1": (n, 1) float32, …}`, one per task.
    """

    features: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def make_tasks(
    num_examples: int,
    *,
    num_features: int = 100,
    num_tasks: int = 2,
    correlation: float = 0.5,
    kind: Literal["binary", "regression"] = "binary",
    task_seed: int = 0,
    seed: int = 0,
) -> SyntheticData:
    """Draws examples of tasks whose weight vectors have a chosen cosine.

    `y_k = z_k + Σ_{i=1..10} sin(i z_k + i²) + ε_k` with `z_k = w_k·x`,
    `x ~ N(0, I)` and `ε_k ~ N(0, .01)`, after Ma et al., *Modeling Task
    Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts*, KDD
    2018, §4. Not in the paper: the constants `c = 1`, `m = 10`, `α_i = i`,
    `β_i = i²` (taken from a later public generator of its authors' company), more
    than two tasks, and the binary labels.

    The cosine of the weights is not the correlation of the labels, which the sines
    make smaller, but which grows with it.

    Args:
        num_examples: Number of examples, n.
        num_features: Number of features, d, at least `num_tasks`.
        num_tasks: Number of tasks, T.
        correlation: Cosine of every two tasks' weight vectors, from
            `-1 / (num_tasks - 1)` to 1.
        kind: `"regression"` for `y_k` itself; `"binary"` for 1 where `y_k` is
            above its population median, else 0. The threshold is a constant, not
            the sample's, so all sets of one task share one concept.
        task_seed: Seed of the tasks, that is of their weight vectors.
        seed: Seed of the examples and the noise. Use another one for each set:
            with the same seed they are the same examples.

    Returns:
        `(features, labels)`, see `SyntheticData`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> train = make_tasks(1000, correlation=0.9, seed=1)
    >>> test = make_tasks(200, correlation=0.9, seed=2)  # the same tasks
    >>> train.features["x"].shape, sorted(train.labels)
    ((1000, 100), ['task_1', 'task_2'])
    >>> test.labels["task_2"].shape
    (200, 1)
    """
    _check_positive("num_examples", num_examples)
    if kind not in ("binary", "regression"):
        raise ValueError(
            f'`kind` should be "binary" or "regression". Received: kind={kind!r}'
        )
    weights = task_weights(
        num_features,
        num_tasks=num_tasks,
        correlation=correlation,
        task_seed=task_seed,
    )
    # Streams apart: the features do not depend on the number of tasks.
    feature_seed, noise_seed = np.random.SeedSequence(seed).spawn(2)
    x = np.random.default_rng(feature_seed).standard_normal(
        (num_examples, num_features), dtype=np.float32
    )
    y = _responses(x.astype(np.float64) @ weights.T)
    noise = np.random.default_rng(noise_seed).standard_normal(y.shape)
    y += NOISE_STDDEV * noise
    if kind == "binary":
        y = y > POPULATION_MEDIAN
    columns = y.astype(np.float32)
    labels = {f"task_{k + 1}": columns[:, k : k + 1] for k in range(num_tasks)}
    return SyntheticData({"x": x}, labels)


def task_weights(
    num_features: int = 100,
    *,
    num_tasks: int = 2,
    correlation: float = 0.5,
    task_seed: int = 0,
) -> np.ndarray:
    """Gives unit weight vectors with the same cosine between every two.

    `W = L U`: the rows of U are orthonormal and random, L is the Cholesky factor of
    the matrix with ones on its diagonal and `correlation` elsewhere. Two tasks give
    the paper's `w_1 = u_1`, `w_2 = p u_1 + √(1 − p²) u_2`. U depends on `task_seed`
    alone, so runs that differ in `correlation` are paired.

    Args:
        num_features: Number of features, d, at least `num_tasks`.
        num_tasks: Number of tasks, T.
        correlation: The cosine p, from `-1 / (num_tasks - 1)` to 1.
        task_seed: Seed of U.

    Returns:
        The weights, `(T, d)` float64, one task per row.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> w = task_weights(10, num_tasks=2, correlation=0.9)
    >>> bool(np.isclose(w[0] @ w[1], 0.9))
    True
    """
    _check_positive("num_tasks", num_tasks)
    _check_positive("num_features", num_features)
    if num_features < num_tasks:
        raise ValueError(
            "`num_features` should be at least `num_tasks`. "
            f"Received: num_features={num_features}, num_tasks={num_tasks}"
        )
    _check_correlation(correlation, num_tasks)
    rng = np.random.default_rng(task_seed)
    q, r = np.linalg.qr(rng.standard_normal((num_features, num_tasks)))
    orthonormal = (q * np.where(np.diag(r) < 0, -1.0, 1.0)).T
    return _cholesky(correlation, num_tasks) @ orthonormal


def _responses(z: np.ndarray) -> np.ndarray:
    """`z + Σ sin(iz + i²)`, elementwise."""
    y = z.copy()
    for i in range(1, NUM_SINES + 1):
        y += np.sin(i * z + i**2)
    return y


def _cholesky(correlation: float, size: int) -> np.ndarray:
    """Lower factor of the equicorrelation matrix, which may be singular."""
    matrix = np.full((size, size), float(correlation))
    np.fill_diagonal(matrix, 1.0)
    factor = np.zeros_like(matrix)
    for j in range(size):
        column = matrix[j:, j] - factor[j:, :j] @ factor[j, :j]
        pivot = np.sqrt(max(column[0], 0.0))
        if pivot > _SINGULAR:
            factor[j:, j] = column / pivot
    return factor


def _check_positive(name: str, value: int) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(
            f"`{name}` should be a positive integer. Received: {name}={value!r}"
        )


def _check_correlation(correlation: float, num_tasks: int) -> None:
    lowest = -1.0 if num_tasks < 3 else -1.0 / (num_tasks - 1)
    if not lowest <= correlation <= 1.0:
        raise ValueError(
            f"`correlation` should be between {lowest:.4g} and 1 for {num_tasks} "
            f"tasks. Received: correlation={correlation}"
        )
