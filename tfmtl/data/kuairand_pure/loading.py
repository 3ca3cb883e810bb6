"""KuaiRand-Pure as columns in memory."""

import os
from typing import Literal

import numpy as np

from tfmtl.data import prepared
from tfmtl.data.kuairand_pure import columns
from tfmtl.data.kuairand_pure.builder import KuaiRandPure

_FIRST_TEST_DAY = np.datetime64("2022-05-05")
_MOST_DAYS = 9  # Of the ten in `train`.


def load(
    split: Literal["train", "validation", "test"],
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    *,
    validation_days: int = 0,
    history_length: int = columns.HISTORY_LENGTH,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Loads one split as arrays, preparing the dataset first where needed.

    Args:
        split: `"train"` (171,671 rows until 2022-05-04), `"test"` (56,658 rows from
            2022-05-05), or `"validation"`, the days held out of the training rows.
        data_dir: Where prepared datasets are kept. Defaults to TFDS's own place,
            `~/tensorflow_datasets`.
        manual_dir: Folder that holds the archive's CSV files, the archive, or the
            extract, see `KuaiRandPure`, to prepare from without a network. Read only
            when the dataset is not prepared yet. Defaults to a download from Zenodo.
        validation_days: How many of the last days of `"train"` are `"validation"`
            instead. Defaults to 0.
        history_length: How many videos of each history to give, the most recent ones,
            from 1 to 50. Defaults to 50.

    Returns:
        `(features, labels)`, in order of time. Features by column: `(n,)` `float32`
        for `NUMERIC_COLUMNS`, NaN where missing; `(n,)` `int64` for `INTEGER_COLUMNS`
        and `TIME_COLUMNS`, -1 where missing; `(n,)` bytes of a fixed width for
        `STRING_COLUMNS`, empty where missing; `(n, width)` `int64` for
        `SEQUENCE_COLUMNS`, padded with -1 at the end. Labels by task of `TASKS`:
        `(n, 1)` `float32`.

    Raises:
        FileNotFoundError: If `manual_dir` is needed and lacks a file.
        ValueError: If an argument is out of its range, the files are not the expected
            ones, or they were prepared in another file format than TFRecord.

    Example:

    ```python
    folder = "KuaiRand-Pure/data"
    features, labels = load("train", manual_dir=folder, validation_days=2)
    features["watched"].shape, labels["click"].mean()  # (135128, 50), 0.442
    validation = load("validation", validation_days=2)  # 2022-05-03 and -04
    ```
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(
            '`split` should be "train", "validation" or "test". '
            f"Received: split={split!r}"
        )
    lowest = int(split == "validation")
    if not lowest <= validation_days <= _MOST_DAYS:
        raise ValueError(
            f"`validation_days` should be from {lowest} to {_MOST_DAYS} for {split!r}. "
            f"Received: validation_days={validation_days}"
        )
    if not 1 <= history_length <= columns.HISTORY_LENGTH:
        raise ValueError(
            f"`history_length` should be from 1 to {columns.HISTORY_LENGTH}. "
            f"Received: history_length={history_length}"
        )
    stored = "test" if split == "test" else "train"
    features, labels = prepared.load(
        KuaiRandPure(data_dir=data_dir), stored, manual_dir
    )
    for name in columns.HISTORIES:
        features[name] = features[name][:, :history_length]
    if split != "test":
        first = _FIRST_TEST_DAY - np.timedelta64(validation_days, "D")
        held_out = features["date"] >= int(str(first).replace("-", ""))
        kept = held_out if split == "validation" else ~held_out
        features = {name: column[kept] for name, column in features.items()}
        labels = {task: column[kept] for task, column in labels.items()}
    return features, labels
