"""What learning tasks together gains."""

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Gain(NamedTuple):
    """Relative gains over single-task models.

    Attributes:
        by_task: The gain of each task; 0.01 is one per cent better.
        mean: Their mean, Δ.

    Example:
        >>> from tfmtl.metrics import multi_task_gain
        >>> multi_task_gain({"click": 0.75}, {"click": 0.5})
        Gain(by_task={'click': 0.5}, mean=0.5)
    """

    by_task: dict[str, float]
    mean: float


def multi_task_gain(
    multi: Mapping[str, float],
    single: Mapping[str, float],
    lower_is_better: Collection[str] = (),
) -> Gain:
    """Relative gain of a multi-task model over one model per task.

    ```
    gain_t = (-1)^[lower is better] (multi_t - single_t) / single_t
    Δ = mean over tasks of gain_t
    ```

    Args:
        multi: A metric of the multi-task model, by task.
        single: The same metric of the single-task models, by the same tasks;
            above 0.
        lower_is_better: Tasks whose metric is an error. Defaults to `()`, none.

    Returns:
        The gain of each task and their mean.

    Raises:
        ValueError: If there is no task, tasks differ, or a baseline is not above 0.

    Example:
        >>> from tfmtl.metrics import multi_task_gain
        >>> multi, single = {"click": 0.88, "time": 3.0}, {"click": 0.8, "time": 4.0}
        >>> gain = multi_task_gain(multi, single, lower_is_better=["time"])
        >>> round(gain.by_task["click"], 3), gain.by_task["time"], round(gain.mean, 3)
        (0.1, 0.25, 0.175)

    Source: Maninis et al., CVPR 2019.
    """
    if not multi or set(multi) != set(single):
        raise ValueError(
            "`multi` and `single` should hold the same tasks, one or more. "
            f"Received: multi={sorted(multi)}, single={sorted(single)}"
        )
    if isinstance(lower_is_better, str) or not set(lower_is_better) <= set(multi):
        raise ValueError(
            f"`lower_is_better` should hold tasks of {sorted(multi)}. "
            f"Received: lower_is_better={lower_is_better!r}"
        )
    unfit = {task: value for task, value in single.items() if not value > 0}
    if unfit:
        raise ValueError(f"`single` should be above 0. Received: {unfit}")
    by_task = {
        task: (-1 if task in lower_is_better else 1) * (value / single[task] - 1)
        for task, value in multi.items()
    }
    return Gain(by_task, sum(by_task.values()) / len(by_task))
