"""What fine-tuning gives: a task added to a trained model, and distillation.

`task` trains the demo's network on three tasks of KuaiRand-Pure, adds `profile_enter`,
freezes what was there and trains the new part for a quarter of the steps, against all
four tasks from scratch: a tower and a column of the last routing, or with copies of the
tables and what follows them. Four times the batch, so that the quarter of the steps is
one pass, and a rate of 1e-2 were chosen on the last days of the training file. `distil`
trains a network of which a fifth is left, with and without a dense teacher's outputs.
Each is scored on the test file once; other settings are the demo's.

    python benchmarks/finetuning.py task --kuairand <folder>
    python benchmarks/finetuning.py distil --census <folder> --seeds 0 1 2 3 4 5 6 7 8 9
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy import stats

from tfmtl.data import batches
from tfmtl.demo import Source, census_income, kuairand_pure, predict
from tfmtl.features import adapt
from tfmtl.finetuning import add_task, distil, freeze
from tfmtl.folding import fold
from tfmtl.metrics import auc
from tfmtl.models import snr
from tfmtl.sparsity import Target

LEVELS = ((6, 48), (6, 32))
NEW = "profile_enter"
BATCHES, RATE = 4, 1e-2  # Of the new task: demo's batches in one, learning rate.


def network(source: Source, features: Any, seed: int) -> Any:
    """The demo's network for the source's tasks."""
    keras.utils.set_random_seed(seed)
    return snr(features, source.tasks, LEVELS, dropout=source.training.dropout)


def fitted(
    model: Any,
    source: Source,
    seed: int,
    steps: int | None = None,
    sparsity: Any = None,
) -> Any:
    """The model after some steps, by default as many as the demo's."""
    settings = source.training
    data = batches(*source.train, settings.batch_size, shuffle=True, seed=seed)
    per_epoch = int(data.cardinality())
    steps = settings.epochs * per_epoch if steps is None else steps
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), metrics={}, sparsity=sparsity)
    per_epoch = min(steps, per_epoch)
    model.fit(
        data.repeat(),
        epochs=max(round(steps / per_epoch), 1),
        steps_per_epoch=per_epoch,
        shuffle=False,
        verbose=0,
    )
    return model


def aucs(model: Any, source: Source) -> dict[str, float]:
    """Test AUC by task."""
    scores = predict(model, source.test)
    labels = source.test[1]
    return {name: auc(labels[name].ravel(), scores[name].ravel()) for name in labels}


def of_tasks(source: Source, names: Sequence[str]) -> Source:
    """The source with some of its tasks."""
    chosen = [task for task in source.tasks if task.name in names]
    kept = [
        (columns, {name: labels[name] for name in names})
        for columns, labels in (source.train, source.test)
    ]
    return replace(source, tasks=chosen, train=kept[0], test=kept[1])


def task(source: Source, seeds: Sequence[int], share: float) -> None:
    """Prints the AUC of an added task against that of one trained from scratch."""
    old = [known.name for known in source.tasks if known.name != NEW]
    features = adapt(source.features, source.train[0])
    [new] = [known for known in source.tasks if known.name == NEW]
    three, one = of_tasks(source, old), of_tasks(source, [NEW])
    usual = source.training
    size = BATCHES * usual.batch_size
    one = replace(one, training=replace(usual, batch_size=size, learning_rate=RATE))
    rows = len(source.train[1][NEW])
    steps = int(share * usual.epochs * -(-rows // usual.batch_size))
    print("\n| seed | own | from scratch | added | difference | old scores moved by |")
    print("|---|---|---|---|---|---|", flush=True)
    differences: dict[str, list[float]] = {"": [], "embeddings": []}
    for seed in seeds:
        scratch = fitted(network(source, features, seed), source, seed)
        whole = aucs(scratch, source)[NEW]
        model = fitted(network(three, features, seed), three, seed)
        before = predict(model, three.test)
        for own, found in differences.items():
            grown = add_task(model, new, like=old[0], own=[own] if own else [])
            fitted(freeze(grown, but=[NEW]), one, seed, steps)
            after = predict(grown, source.test)
            moved = max(float(np.abs(after[n] - before[n]).max()) for n in old)
            added = aucs(grown, source)[NEW]
            found.append(added - whole)
            cells = f"{whole:.4f} | {added:.4f} | {added - whole:+.4f} | {moved}"
            print(f"| {seed} | {own} | {cells} |", flush=True)
    for own, found in differences.items():
        print(f"mean difference, {own}: {np.mean(found):+.4f} {interval(found)}")


def distillation(source: Source, seeds: Sequence[int], keep: float) -> None:
    """Prints what a teacher gives back of the AUC that sparsity cost."""
    features = adapt(source.features, source.train[0])
    names = [known.name for known in source.tasks]
    print(f"\n| seed | | {' | '.join(names)} | mean |")
    print("|---|---|" + "---|" * (len(names) + 1), flush=True)
    lost, recovered = [], []
    for seed in seeds:
        dense = fitted(network(source, features, seed), source, seed)
        plain = fitted(
            network(source, features, seed), source, seed, sparsity=Target(keep)
        )
        student = network(source, features, seed)
        fitted(distil(student, dense), source, seed, sparsity=Target(keep))
        means = []
        for label, model in (
            ("dense", dense),
            ("sparse", fold(plain)),
            ("distilled", fold(student)),
        ):
            found = aucs(model, source)
            means.append(float(np.mean([*found.values()])))
            cells = " | ".join(f"{found[name]:.4f}" for name in names)
            print(f"| {seed} | {label} | {cells} | {means[-1]:.5f} |", flush=True)
        lost.append(means[0] - means[1])
        recovered.append(means[2] - means[1])
    print(f"lost by sparsity {np.mean(lost):.5f} {interval(lost)}")
    print(f"won by distillation {np.mean(recovered):.5f} {interval(recovered)}")
    print(f"share recovered {np.mean(recovered) / np.mean(lost):.2f}")


def interval(values: Sequence[float]) -> str:
    """The 95 % interval of a mean, by Student's t."""
    if len(values) < 2:
        return ""
    low, high = stats.t.interval(
        0.95, len(values) - 1, np.mean(values), stats.sem(values)
    )
    return f"({low:+.5f} … {high:+.5f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["task", "distil"])
    parser.add_argument("--census", type=Path)
    parser.add_argument("--kuairand", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.25, help="of the steps")
    parser.add_argument("--keep", type=float, default=0.2, help="of the connections")
    options = parser.parse_args()
    sources = []
    if options.census:
        sources.append(census_income(options.census, options.cache))
    if options.kuairand:
        sources.append(kuairand_pure(options.kuairand, options.cache))
    for source in sources:
        if options.what == "task":
            task(source, options.seeds, options.share)
        else:
            distillation(source, options.seeds, options.keep)


if __name__ == "__main__":
    main()
