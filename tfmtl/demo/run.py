"""Train, fold, export, verify, measure."""

import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfmtl.data import batches
from tfmtl.demo.sources import Rows, Source
from tfmtl.features import adapt
from tfmtl.folding import FoldReport, compare, fold
from tfmtl.metrics import auc, group_auc
from tfmtl.models import snr
from tfmtl.report import draw, topology
from tfmtl.serving import (
    Comparison,
    Export,
    compare_latency,
    export,
    run_in_cpp_session,
)
from tfmtl.sparsity import L0Ramp, open_share

_BATCH = 4096
Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Quality:
    """How well a task is predicted on the test rows.

    Attributes:
        auc: Exact AUC.
        group_auc: AUC within lists, a mean weighted by exposures; `None` where the
            source has no lists.
        calibration: Sum of predictions by sum of labels.
    """

    auc: float
    group_auc: float | None
    calibration: float


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Attributes:
        source: Name of the data.
        seconds: Wall time of training, seconds.
        before: Per task, quality of the trained model.
        after: The same of the folded model.
        open_connections: Connections whose gate is not 0 in serving. The fold keeps
            fewer where an open one leads nowhere or comes from a constant.
        report: Connections, sub-networks, parameters, FLOPs before and after.
        fold_difference: Largest difference of an output over the whole test set,
            folded against unfolded.
        serving_difference: The same, C++ session against folded Keras model.
        export_before: The unfolded SavedModel.
        export_after: The folded SavedModel.
        latency: Both SavedModels in the C++ session by batch size.
        picture: The topology as a picture.
    """

    source: str
    seconds: float
    before: dict[str, Quality]
    after: dict[str, Quality]
    open_connections: int
    report: FoldReport
    fold_difference: float
    serving_difference: float
    export_before: Export
    export_after: Export
    latency: dict[int, Comparison]
    picture: Path


def train(source: Source, seed: int = 0, l0: float | None = None) -> keras.Model:
    """Trains the demo's SNR network on a source.

    Args:
        source: The data and how to train on it.
        seed: Seed of initial weights, noise and order.
        l0: Final weight of the L0 penalty, 0 for a dense network. Defaults to the
            source's.
    """
    keras.utils.set_random_seed(seed)
    settings = source.training
    l0 = settings.l0 if l0 is None else l0
    features = adapt(source.features, source.train[0])
    model = snr(features, source.tasks, dropout=settings.dropout)
    data = batches(*source.train, settings.batch_size, shuffle=True, seed=seed)
    steps = settings.epochs * int(data.cardinality())
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate))
    ramp = L0Ramp(l0, settings.dense_epochs, settings.ramp_epochs) if l0 else None
    model.fit(
        data,
        epochs=settings.epochs,
        callbacks=[ramp] if ramp else [],
        shuffle=False,  # the data set shuffles itself
        verbose=2,
    )
    return model


def run(source: Source, folder: Path, seed: int = 0) -> Outcome:
    """Goes the whole way and keeps everything in a folder.

    Args:
        source: The data.
        folder: Where models and the picture are written.
        seed: Seed of initial weights, noise and order.

    Returns:
        What was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    model = train(source, seed)
    seconds = time.perf_counter() - started
    model.save(folder / "model.keras")
    picture = draw(topology(model), folder / "topology.png", source.name)
    folded = fold(model, _head(source.train, 256))
    folded.save(folder / "folded.keras")
    golden = _head(source.train, 64)
    before = export(model, folder / "unfolded", golden=golden)
    after = export(model, folder / "folded", golden=golden, fold=True)
    latency = compare_latency(before.path, after.path, _head(source.train, 512))
    scores = predict(model, source.test)
    folded_scores = predict(folded, source.test)
    served = run_in_cpp_session(after.path, source.test[0])
    return Outcome(
        source=source.name,
        seconds=seconds,
        before=quality(scores, source),
        after=quality(folded_scores, source),
        open_connections=open_share(model).served,
        report=compare(model, folded),
        fold_difference=difference(scores, folded_scores),
        serving_difference=difference(folded_scores, served),
        export_before=before,
        export_after=after,
        latency=latency,
        picture=picture,
    )


def predict(model: keras.Model, rows: Rows) -> Scores:
    """A model's outputs on all rows, by task."""
    return model.predict(batches(*rows, _BATCH), verbose=0)


def quality(scores: Scores, source: Source) -> dict[str, Quality]:
    """Quality of scores of the test rows, by task."""
    found = {}
    columns, of_tasks = source.test
    lists = None if source.lists is None else columns[source.lists]
    for task, labels in of_tasks.items():
        y, p = labels.ravel(), scores[task].ravel()
        within = None if lists is None else group_auc(y, p, lists)
        found[task] = Quality(auc(y, p), within, float(p.mean() / y.mean()))
    return found


def difference(scores: Scores, other: Scores) -> float:
    """The largest absolute difference of an output."""
    return max(float(np.max(np.abs(scores[task] - other[task]))) for task in scores)


def _head(rows: Rows, count: int) -> dict[str, np.ndarray]:
    return {name: values[:count] for name, values in rows[0].items()}
