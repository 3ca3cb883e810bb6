"""Latency of SavedModels in TensorFlow's C++ session."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfmtl.serving.rows import repeat
from tfmtl.serving.saved_model import PathLike
from tfmtl.serving.session import Rows, request


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of one call, in milliseconds.

    Args:
        p10: A tenth of the calls were faster.
        p50: Half of the calls were faster.
        p90: A tenth of the calls were slower.
        repetitions: The number of timed calls.
    """

    p10: float
    p50: float
    p90: float
    repetitions: int


@dataclass(frozen=True)
class Comparison:
    """Two SavedModels timed in turns.

    Args:
        first: The first model's latency.
        second: The second model's latency.
        ratio: The median over the pairs of second time / first time.
        ratio_p10: The tenth percentile of that ratio.
        ratio_p90: The ninetieth percentile of that ratio.
    """

    first: Latency
    second: Latency
    ratio: float
    ratio_p10: float
    ratio_p90: float


def latency(
    path: PathLike,
    inputs: Rows,
    batch_sizes: Sequence[int] = (1, 512),
    repetitions: int = 200,
    *,
    warmup: int = 20,
    threads: int = 1,
    signature: str = "serving_default",
    timeout: float = 600.0,
) -> dict[int, Latency]:
    """Times a SavedModel in the C++ session.

    Args:
        path: The folder of the SavedModel.
        inputs: Rows to feed, repeated to each batch size.
        batch_sizes: The batch sizes.
        repetitions: The timed calls per batch size.
        warmup: The calls before them, not timed.
        threads: Intra-op and inter-op threads, or 0 for TensorFlow's own choice.
        signature: The signature's name.
        timeout: The seconds after which the process is ended.

    Returns:
        The latency by batch size.

    Raises:
        ValueError: If an argument or the inputs do not fit.
        CppSessionError: If the model does not load or run.

    Example:
        `latency("models/ranker/1", rows)[1].p50`
    """
    _check(batch_sizes, repetitions, warmup, threads)
    batches = [repeat(inputs, size) for size in batch_sizes]
    _, times = request(
        [path],
        batches,
        signature,
        threads=threads,
        warmup=warmup,
        repetitions=repetitions,
        timeout=timeout,
    )
    return {
        size: _latency(times[f"times_{number}"][:, 0])
        for number, size in enumerate(batch_sizes)
    }


def compare_latency(
    first: PathLike,
    second: PathLike,
    inputs: Rows,
    batch_sizes: Sequence[int] = (1, 512),
    repetitions: int = 200,
    *,
    warmup: int = 20,
    threads: int = 1,
    signature: str = "serving_default",
    timeout: float = 600.0,
) -> dict[int, Comparison]:
    """Times two SavedModels in turns in one process, so that both meet one noise.

    Args:
        first: The folder of the first SavedModel.
        second: The folder of the second, with the same inputs.
        inputs: Rows to feed, repeated to each batch size.
        batch_sizes: The batch sizes.
        repetitions: The timed pairs of calls per batch size.
        warmup: The pairs before them, not timed.
        threads: Intra-op and inter-op threads, or 0 for TensorFlow's own choice.
        signature: The signature's name.
        timeout: The seconds after which the process is ended.

    Returns:
        The comparison by batch size.

    Raises:
        ValueError: If an argument or the inputs do not fit.
        CppSessionError: If a model does not load or run.

    Example:
        `compare_latency("full/1", "pruned/1", rows)[1].ratio`
    """
    _check(batch_sizes, repetitions, warmup, threads)
    batches = [repeat(inputs, size) for size in batch_sizes]
    _, times = request(
        [first, second],
        batches,
        signature,
        threads=threads,
        warmup=warmup,
        repetitions=repetitions,
        timeout=timeout,
    )
    return {
        size: _comparison(times[f"times_{number}"])
        for number, size in enumerate(batch_sizes)
    }


def _check(
    batch_sizes: Sequence[int], repetitions: int, warmup: int, threads: int
) -> None:
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(
            "`batch_sizes` should be positive integers. Received: "
            f"batch_sizes={batch_sizes}"
        )
    if repetitions < 1:
        raise ValueError(
            "`repetitions` should be a positive integer. Received: "
            f"repetitions={repetitions}"
        )
    if warmup < 0:
        raise ValueError(f"`warmup` should not be negative. Received: warmup={warmup}")
    if not 0 <= threads <= 127:
        raise ValueError(
            f"`threads` should be between 0 and 127. Received: threads={threads}"
        )


def _latency(nanoseconds: np.ndarray) -> Latency:
    p10, p50, p90 = np.percentile(nanoseconds / 1e6, (10, 50, 90)).tolist()
    return Latency(p10, p50, p90, len(nanoseconds))


def _comparison(nanoseconds: np.ndarray) -> Comparison:
    ratios = nanoseconds[:, 1] / nanoseconds[:, 0]
    p10, p50, p90 = np.percentile(ratios, (10, 50, 90)).tolist()
    first, second = nanoseconds.T
    return Comparison(_latency(first), _latency(second), p50, p10, p90)
