"""What a folded SNR costs, as a share of the dense network's time.

Two routed levels of 8 sub-networks of width 64 on a dense input of 128, each folded for
the batch it is timed at (`fold(model, batch_size=…)`). On one thread, batches of more
than 1,024 rows are computed 512 rows at a time (`export(…, micro_batch=512)`). Both
SavedModels run in TensorFlow's C++ session, alternately, in one process; a cell is the
median ratio of the pairs: the median over random topologies and their range. Bytes are
those of the SavedModel, loading is the median ratio of five pairs of processes; both of
the first layout.

    python benchmarks/fold.py --threads 1
    python benchmarks/fold.py --width 512 --batches 1 --topologies 3
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

from tfmtl.folding import compare, fold
from tfmtl.layers import Experts, SubNetworkRouting, Tower
from tfmtl.serving import compare_latency, export, verify
from tfmtl.sparsity import gates

SUB_NETWORKS, WIDTH, INPUTS = 8, 64, 128
MICRO_BATCH = 512


def network(closed: float, seed: int, width: int = WIDTH) -> keras.Model:
    """The network with a share of its connections closed at random."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((INPUTS,), name="x")
    x = Experts(SUB_NETWORKS, width, name="level_1")(x)
    for level in (2, 3):
        x = SubNetworkRouting(
            SUB_NETWORKS,
            width,
            activation="relu",
            use_bias=True,
            name=f"level_{level}",
        )(x)
    outputs = {
        f"task_{k}": Tower((), name=f"tower_{k}")(slot)
        for k, slot in enumerate(keras.ops.unstack(x, SUB_NETWORKS, axis=1))
    }
    model = keras.Model({"x": inputs}, outputs)
    generator = np.random.default_rng(seed)
    for gate in gates(model):
        count = int(np.prod(gate.shape))
        shut = generator.permutation(count) < round(closed * count)
        gate.set_log_alpha(np.where(shut, -4.0, 4.0).reshape(gate.shape))
    return model


def loading(path: Path, dense: Path) -> float:
    """The time to load a version ÷ that of the dense one, in turns."""
    pairs = [[verify(p).load_ms or np.nan for p in (path, dense)] for _ in range(5)]
    return float(np.median([one / other for one, other in pairs]))


def micro_batch(batch: int, threads: int) -> int | None:
    """The rows to compute at a time, where that is faster than all of a batch."""
    return MICRO_BATCH if threads == 1 and batch > 2 * MICRO_BATCH else None


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--topologies", type=int, default=5)
    parser.add_argument("--width", type=int, default=WIDTH, help="of a sub-network")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256, 4096])
    parser.add_argument("--closed", type=float, nargs="+", default=[0.5, 0.75, 0.9])
    parser.add_argument("--no-hint", action="store_true", help="one layout for all")
    options = parser.parse_args()
    rows = np.random.default_rng(0).standard_normal((4096, INPUTS)).astype("float32")
    heads = " | ".join(f"B={batch}" for batch in options.batches)
    print(f"| closed | parameters | bytes | loading | {heads} |")
    print("|---|---|---|---|" + "---|" * len(options.batches))
    with tempfile.TemporaryDirectory() as folder:
        dense = export(fold(network(0.0, 0, options.width)), Path(folder, "dense"))
        for closed in options.closed:
            sizes, loads = [], []
            ratios: dict[int, list[float]] = {batch: [] for batch in options.batches}
            for seed in range(options.topologies):
                model = network(closed, seed, options.width)
                for batch in options.batches:
                    hint = None if options.no_hint else batch
                    folded = fold(model, batch_size=hint)
                    written = export(
                        folded,
                        Path(folder, f"{closed}-{seed}-{batch}"),
                        micro_batch=micro_batch(batch, options.threads),
                    )
                    measured = compare_latency(
                        dense.path,
                        written.path,
                        {"x": rows},
                        [batch],
                        options.repetitions,
                        threads=options.threads,
                    )
                    ratios[batch].append(measured[batch].ratio)
                    if batch == options.batches[0]:
                        parameters = compare(model, folded).after.parameters
                        sizes.append((parameters, written.bytes / dense.bytes))
                        loads.append(loading(written.path, dense.path))
            cells = [
                f"{np.median(found):.2f} ({min(found):.2f} … {max(found):.2f})"
                for found in ratios.values()
            ]
            count, size = np.median(sizes, axis=0)
            row = (
                f"| {closed:.0%} | {int(count):,} | {size:.2f} | {np.median(loads):.2f}"
            )
            print(" | ".join([row, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
