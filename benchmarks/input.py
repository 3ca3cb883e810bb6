"""The input pipelines against the training step: does a model wait for its data?

Steps of `fit` on rows from memory and from files, against the same steps on a few
random batches that are there already. Both take turns of some steps; a cell is the
median over the pairs of turns of time of the pipeline ÷ time of the batches there, with
the 10th and 90th percentile. 1 is a pipeline that costs nothing. The process' CPU time
is what the pipeline costs where no core is free; other work moves it less.

Both with the demo's features, tasks, SNR network and batch size. Rows are shuffled.

    python benchmarks/input.py --data <folder with census-income, kuairand-pure>
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

from tfmtl.data import batches, from_parquet, from_tfrecord
from tfmtl.data import write_tfrecord as write
from tfmtl.demo import Source, census_income, kuairand_pure
from tfmtl.features import adapt
from tfmtl.models import snr

STEPS, WARM = 12, 5  # Of a turn; the first ones of it are not timed.
HELD = 16  # Batches that are there already.

Rows = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def network(source: Source) -> tuple[keras.Model, Rows, int]:
    """The demo's network for a source, its rows and its batch size."""
    features = adapt(source.features, source.train[0])
    model = snr(features, source.tasks, dropout=source.training.dropout)
    model.compile("adam")
    return model, source.train, source.training.batch_size


def census(folder: Path, cache: Path) -> tuple[keras.Model, Rows, int]:
    """Census-Income: numbers and strings, three tasks."""
    return network(census_income(folder / "census-income", cache))


def kuairand(folder: Path, cache: Path) -> tuple[keras.Model, Rows, int]:
    """KuaiRand-Pure: ids, strings, three histories of 50 videos, four tasks."""
    return network(kuairand_pure(folder / "kuairand-pure", cache))


def trimmed(column: np.ndarray) -> Any:
    """Rows as files have them: sequences without what pads them."""
    if column.ndim == 1 or column.shape[1] == 1:
        return column.reshape(-1)
    return [row[row != -1] for row in column]


def pipelines(
    rows: Rows, batch_size: int, folder: Path
) -> dict[str, Callable[[], tf.data.Dataset]]:
    """Makers of the data sets to compare, on files that are written where absent."""
    features, labels = rows
    columns = {name: trimmed(column) for name, column in features.items()}
    targets = {name: column[:, 0] for name, column in labels.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.parquet").exists():
        table = pa.table({k: pa.array(v) for k, v in {**columns, **targets}.items()})
        parquet.write_table(table, folder / "rows.parquet", row_group_size=32_768)
    if not (folder / "rows.tfrecord").exists():
        write(folder / "rows.tfrecord", columns, targets)
    fixed = {k: v.shape[1] for k, v in features.items() if v.ndim > 1 < v.shape[1]}
    options: dict[str, Any] = {"shuffle": True, "lengths": fixed}

    def in_files(read: Callable[..., tf.data.Dataset], name: str) -> tf.data.Dataset:
        return read(folder / name, list(labels), batch_size, **options)

    return {
        "memory": lambda: batches(*rows, batch_size, shuffle=True, drop_remainder=True),
        "Parquet": lambda: in_files(from_parquet, "rows.parquet"),
        "TFRecord": lambda: in_files(from_tfrecord, "rows.tfrecord"),
    }


def ratios(
    model: keras.Model, held: tf.data.Dataset, data: tf.data.Dataset, pairs: int
) -> tuple[np.ndarray, float]:
    """Wall and CPU time on `data` ÷ on `held`, and the median step on `held` in ms."""
    model.make_train_function()
    iterators = [iter(held.repeat()), iter(data.repeat())]
    times = np.array([[_turn(model, each) for each in iterators] for _ in range(pairs)])
    times = times[1:]  # The first pair compiles.
    return times[:, 1] / times[:, 0], 1e3 * float(np.median(times[:, 0, 0])) / STEPS


def _turn(model: keras.Model, iterator: Any) -> tuple[float, float]:
    for _ in range(WARM):  # Uses up what was fetched in the other's turn.
        loss = model.train_function(iterator)["loss"]
    float(loss)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        loss = model.train_function(iterator)["loss"]
    float(loss)
    return time.perf_counter() - wall, time.process_time() - cpu


def throughput(data: tf.data.Dataset) -> float:
    """Rows per second without a model, over an epoch."""
    start = time.perf_counter()
    rows = sum(len(next(iter(y.values()))) for _, y in data)
    return rows / (time.perf_counter() - start)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/data"))
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    print("| | rows from | step, ms | time | CPU time | rows/s, no model |")
    print("|---|---|---|---|---|---|")
    for make in (census, kuairand):
        keras.utils.set_random_seed(0)
        model, rows, batch_size = make(options.data, options.cache)
        folder = options.cache / f"input-{make.__name__}"
        makers = pipelines(rows, batch_size, folder)
        shuffled = makers["memory"]()
        held = shuffled.map(_as_columns).take(HELD).cache()
        for name, dataset in makers.items():
            data = dataset().map(_as_columns)
            found, step = ratios(model, held, data, options.pairs + 1)
            wall, cpu = (
                f"{median:.2f} ({low:.2f} … {high:.2f})"
                for low, median, high in np.percentile(found, [10, 50, 90], axis=0).T
            )
            print(
                f"| {make.__name__}, B={batch_size} | {name} | {step:.1f} "
                f"| {wall} | {cpu} "
                f"| {throughput(dataset()):,.0f} |",
                flush=True,
            )


def _as_columns(features: dict, labels: dict) -> tuple[dict, dict]:
    """Columns of one value as `(batch, 1)`."""
    return {k: v if v.ndim > 1 else v[:, None] for k, v in features.items()}, labels


if __name__ == "__main__":
    main()
