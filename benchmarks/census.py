"""Census-Income: the dense and the sparse network of one seed, folded and served.

    python benchmarks/census.py --data <folder>            the README's figures
    python benchmarks/census.py --data <folder> --choose   settings, on held-out rows

`--choose` trains on nine tenths of the training file and scores the rest; the test
file is not read for it. Without it both networks train on the whole training file
and the test file is scored once.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import keras

from tfmtl.demo import (
    Source,
    census_income,
    difference,
    held_out,
    predict,
    quality,
    train,
)
from tfmtl.folding import compare, fold
from tfmtl.serving import compare_latency, export, run_in_cpp_session


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--cache", type=Path, default=Path("runs/data"))
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--l0", type=float, nargs="+", help="default: the demo's")
    options = parser.parse_args()
    source = census_income(options.data, options.cache)
    if options.choose:
        source = held_out(source)
    for l0 in options.l0 or [source.training.l0]:
        training = replace(source.training, l0=l0)
        _print_figures(replace(source, training=training), options.seed)


def _print_figures(source: Source, seed: int) -> None:
    dense = train(source, seed, l0=0.0)
    sparse = train(source, seed)
    folded = fold(sparse)
    scores = {
        "dense": predict(dense, source.test),
        "sparse": predict(sparse, source.test),
        "folded": predict(folded, source.test),
    }
    print(f"l0 {source.training.l0:g}, seed {seed}")
    for name, given in scores.items():
        found = {task: one.auc for task, one in quality(given, source).items()}
        print(f"{name:<8}", {task: round(value, 4) for task, value in found.items()})
    print(compare(sparse, folded))
    apart = difference(scores["sparse"], scores["folded"])
    print(f"largest difference, folded against unfolded: {apart:.1e}")
    _print_serving(source, sparse, folded, scores["folded"])


def _print_serving(
    source: Source, sparse: keras.Model, folded: keras.Model, scores: dict
) -> None:
    rows = {name: values[:512] for name, values in source.train[0].items()}
    with tempfile.TemporaryDirectory() as folder:
        before = export(sparse, Path(folder, "unfolded"))
        after = export(folded, Path(folder, "folded"))
        served = run_in_cpp_session(after.path, source.test[0])
        print(
            "largest difference, C++ session against Keras: "
            f"{difference(scores, served):.1e}"
        )
        saved = before.scan.weight_bytes - after.scan.weight_bytes
        print(f"SavedModel: {before.bytes:,} -> {after.bytes:,} bytes; ", end="")
        print(f"weights in it fell by {saved:,} bytes")
        for size, pair in compare_latency(
            before.path, after.path, rows, (1, 64, 512), 400
        ).items():
            print(
                f"batch {size:>3}: {pair.first.p50:.3f} -> {pair.second.p50:.3f} ms, "
                f"ratio {pair.ratio:.2f} ({pair.ratio_p10:.2f} … {pair.ratio_p90:.2f})"
            )


if __name__ == "__main__":
    main()
