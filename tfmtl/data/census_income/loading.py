"""Census-Income as columns in memory."""

import os
from typing import Literal

import numpy as np

from tfmtl.data import prepared
from tfmtl.data.census_income.builder import CensusIncome


def load(
    split: Literal["train", "test"],
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Loads one split as arrays, preparing the dataset first where needed.

    Args:
        split: `"train"` (199,523 rows) or `"test"` (99,762 rows).
        data_dir: Where prepared datasets are kept. Defaults to TFDS's own place,
            `~/tensorflow_datasets`.
        manual_dir: Folder that holds `census-income.data` and `census-income.test`,
            each plain, `.gz` or `.xz`, to prepare from without a network. Read only
            when the dataset is not prepared yet. Defaults to a download from UCI.

    Returns:
        `(features, labels)`, in the files' order: per column an array `(n,)`,
        `float32` for `NUMERIC_COLUMNS` and bytes of a fixed width for
        `CATEGORICAL_COLUMNS`; per task of `TASKS` an array `(n, 1)` of `float32`.

    Raises:
        FileNotFoundError: If `manual_dir` is needed and lacks a file.
        ValueError: If the split is unknown, the files are not the expected ones, or
            they were prepared in another file format than TFRecord.

    Example:

    ```python
    features, labels = load("train", manual_dir="census-income")
    features["age"].shape, labels["income"].mean()  # (199523,), 0.062
    ```
    """
    if split not in ("train", "test"):
        raise ValueError(
            f'`split` should be "train" or "test". Received: split={split!r}'
        )
    return prepared.load(CensusIncome(data_dir=data_dir), split, manual_dir)
