"""The stacked layers against the same networks of separate Keras `Dense` layers.

MMoE with 8 experts [256, 128], PLE with 2 levels [128] of 2 specific experts per
task and 2 shared ones; towers of 64, a dense input of 128. The training step is
`fit`'s, with Adam; inference is a SavedModel in TensorFlow's C++ session, on one
thread. Both networks alternate in one process; a cell is the median of the pairs'
time of the separate layers ÷ time of the stacked ones, with the 10th and 90th
percentile.

    python benchmarks/layers.py
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfmtl.layers import Experts, Mixture, SoftmaxGate, Tower
from tfmtl.models import extraction
from tfmtl.serving import compare_latency, export

INPUTS, TOWER = 128, 64
EXPERTS, EXPERT_UNITS = 8, (256, 128)
SPECIFIC, SHARED, LEVELS = 2, 2, (128, 128)

Tensor = Any


def dense(units: int, x: Tensor) -> Tensor:
    """A hidden layer."""
    return keras.layers.Dense(units, "relu")(x)


def mixed(selector: Tensor, experts: list[Tensor]) -> Tensor:
    """A gate of its own over experts, as one writes it with `Dense`."""
    gate = keras.layers.Dense(len(experts), "softmax", use_bias=False)(selector)
    return ops.sum(gate[:, :, None] * ops.stack(experts, axis=1), axis=1)


def separate(streams: list[Tensor], inputs: Tensor) -> keras.Model:
    """Towers on streams."""
    outputs = {
        f"task_{k}": keras.layers.Dense(1, "sigmoid", name=f"task_{k}")(
            dense(TOWER, stream)
        )
        for k, stream in enumerate(streams)
    }
    return keras.Model({"x": inputs}, outputs)


def separate_mmoe(num_tasks: int) -> keras.Model:
    """MMoE of one `Dense` layer per expert and gate."""
    x = inputs = keras.Input((INPUTS,), name="x")
    experts = []
    for _ in range(EXPERTS):
        hidden = x
        for units in EXPERT_UNITS:
            hidden = dense(units, hidden)
        experts.append(hidden)
    return separate([mixed(x, experts) for _ in range(num_tasks)], inputs)


def separate_ple(num_tasks: int) -> keras.Model:
    """PLE of one `Dense` layer per expert and gate."""
    inputs = keras.Input((INPUTS,), name="x")
    streams = [inputs] * (num_tasks + 1)
    for level, units in enumerate(LEVELS, 1):
        own = [
            [dense(units, stream) for _ in range(SPECIFIC)] for stream in streams[:-1]
        ]
        shared = [dense(units, streams[-1]) for _ in range(SHARED)]
        upper = [
            mixed(stream, experts + shared)
            for stream, experts in zip(streams, own, strict=False)
        ]
        if level < len(LEVELS):
            upper.append(mixed(streams[-1], sum(own, []) + shared))
        streams = upper
    return separate(streams, inputs)


def towers(streams: list[Tensor], inputs: Tensor) -> keras.Model:
    """Towers on streams, as layers of this package."""
    outputs = {
        f"task_{k}": Tower((TOWER,), head_activation="sigmoid", name=f"task_{k}")(x)
        for k, x in enumerate(streams)
    }
    return keras.Model({"x": inputs}, outputs)


def stacked_mmoe(num_tasks: int) -> keras.Model:
    """The same MMoE of stacked layers."""
    x = inputs = keras.Input((INPUTS,), name="x")
    experts = Experts(EXPERTS, EXPERT_UNITS)(x)
    weights = SoftmaxGate(num_tasks, EXPERTS)(x)
    x = Mixture()([experts, weights])
    return towers(ops.unstack(x, num_tasks, axis=1), inputs)


def stacked_ple(num_tasks: int) -> keras.Model:
    """The same PLE of stacked layers."""
    x = inputs = keras.Input((INPUTS,), name="x")
    for level, units in enumerate(LEVELS, 1):
        x = extraction(
            x,
            [SPECIFIC] * num_tasks,
            SHARED,
            units,
            last=level == len(LEVELS),
            name=f"level_{level}",
        )
    return towers(ops.unstack(x, num_tasks, axis=1), inputs)


def training_step(model: keras.Model, batch: int) -> Callable[[], object]:
    """One step of `fit` on made-up rows, waiting for its loss."""
    generator = np.random.default_rng(0)
    rows = {"x": generator.standard_normal((batch, INPUTS)).astype("float32")}
    labels = {
        name: generator.integers(0, 2, (batch, 1)).astype("float32")
        for name in model.output
    }
    data = tf.data.Dataset.from_tensors((rows, labels)).repeat()
    model.compile("adam", loss="binary_crossentropy")
    model.make_train_function()
    step, batches = model.train_function, iter(data)
    return lambda: float(step(batches)["loss"])


def ratios(pair: list[Callable[[], object]], seconds: float) -> np.ndarray:
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


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="per cell")
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--served", type=int, nargs="+", default=[1, 64, 512, 4096])
    options = parser.parse_args()
    heads = [f"training B={b}" for b in options.batches]
    heads += [f"serving B={b}" for b in options.served]
    print("| separate ÷ stacked | " + " | ".join(heads) + " |")
    for name, separately, together in [
        ("MMoE", separate_mmoe, stacked_mmoe),
        ("PLE", separate_ple, stacked_ple),
    ]:
        for num_tasks in options.tasks:
            models = [separately(num_tasks), together(num_tasks)]
            cells = []
            for batch in options.batches:
                steps = [training_step(model, batch) for model in models]
                cells.append(cell(ratios(steps, options.seconds)))
            cells += served(models, options.served, options.seconds)
            print(
                f"| {name}, {num_tasks} tasks | " + " | ".join(cells) + " |", flush=True
            )


def served(models: list[keras.Model], batches: list[int], seconds: float) -> list[str]:
    """The cells of inference."""
    rows = np.random.default_rng(0).standard_normal((4096, INPUTS)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        separate, stacked = (
            export(model, Path(folder, str(k))).path for k, model in enumerate(models)
        )
        measured = compare_latency(
            stacked, separate, {"x": rows}, batches, int(20 * seconds), threads=1
        )
    return [
        f"{pair.ratio:.2f} ({pair.ratio_p10:.2f} … {pair.ratio_p90:.2f})"
        for pair in measured.values()
    ]


if __name__ == "__main__":
    main()
