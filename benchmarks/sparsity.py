"""A target share of the model against test AUC, and what half of the fields cost.

Each network is trained on the whole training file by the demo's settings, once for
each seed, and scored on the test file once; nothing is chosen on it. `share` asks
`Target` for shares of the connections. Beside the folded network stands a dense one of
as many FLOPs: the same levels, narrower. `fields` closes half of the feature fields.
`finetune` trains a network of which a tenth is left on for half of an epoch, folded.

    python benchmarks/sparsity.py share --census <folder> --kuairand <folder>
    python benchmarks/sparsity.py fields --kuairand <folder>
    python benchmarks/sparsity.py finetune --census <folder>

The tables go to the screen; `--out` is a folder for the picture.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from tfmtl.data import batches
from tfmtl.demo import Source, census_income, kuairand_pure, predict
from tfmtl.features import Encoder, adapt
from tfmtl.folding import fold, structure
from tfmtl.metrics import auc
from tfmtl.models import snr
from tfmtl.serving import export
from tfmtl.sparsity import Target, gates, open_share

CLOSED = (0.3, 0.5, 0.7, 0.9)
LEVELS = ((6, 48), (6, 32))


@dataclass(frozen=True)
class Run:
    """What one training gave.

    Attributes:
        closed: Share of the gates that are closed.
        flops: FLOPs per example of the folded network.
        auc: Test AUC by task.
    """

    closed: float
    flops: int
    auc: dict[str, float]


def trained(
    source: Source,
    seed: int,
    sparsity: Any = None,
    width: float = 1.0,
    select: bool = False,
) -> keras.Model:
    """The demo's network, narrower or with gates on the fields."""
    keras.utils.set_random_seed(seed)
    settings = source.training
    features: Any = adapt(source.features, source.train[0])
    if select:
        features = Encoder(features, hard_concrete={})
    levels = [(count, round(width * units)) for count, units in LEVELS]
    model = snr(features, source.tasks, levels, dropout=settings.dropout)
    data = batches(*source.train, settings.batch_size, shuffle=True, seed=seed)
    steps = settings.epochs * int(data.cardinality())
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), metrics={}, sparsity=sparsity)
    model.fit(data, epochs=settings.epochs, shuffle=False, verbose=0)
    return model


def scored(model: keras.Model, source: Source) -> Run:
    """Test AUC and cost of the folded network."""
    folded = fold(model)
    scores = predict(folded, source.test)
    share = open_share(model)
    found = {
        name: auc(labels.ravel(), scores[name].ravel())
        for name, labels in source.test[1].items()
    }
    return Run(1 - share.served / share.total, structure(folded).flops, found)


def width_of(source: Source, flops: float) -> float:
    """The width of a dense network of as many FLOPs, as a share of the demo's."""
    features = adapt(source.features, source.train[0])

    def cost(width: float) -> int:
        levels = [(count, max(round(width * units), 1)) for count, units in LEVELS]
        model = snr(features, source.tasks, levels)
        for gate in gates(model):
            gate.set_log_alpha(4.0)
        return structure(fold(model)).flops

    widths = np.arange(2, LEVELS[0][1] + 1) / LEVELS[0][1]
    low, high = 0, len(widths) - 1
    while low < high:
        middle = (low + high) // 2
        if cost(widths[middle]) < flops:
            low = middle + 1
        else:
            high = middle
    return float(widths[low])


def shares(source: Source, seeds: Sequence[int], out: Path | None) -> None:
    """Prints the table of one source, and draws it."""
    names = [task.name for task in source.tasks]
    print(f"\n**{source.name}**, {len(seeds)} seeds: mean ± standard deviation\n")
    print("| asked | closed | FLOPs |", " | ".join(names), "|")
    print("|---|---|---|" + "---|" * len(names), flush=True)
    rows: dict[str, list[list[Run]]] = {"sparse": [], "dense": []}
    whole = [scored(trained(source, seed), source) for seed in seeds]
    _print_row("nothing", whole)
    rows["sparse"].append(whole)
    rows["dense"].append(whole)
    for asked in CLOSED:
        runs = [
            scored(trained(source, seed, Target(round(1 - asked, 2))), source)
            for seed in seeds
        ]
        _print_row(f"{asked:.0%}", runs)
        rows["sparse"].append(runs)
        width = width_of(source, float(np.mean([run.flops for run in runs])))
        runs = [scored(trained(source, seed, None, width), source) for seed in seeds]
        _print_row(f"dense, width × {width:.2f}", runs)
        rows["dense"].append(runs)
    if out is not None:
        _draw(rows, names, source.name, out)


def _print_row(label: str, runs: list[Run]) -> None:
    closed = " / ".join(f"{run.closed:.1%}" for run in runs)
    flops = f"{np.mean([run.flops for run in runs]):,.0f}"
    cells = []
    for name in runs[0].auc:
        values = [run.auc[name] for run in runs]
        cells.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}")
    print(f"| {label} | {closed} | {flops} |", " | ".join(cells), "|", flush=True)


def _draw(
    rows: dict[str, list[list[Run]]], names: list[str], title: str, out: Path
) -> None:
    figure = Figure(figsize=(3.2 * len(names), 3.2))
    axes = figure.subplots(1, len(names))
    for axis, name in zip(axes, names, strict=True):
        for label, marker in (("sparse", "o-"), ("dense", "s--")):
            x = [np.mean([run.flops for run in runs]) / 1e3 for runs in rows[label]]
            y = [[run.auc[name] for run in runs] for runs in rows[label]]
            legend = "routed, closed, folded" if label == "sparse" else "dense, narrow"
            spread = [np.std(values, ddof=1) for values in y]
            axis.errorbar(x, np.mean(y, axis=1), spread, fmt=marker, label=legend)
        axis.set_title(name)
        axis.set_xlabel("thousand FLOPs per example")
    axes[0].set_ylabel("test AUC")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    kind = title.split()[0].split("-")[0].strip(",").lower()
    figure.savefig(out / f"sparsity_{kind}.png", dpi=120)


def fields(source: Source, seeds: Sequence[int]) -> None:
    """Prints what closing half of the fields costs."""
    names = [task.name for task in source.tasks]
    print(f"\n**{source.name}**, half of the fields closed\n")
    print("| seed | fields | SavedModel weights, bytes |", " | ".join(names), "|")
    print("|---|---|---|" + "---|" * len(names), flush=True)
    gated = field_gates(source)
    for seed in seeds:
        for sparsity in (None, Target(0.5, layers=gated)):
            model = trained(source, seed, sparsity, select=True)
            run = scored(model, source)
            with tempfile.TemporaryDirectory() as folder:
                size = export(fold(model), folder).scan.weight_bytes
            opened = [g for g in gates(model) if len(g.shape) == 1]
            count = sum(int(np.sum(np.asarray(g(training=False)) > 0)) for g in opened)
            total = sum(g.shape[0] for g in opened)
            cells = [f"{run.auc[name]:.4f}" for name in names]
            row = f"| {seed} | {count} of {total} | {size:,} | " + " | ".join(cells)
            print(f"{row} |", flush=True)


def finetune(source: Source, seeds: Sequence[int]) -> None:
    """Prints what training the folded network further gives."""
    names = [task.name for task in source.tasks]
    print(f"\n**{source.name}**, 90 % closed, folded, then trained further\n")
    print("| seed | |", " | ".join(names), "|")
    print("|---|---|" + "---|" * len(names), flush=True)
    for seed in seeds:
        folded = fold(trained(source, seed, Target(0.1)))
        _print_scores(seed, "folded", folded, source)
        data = batches(
            *source.train, source.training.batch_size, shuffle=True, seed=seed
        )
        steps = int(data.cardinality()) // 2
        peak = source.training.learning_rate / 10
        rate = keras.optimizers.schedules.CosineDecay(peak, steps)
        folded.compile(keras.optimizers.Adam(rate), metrics={})
        folded.fit(data.take(steps), shuffle=False, verbose=0)
        _print_scores(seed, "trained on", folded, source)


def _print_scores(seed: int, label: str, model: keras.Model, source: Source) -> None:
    scores = predict(model, source.test)
    found = [
        auc(labels.ravel(), scores[name].ravel())
        for name, labels in source.test[1].items()
    ]
    cells = " | ".join(f"{value:.4f}" for value in found)
    print(f"| {seed} | {label} | {cells} |", flush=True)


def field_gates(source: Source) -> list[str]:
    """Names of the layers that gate fields."""
    features = adapt(source.features, source.train[0])
    model = snr(Encoder(features, hard_concrete={}), source.tasks)
    found = [gate for gate in gates(model) if len(gate.shape) == 1]
    return [gate.theta.path.split("/")[0] for gate in found]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["share", "fields", "finetune"])
    parser.add_argument("--census", type=Path)
    parser.add_argument("--kuairand", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sources = []
    if options.census:
        sources.append(census_income(options.census, options.cache))
    if options.kuairand:
        sources.append(kuairand_pure(options.kuairand, options.cache))
    for source in sources:
        if options.what == "share":
            shares(source, options.seeds, options.out)
        elif options.what == "fields":
            fields(source, options.seeds)
        else:
            finetune(source, options.seeds)


if __name__ == "__main__":
    main()
