"""Data for the demo, with the settings chosen on its held-out training rows."""

import os
from dataclasses import dataclass, replace

import numpy as np

from tfmtl.data import make_tasks
from tfmtl.data.census_income import CATEGORICAL_COLUMNS, NUMERIC_COLUMNS, TASKS, load
from tfmtl.features import Bucketized, Categorical, Numeric
from tfmtl.features.specs import Feature
from tfmtl.tasks import Binary

Rows = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]

_HEAVY_TAILED = (
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "wage_per_hour",
)


@dataclass(frozen=True)
class Training:
    """How a source is trained on.

    Attributes:
        epochs: Passes over the training rows.
        batch_size: Rows per step.
        learning_rate: Of Adam at the start; it falls to 0 along a cosine.
        dropout: Share of values dropped after each level.
        l0: Final weight of the L0 penalty.
        dense_epochs: Epochs without penalty.
        ramp_epochs: Epochs over which the penalty rises.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    dropout: float
    l0: float
    dense_epochs: float
    ramp_epochs: float


@dataclass(frozen=True)
class Source:
    """A data set, split, with feature and task specifications.

    Attributes:
        name: What the screen calls it.
        features: Specifications, not adapted yet.
        tasks: The tasks.
        train: Columns and labels to train on.
        test: Columns and labels that are read once, at the end.
        training: How to train.
    """

    name: str
    features: list[Feature]
    tasks: list[Binary]
    train: Rows
    test: Rows
    training: Training


def synthetic(num_examples: int = 100_000) -> Source:
    """Two tasks of correlation .5 after MMoE's recipe; no file, no network.

    Args:
        num_examples: Training rows; a fifth as many to test.
    """
    train = make_tasks(num_examples, num_features=20, correlation=0.5, seed=1)
    test = make_tasks(num_examples // 5, num_features=20, correlation=0.5, seed=2)
    return Source(
        name=f"synthetic tasks of correlation 0.5, {num_examples:,} training rows",
        features=[Numeric("x", width=20)],
        tasks=[Binary(name) for name in train.labels],
        train=(train.features, train.labels),
        test=(test.features, test.labels),
        training=Training(12, 512, 2e-3, 0.0, 0.12, 2, 4),
    )


def census_income(
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """Census-Income (KDD): three tasks on 199,523 training rows.

    Args:
        folder: Folder with the two original files; downloaded without it.
        data_dir: Where the prepared data set is kept.
    """
    train = _as_columns(*load("train", data_dir, folder))
    return Source(
        name="Census-Income (KDD)",
        features=[
            *(Numeric(name, log=name in _HEAVY_TAILED) for name in NUMERIC_COLUMNS),
            *(Bucketized(name) for name in NUMERIC_COLUMNS),
            *(Categorical(name) for name in CATEGORICAL_COLUMNS),
        ],
        tasks=[Binary(name) for name in TASKS],
        train=train,
        test=_as_columns(*load("test", data_dir, folder)),
        training=Training(8, 1024, 2e-3, 0.1, 1e-2, 1, 3),
    )


def held_out(source: Source, share: float = 0.1, seed: int = 0) -> Source:
    """The source with a share of its training rows in the test set's place.

    Settings are chosen on it, so that the test rows are read once, at the end.
    """
    features, labels = source.train
    count = len(next(iter(labels.values())))
    order = np.random.default_rng(seed).permutation(count)
    split = round(share * count)

    def rows(chosen: np.ndarray) -> Rows:
        return _taken(features, chosen), _taken(labels, chosen)

    return replace(source, train=rows(order[split:]), test=rows(order[:split]))


def _taken(columns: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in columns.items()}


def _as_columns(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Rows:
    return {name: values[:, None] for name, values in features.items()}, labels
