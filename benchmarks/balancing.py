"""The step with balanced tasks against the plain step, and what balancing gives.

A Shared-Bottom network [512, 256] with towers of 64 on a dense input of 128, Adam,
`fit`'s own step. Both steps alternate in one process; a cell is the median of the
pairs' time with balancing ÷ time without, with the 10th and 90th percentile. Memory is
the largest resident set of a process that trains a few steps (Linux' VmHWM), in MB
above that of the plain step.

    python benchmarks/balancing.py              time and memory
    python benchmarks/balancing.py --studies    what balancing gives, on made-up tasks
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl import balancing, models
from tfmtl.features import Numeric
from tfmtl.tasks import Binary

INPUTS, BOTTOM, TOWER = 128, (512, 256), 64
METHODS: dict[str, Any] = {
    "PCGrad": balancing.PCGrad(),
    "UPGrad": balancing.UPGrad(),
    "MGDA": balancing.MGDA(),
    "AtRepresentation(PCGrad)": balancing.AtRepresentation(balancing.PCGrad()),
}
MONITOR = "ConflictMonitor, one measurement"

Step = Callable[[], object]


def network(tasks: int) -> keras.Model:
    """The network of the table."""
    mean, std = (0.0,) * INPUTS, (1.0,) * INPUTS
    x = Numeric("x", width=INPUTS, mean=mean, std=std)
    return models.shared_bottom(
        [x],
        [Binary(f"task_{k}") for k in range(tasks)],
        bottom=BOTTOM,
        tower={"units": (TOWER,)},
    )


def made_up(tasks: int, batch: int) -> tuple[Any, Any]:
    """Rows and labels."""
    rng = np.random.default_rng(0)
    x = {"x": rng.standard_normal((batch, INPUTS)).astype("float32")}
    y = rng.integers(0, 2, (batch, tasks)).astype("float32")
    return x, {f"task_{k}": y[:, k : k + 1] for k in range(tasks)}


def training_step(tasks: int, batch: int, method: Any, jit: bool) -> Step:
    """One step of `fit`, waiting for its loss."""
    model = network(tasks)
    model.compile("adam", metrics={}, balancing=method, jit_compile=jit)
    data = tf.data.Dataset.from_tensors(made_up(tasks, batch)).cache().repeat()
    model.make_train_function()
    step, batches = model.train_function, iter(data)
    return lambda: float(step(batches)["loss"])


def measurement(tasks: int, batch: int) -> Step:
    """One measurement of a `ConflictMonitor`."""
    model = network(tasks)
    model.compile("adam", metrics={})
    given = tf.nest.map_structure(tf.convert_to_tensor, made_up(tasks, batch))
    monitor = balancing.ConflictMonitor(given, every=1)
    monitor.set_model(model)
    monitor.on_train_begin()
    return lambda: monitor.on_train_batch_end(0)


def ratios(pair: list[Step], seconds: float) -> np.ndarray:
    """Time of the first ÷ time of the second, in turns for some seconds."""
    for run in pair * 3:
        run()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        times = []
        for run in pair:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        found.append(times[0] / times[1])
    return np.array(found)


def cell(found: np.ndarray) -> str:
    """Median and 10th to 90th percentile."""
    low, middle, high = np.percentile(found, [10, 50, 90])
    return f"{middle:.2f} ({low:.2f} … {high:.2f})"


def peak(tasks: int, batch: int, name: str | None, jit: bool) -> float:
    """Largest resident set of this process after a few steps, in MB."""
    step = training_step(tasks, batch, METHODS.get(name or ""), jit)
    for _ in range(5):
        step()
    [line] = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) / 1024


def memory(tasks: int, batch: int, name: str | None, jit: bool) -> float:
    """`peak` of a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(peak, tasks, batch, name, jit).result()


def times(cells: list[tuple[int, int]], seconds: float, jit: bool) -> None:
    """Prints the table."""
    heads = [f"T={tasks}, B={batch}" for tasks, batch in cells]
    heads.append("memory, T={}, B={}".format(*cells[-1]))
    print("| ÷ the plain step | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    plain = memory(*cells[-1], None, jit)
    for name in [*METHODS, MONITOR]:
        row = []
        for tasks, batch in cells:
            own = (
                measurement(tasks, batch)
                if name == MONITOR
                else training_step(tasks, batch, METHODS[name], jit)
            )
            pair = [own, training_step(tasks, batch, None, jit)]
            row.append(cell(ratios(pair, seconds)))
        more = ""
        if name != MONITOR:
            more = f"+{memory(*cells[-1], name, jit) - plain:.0f} of {plain:.0f} MB"
        print("| " + " | ".join([name, *row, more]) + " |", flush=True)


def main() -> None:
    """Prints the table, or the studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="per cell")
    parser.add_argument("--jit", action="store_true", help="both steps by XLA")
    options = parser.parse_args()
    times([(2, 4096), (8, 512), (8, 4096)], options.seconds, options.jit)


if __name__ == "__main__":
    main()
