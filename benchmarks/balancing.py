"""The step with balanced tasks against the plain step, and what balancing gives.

Time: a Shared-Bottom network [512, 256] with towers of 64 on a dense input of 128,
Adam, `fit`'s own step. Both steps alternate in one process; a cell is the median of the
pairs' time with balancing ÷ time without, with the 10th and 90th percentile. Memory is
the largest resident set of a process that trains a few steps (Linux' VmHWM), in MB
above that of the plain step. The last row is what a ConflictMonitor adds to a plain
step on average that measures every so many steps.

Studies: two regressions of `tfmtl.data.make_tasks`, read by linear towers on one small
bottom, 250 steps of Adam, the same data and first weights for all methods of a seed.
The error is the mean over the tasks of the test examples' squared error ÷ the variance
of the label. In the first study the tasks have nothing in common and one's label is ten
times as large; the row "equal scales" divides it by ten, in the loss. In the second
they are one task with two noises. Settings come from other seeds than those reported.

    python benchmarks/balancing.py              time and memory
    python benchmarks/balancing.py --studies    what balancing gives, on made-up tasks
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from tfmtl import balancing, data, models
from tfmtl.features import Numeric
from tfmtl.tasks import Binary, Regression

INPUTS, BOTTOM, TOWER = 128, (512, 256), 64
METHODS: dict[str, Any] = {
    "PCGrad": balancing.PCGrad(),
    "UPGrad": balancing.UPGrad(),
    "MGDA": balancing.MGDA(),
    "AtRepresentation(PCGrad)": balancing.AtRepresentation(balancing.PCGrad()),
}
MONITOR = "ConflictMonitor, one measurement"
EVERY = 100

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
    repeated = tf.data.Dataset.from_tensors(made_up(tasks, batch)).cache().repeat()
    model.make_train_function()
    step, batches = model.train_function, iter(repeated)
    return lambda: float(step(batches)["loss"])


def measurement(tasks: int, batch: int) -> Step:
    """One measurement of a `ConflictMonitor`."""
    model = network(tasks)
    model.compile("adam", metrics={})
    given = tf.nest.map_structure(tf.convert_to_tensor, made_up(tasks, batch))
    monitor = balancing.ConflictMonitor(given, every=1)
    monitor.set_model(model)
    monitor.on_train_begin()
    steps = count()
    return lambda: monitor.on_train_batch_end(next(steps))


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
        row, medians = [], []
        for tasks, batch in cells:
            own = (
                measurement(tasks, batch)
                if name == MONITOR
                else training_step(tasks, batch, METHODS[name], jit)
            )
            pair = [own, training_step(tasks, batch, None, jit)]
            found = ratios(pair, seconds)
            row.append(cell(found))
            medians.append(float(np.median(found)))
        more = ""
        if name != MONITOR:
            more = f"+{memory(*cells[-1], name, jit) - plain:.0f} of {plain:.0f} MB"
        print("| " + " | ".join([name, *row, more]) + " |", flush=True)
    row = [f"{1 + one / EVERY:.3f}" for one in medians]
    print("| " + " | ".join([f"ConflictMonitor, every={EVERY}", *row, ""]) + " |")


@dataclass(frozen=True)
class Study:
    """Two made-up tasks and the network that learns them.

    Attributes:
        correlation: Cosine of the tasks' weights.
        scales: What the labels are multiplied by.
        bottom: Units of the shared layer.
    """

    correlation: float
    scales: tuple[float, float]
    bottom: int

    def network(self, seed: int) -> keras.Model:
        """The network with the first weights of a seed."""
        keras.utils.set_random_seed(seed)
        x = Numeric("x", width=20, mean=(0.0,) * 20, std=(1.0,) * 20)
        tasks = [Regression("task_1"), Regression("task_2")]
        return models.shared_bottom([x], tasks, (self.bottom,), tower={"units": ()})

    def examples(self, seed: int, part: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rows and labels of a seed's tasks."""
        x, y = data.make_tasks(
            4000,
            num_features=20,
            correlation=self.correlation,
            kind="regression",
            task_seed=seed,
            seed=2 * seed + part,
        )
        pairs = zip(y.items(), self.scales, strict=True)
        return x, {name: scale * label for (name, label), scale in pairs}


STUDIES = {
    "nothing in common, scales 10 and 1": Study(0.0, (10.0, 1.0), 8),
    "the same, scales 1 and 1": Study(1.0, (1.0, 1.0), 32),
}


class Learner:
    """A study's network, compiled once and trained anew for each seed."""

    def __init__(self, study: Study, **compiled: Any) -> None:
        self._study, self._model = study, study.network(0)
        optimizer = keras.optimizers.Adam(0.01)
        self._model.compile(optimizer, metrics={}, **compiled)
        optimizer.build(self._model.trainable_variables)
        self._start = [(v, v.numpy()) for v in optimizer.variables]

    def error(self, seed: int, callbacks: Sequence[Any] = ()) -> float:
        """Mean over the tasks of the share of a label's variance that is left."""
        self._model.set_weights(self._study.network(seed).get_weights())
        for variable, value in self._start:
            variable.assign(value)
        (x, y), (rows, labels) = (self._study.examples(seed, part) for part in (0, 1))
        arguments = {"epochs": 4, "shuffle": False, "verbose": 0}
        self._model.fit(x, y, batch_size=64, callbacks=list(callbacks), **arguments)
        found = self._model.predict(rows, batch_size=4000, verbose=0)
        errors = [((found[k] - y) ** 2).mean() / y.var() for k, y in labels.items()]
        return float(np.mean(errors))


def interval(values: np.ndarray, digits: int) -> str:
    """Mean and its 95 % interval by Student's t."""
    mean, error = values.mean(), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, error)
    return f"{mean:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def study(title: str, chosen: Study, seeds: int) -> None:
    """Prints the errors of the methods, their differences, and what is monitored."""
    weights = {f"task_{k + 1}": 1 / s**2 for k, s in enumerate(chosen.scales)}
    methods: dict[str, dict[str, Any]] = {
        "sum": {},
        "PCGrad": {"balancing": balancing.PCGrad()},
    }
    if len(set(chosen.scales)) > 1:
        methods["equal scales"] = {"loss_weights": weights}
    monitors, errors = [], {}
    for name, compiled in methods.items():
        learner, found = Learner(chosen, **compiled), []
        for seed in range(seeds):
            watching = []
            if name == "sum":
                x, y = chosen.examples(seed, 0)
                first = {"x": x["x"][:512]}, {k: v[:512] for k, v in y.items()}
                watching = [balancing.ConflictMonitor(first, every=10)]
                monitors += watching
            found.append(learner.error(seed, watching))
        errors[name] = np.array(found)
    print(f"\n{title}, {seeds} seeds\n")
    print("| | error | minus that of the sum |\n|---|---|---|")
    for name, of_seeds in errors.items():
        more = "" if name == "sum" else interval(of_seeds - errors["sum"], 4)
        print(f"| {name} | {interval(of_seeds, 3)} | {more} |")
    cosines = np.array([monitor.cosines[:, 0, 1].mean() for monitor in monitors])
    share = np.mean([max(monitor.worked_against.values()) for monitor in monitors])
    needless = sum("not needed" in str(monitor) for monitor in monitors)
    print(f"\nmean cosine {interval(cosines, 3)}; the plain step works against a")
    print(f"task in {share:.0%} of the measurements; {needless} of {seeds} monitors")
    print("say that surgery is not needed. That of the last seed:\n")
    print(monitors[-1], flush=True)


def main() -> None:
    """Prints the table, or the studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="per cell")
    parser.add_argument("--jit", action="store_true", help="both steps by XLA")
    parser.add_argument("--studies", action="store_true", help="in place of times")
    parser.add_argument("--seeds", type=int, default=20, help="of each study")
    options = parser.parse_args()
    if options.studies:
        for title, chosen in STUDIES.items():
            study(title, chosen, options.seeds)
        return
    cells = [(2, 512), (2, 4096), (8, 512), (8, 4096)]
    times(cells, options.seconds, options.jit)


if __name__ == "__main__":
    main()
