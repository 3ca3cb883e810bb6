"""Data for the demo, with the settings chosen on its held-out training rows."""

import os
from dataclasses import dataclass

import numpy as np

from tfmtl.data import make_tasks
from tfmtl.data.census_income import CATEGORICAL_COLUMNS, NUMERIC_COLUMNS, load
from tfmtl.features import Categorical, Numeric
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
        validation: Rows of the training file held out to watch training.
        test: Columns and labels that are read once, at the end.
        training: How to train.
    """

    name: str
    features: list[Feature]
    tasks: list[Binary]
    train: Rows
    validation: Rows
    test: Rows
    training: Training


def synthetic(num_examples: int = 100_000) -> Source:
    """Two tasks of correlation .5 after MMoE's recipe; no file, no network.

    Args:
        num_examples: Training rows; a tenth as many each to validate and to test.
    """
    few = num_examples // 10
    sizes = {"train": num_examples, "validation": few, "test": few}
    train, validation, test = (
        make_tasks(size, num_features=20, correlation=0.5, seed=seed)
        for seed, size in enumerate(sizes.values(), 1)
    )
    return Source(
        name=f"synthetic tasks of correlation 0.5, {num_examples:,} training rows",
        features=[Numeric("x", width=20)],
        tasks=[Binary(name) for name in train.labels],
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        training=Training(10, 512, 2e-3, 0.0, 1e-2, 2, 3),
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
    features, labels = load("train", data_dir, folder)
    order = np.random.default_rng(0).permutation(len(labels["income"]))
    held_out = len(order) // 10
    return Source(
        name="Census-Income (KDD)",
        features=[
            *(Numeric(name, log=name in _HEAVY_TAILED) for name in NUMERIC_COLUMNS),
            *(Categorical(name) for name in CATEGORICAL_COLUMNS),
        ],
        tasks=[Binary(name) for name in labels],
        train=_rows(features, labels, order[held_out:]),
        validation=_rows(features, labels, order[:held_out]),
        test=_rows(*load("test", data_dir, folder), slice(None)),
        training=Training(10, 1024, 2e-3, 0.1, 1e-2, 1, 3),
    )


def _rows(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], rows: object
) -> Rows:
    columns = {name: values[rows].reshape(-1, 1) for name, values in features.items()}
    return columns, {name: values[rows] for name, values in labels.items()}
