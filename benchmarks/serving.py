"""What an exported version costs: latency by signature, disk, loading, tables.

    python benchmarks/serving.py --census <folder>

Times are medians in TensorFlow's C++ session with one thread, of all calls in one
process; loading is the median of seven processes, in turns with a SavedModel of one
table of the float32 weights' size and nothing else. Weights are random: what is
measured does not depend on them, but for the error of tables in fewer bits, which is
that of rows of normal numbers.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.data import write_tfrecord
from tfmtl.demo import census_income
from tfmtl.features import Categorical, Numeric, adapt
from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.models import mmoe, snr
from tfmtl.serving import Export, export, latency
from tfmtl.serving.session import request
from tfmtl.sparsity import gates
from tfmtl.tasks import Binary

LEVELS = [(6, 48), (6, 32)]
CLOSED = 0.59  # as training leaves the census's network


def close(model: keras.Model, share: float) -> None:
    """Closes a share of the connections at random."""
    generator = np.random.default_rng(0)
    for gate in gates(model):
        count = int(np.prod(gate.shape))
        shut = generator.permutation(count) < round(share * count)
        gate.set_log_alpha(np.where(shut, -4.0, 4.0).reshape(gate.shape))


def core(width: int, tasks: int) -> keras.Model:
    """The network behind the census's encoded columns."""
    inputs = keras.Input((width,), name="x")
    [(count, units), *others] = LEVELS
    x = Experts(count, units, name="level_1")(inputs)
    routed: Any = {"activation": "relu", "use_bias": True}
    for k, (count, units) in enumerate([*others, (tasks, LEVELS[-1][1])], 2):
        x = SubNetworkRouting(count, units, name=f"level_{k}", **routed)(x)
    streams = keras.ops.unstack(x, tasks, axis=1)
    outputs = {
        f"task_{k}": Tower(head_activation="sigmoid", name=f"tower_{k}")(stream)
        for k, stream in enumerate(streams)
    }
    return keras.Model({"x": inputs}, outputs)


def ranker() -> tuple[keras.Model, dict[str, np.ndarray]]:
    """A ranker of 150 MB, nearly all of it one table, and rows."""
    columns: list[Any] = [
        Categorical(
            f"id_{k}", dtype="int64", hash_bins=90_000, units=16, initializer="normal"
        )
        for k in range(26)
    ]
    columns.append(Numeric("x", width=13, mean=(0.0,) * 13, std=(1.0,) * 13))
    tasks = [Binary(f"task_{k}") for k in range(4)]
    generator = np.random.default_rng(0)
    rows = {f"id_{k}": generator.integers(0, 2**40, (1000, 1)) for k in range(26)}
    rows["x"] = generator.standard_normal((1000, 13)).astype("float32")
    return mmoe(columns, tasks, experts=8, levels=[(256, 128)]), rows


def print_latency(
    name: str,
    written: Export,
    rows: Mapping[str, Any],
    batches: list[int],
    signature: str = "serving_default",
) -> None:
    """Prints one row of p50 by batch size."""
    found = latency(written.path, rows, batches, 300, signature=signature)
    cells = " | ".join(f"{found[batch].p50:.3f}" for batch in batches)
    print(f"| {name} | {cells} |", flush=True)


def print_census(data: Path, cache: Path, folder: Path) -> None:
    """Prints the latencies of the census's network by signature."""
    source = census_income(data, cache)
    features = adapt(source.features, source.train[0])
    rows = {name: values[:512] for name, values in source.test[0].items()}
    model = snr(features, source.tasks, LEVELS)
    inner = core(int(model.get_layer("level_1").input.shape[-1]), len(source.tasks))
    for each in (model, inner):
        close(each, CLOSED)
    written = export(model, folder / "census", fold=True, golden=rows)
    dense = export(inner, folder / "core", fold=True)
    batches = [1, 64, 512]
    print("| p50 ms of the census's network | B=1 | B=64 | B=512 |")
    print("|---|---|---|---|")
    generator = np.random.default_rng(0)
    x = generator.standard_normal((512, inner.input["x"].shape[-1])).astype("float32")
    print_latency("from the encoded vector", dense, {"x": x}, batches)
    print_latency("from raw columns, 31 of them strings", written, rows, batches)
    for task in source.tasks:
        name = f"signature `{task.name}` alone"
        print_latency(name, written, rows, batches, task.name)
    file = write_tfrecord(folder / "rows.tfrecord", rows, {})
    records = {"examples": list(tf.data.TFRecordDataset(file).as_numpy_iterator())}
    name = "`serving_examples`"
    print_latency(name, written, records, batches, "serving_examples")


def load_ms(path: Path, rows: Mapping[str, Any]) -> float:
    """The milliseconds that a C++ session in a process of its own takes to load it."""
    report, _ = request([path], [rows])
    return float(report["load_ms"][0])


def bare(folder: Path, size: int) -> Path:
    """A SavedModel of nothing but one table of so many bytes."""
    module = tf.Module()
    module.table = tf.Variable(tf.random.normal((size // 64, 16)))
    module.rows = tf.function(
        lambda ids: tf.gather(module.table, ids),
        input_signature=[tf.TensorSpec((None,), tf.int64, "ids")],
    )
    tf.saved_model.save(module, folder, signatures=module.rows)
    return folder


def print_large(folder: Path) -> None:
    """Prints size, loading, latency and error of a ranker by the type of its tables."""
    model, rows = ranker()
    weights = sum(int(np.prod(w.shape)) * 4 for w in model.weights)
    table, ids = bare(folder / "bare", weights), {"ids": np.zeros(1, "int64")}
    one_row = {name: values[:1] for name, values in rows.items()}
    title = f"tables of a ranker of {weights / 1e6:.0f} MB"
    print(f"\n| {title} | disk ÷ weights | load, ms | ÷ bare table", end="")
    print(" | p50 ms, B=1 | B=128 | B=1000 | largest difference | rank correlation |")
    print("|---|---|---|---|---|---|---|---|---|")
    for tables in (None, "float16", "int8"):
        base = folder / f"large_{tables}"
        written = export(model, base, tables=tables, golden=rows)
        loads = np.array(
            [[load_ms(table, ids), load_ms(written.path, one_row)] for _ in range(7)]
        )
        found = latency(written.path, rows, [1, 128, 1000], 100)
        times = " | ".join(f"{one.p50:.3f}" for one in found.values())
        errors = written.table_errors.values()
        told = "| | |"
        if errors:
            difference = max(error.difference for error in errors)
            rank = min(error.rank_correlation for error in errors)
            told = f"| {difference:.1e} | {rank:.6f} |"
        load = np.median(loads[:, 1])
        ratio = np.median(loads[:, 1] / loads[:, 0])
        row = f"{written.bytes / weights:.3f} | {load:.0f} | {ratio:.2f} | {times}"
        print(f"| {tables or 'float32'} | {row} {told}", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--census", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/data"))
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if options.census:
            print_census(options.census, options.cache, Path(folder))
        print_large(Path(folder))


if __name__ == "__main__":
    main()
