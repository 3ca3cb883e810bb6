"""Data for the demo, with the settings chosen on its held-out training rows."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfmtl.data import census_income as census
from tfmtl.data import kuairand_pure as kuairand
from tfmtl.data import make_tasks
from tfmtl.features import Bucketized, Categorical, Numeric, Sequence
from tfmtl.features.specs import Feature
from tfmtl.tasks import Binary

Rows = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]

_HEAVY_TAILED = (
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "wage_per_hour",
)

_FEEDBACK = ("click", "long_view", "like", "profile_enter")
_SMALL = {"class_name": "RandomNormal", "config": {"stddev": 0.02}}


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
        lists: Column that says whose list a row is in, such as the user's id; `None`
            where there are no lists.
        days: Of each training row, the day; `None` where rows have no order.
    """

    name: str
    features: list[Feature]
    tasks: list[Binary]
    train: Rows
    test: Rows
    training: Training
    lists: str | None = None
    days: np.ndarray | None = None


def from_folder(
    folder: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None
) -> Source:
    """The data set whose files are in a folder.

    Args:
        folder: Folder with the files of Census-Income (KDD) or KuaiRand-Pure.
        data_dir: Where the prepared data set is kept.
    """
    is_kuairand = any("pure" in path.name.lower() for path in Path(folder).iterdir())
    made = kuairand_pure if is_kuairand else census_income
    return made(folder, data_dir)


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
    train = _as_columns(*census.load("train", data_dir, folder))
    return Source(
        name="Census-Income (KDD)",
        features=[
            *(Numeric(n, log=n in _HEAVY_TAILED) for n in census.NUMERIC_COLUMNS),
            *(Bucketized(name) for name in census.NUMERIC_COLUMNS),
            *(Categorical(name) for name in census.CATEGORICAL_COLUMNS),
        ],
        tasks=[Binary(name) for name in census.TASKS],
        train=train,
        test=_as_columns(*census.load("test", data_dir, folder)),
        training=Training(8, 1024, 2e-3, 0.1, 1e-2, 1, 3),
    )


def kuairand_pure(
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """KuaiRand-Pure: four tasks on 171,671 exposures, tested on the four days after.

    Ids, the users' histories until 2022-04-24 and what is known of user and video;
    one pass over the data, since ids are learned by heart in the second.

    Args:
        folder: Folder with the original files; downloaded without it.
        data_dir: Where the prepared data set is kept.
    """
    train, train_labels = kuairand.load("train", data_dir, folder)
    test, test_labels = kuairand.load("test", data_dir, folder)
    features = _kuairand_features()
    names = [feature.name for feature in features]
    return Source(
        name="KuaiRand-Pure, train until 2022-05-04, test from 05-05",
        features=features,
        tasks=[Binary(name) for name in _FEEDBACK],
        train=_as_columns(*_chosen(train, train_labels, names)),
        test=_as_columns(*_chosen(test, test_labels, names)),
        training=Training(1, 256, 4e-3, 0.0, 3e-2, 0.4, 0.3),
        lists="user_id",
        days=train["date"],
    )


def _kuairand_features() -> list[Feature]:
    embedded: dict[str, Any] = {"units": 16, "min_count": 2, "initializer": _SMALL}
    video: dict[str, Any] = {**embedded, "dtype": "int64", "table": "video"}
    ids = [name for name in kuairand.INTEGER_COLUMNS if name != "video_id"]
    return [
        *(Numeric(name, log=True) for name in kuairand.NUMERIC_COLUMNS),
        Categorical("video_id", **video),
        *(Categorical(name, dtype="int64", **embedded) for name in ids),
        *(Categorical(name, **embedded) for name in kuairand.STRING_COLUMNS),
        Sequence("tag", dtype="int64", length=3, **embedded),
        *(
            Sequence(name, pooling="attention", target="video_id", **video)
            for name in kuairand.HISTORIES
        ),
    ]


def _chosen(
    columns: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: list[str]
) -> Rows:
    return (
        {name: columns[name] for name in names},
        {task: labels[task] for task in _FEEDBACK},
    )


def held_out(source: Source, share: float = 0.1, seed: int = 0) -> Source:
    """The source with a share of its training rows in the test set's place.

    Settings are chosen on it, so that the test rows are read once, at the end. Where
    rows have days, these are the last days that together have the share, otherwise
    any rows.

    Args:
        source: The data.
        share: Share of the training rows, in (0, 1); the least where there are days.
        seed: Seed of the choice where there are no days.

    Raises:
        ValueError: If all of the days would be held out.
    """
    features, labels = source.train
    count = len(next(iter(labels.values())))
    days = source.days
    if days is None:
        order = np.random.default_rng(seed).permutation(count)
        chosen = np.zeros(count, bool)
        chosen[order[: round(share * count)]] = True
    else:
        chosen = days >= np.sort(days)[count - max(1, round(share * count))]
        if chosen.all():
            raise ValueError(
                "`share` should leave a day to train on. "
                f"Received: share={share} of days={np.unique(days).tolist()}"
            )

    def rows(kept: np.ndarray) -> Rows:
        return _taken(features, kept), _taken(labels, kept)

    days = None if days is None else days[~chosen]
    return replace(source, train=rows(~chosen), test=rows(chosen), days=days)


def _taken(columns: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in columns.items()}


def _as_columns(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Rows:
    columns = {
        name: values[:, None] if values.ndim == 1 else values
        for name, values in features.items()
    }
    return columns, labels
