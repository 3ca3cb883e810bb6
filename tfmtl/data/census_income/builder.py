"""The TFDS builder of Census-Income (KDD)."""

import os
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from tfmtl.data.census_income import columns, files, parsing
from tfmtl.data.packed_columns import PackedColumns

URL = "https://archive.ics.uci.edu/static/public/117/census+income+kdd.zip"

_DESCRIPTION = """
Census-Income (KDD): persons in the Current Population Surveys of 1994 and 1995, in the
split of its donors (199,523 and 99,762 rows). Three binary tasks: `income` above
50,000 dollars, `never_married`, and `college`, at least an Associates degree. The
columns that the labels are made of, and the survey's instance weight, are not features.
All rows are kept in the order of the files, including those that are equal or that
differ in their labels alone. Ma et al., KDD 2018, made a multi-task benchmark of it.
"""

_CITATION = """
@misc{census_income_kdd,
  title = {Census-Income (KDD)},
  year = {2000},
  howpublished = {UCI Machine Learning Repository},
  doi = {10.24432/C5N30T}
}
"""


class CensusIncome(tfds.core.GeneratorBasedBuilder):
    """Census-Income (KDD), splits `train` and `test`, rows in the files' order.

    An example is `{"features": {column: scalar}, "labels": {task: (1,)}}`: numeric
    columns `float32`, categorical ones strings, labels `float32` 0 or 1. With
    `as_supervised=True` it is the pair of both. Files are downloaded from UCI, or
    read without any network from `manual_dir` where that holds them; either way they
    are verified, byte for byte.

    Example:

    ```python
    builder = CensusIncome(data_dir="prepared")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir="census-income")
    )
    dataset = builder.as_dataset(split="train", as_supervised=True)
    ```
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Not needed with a network. Without one, put `census-income.data` and "
        "`census-income.test`, each plain, `.gz` or `.xz`, into `manual_dir`."
    )
    SHA256: Mapping[str, str] = files.SHA256

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.Tensor(shape=(1,), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "features": PackedColumns(
                        columns.NUMERIC_COLUMNS, columns.CATEGORICAL_COLUMNS
                    ),
                    "labels": {task: label for task in columns.TASKS},
                }
            ),
            supervised_keys=("features", "labels"),
            disable_shuffling=True,
            homepage="https://archive.ics.uci.edu/dataset/117/census+income+kdd",
            citation=_CITATION,
            license="CC BY 4.0",
        )

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        # A `manual_dir` that was asked for is a promise; TFDS's default is not.
        if download_config.manual_dir is not None:
            files.find(download_config.manual_dir)
        super()._download_and_prepare(dl_manager, download_config)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, parsing.Example]]]:
        try:
            paths = files.find(dl_manager.manual_dir)
        except (AssertionError, FileNotFoundError):  # TFDS asserts that it exists.
            archive = dl_manager.download(URL)
            paths = dict.fromkeys(files.FILES, archive)
        return {
            split: self._generate_examples(path, split) for split, path in paths.items()
        }

    def _generate_examples(
        self, path: str | os.PathLike[str], split: str
    ) -> Iterator[tuple[int, parsing.Example]]:
        raw = files.read(path, split, self.SHA256[split])
        yield from enumerate(parsing.parse(raw, files.FILES[split]))
