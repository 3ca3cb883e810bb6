"""The TFDS builder of KuaiRand-Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfmtl.data.kuairand_pure import columns, files, parsing, tables
from tfmtl.data.packed_columns import PackedColumns

URL = "https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz"

Example = dict[str, dict[str, Any]]
"""`{"features": {column: value}, "labels": {task: (1,) float32}}`."""

_DESCRIPTION = """
KuaiRand-Pure: exposures of short videos in the Kuaishou app, and what users did then.
Here the 228,329 exposures of the standard recommender from 2022-04-25 to 2022-05-08,
each with its user, its video, and the videos that the user was shown, liked and viewed
long until 2022-04-24. Nine tasks: `click`, `long_view`, `like`, `follow`, `comment`,
`forward`, `profile_enter` and `hate`, 0 or 1, and `watch_time` in seconds. Split by
date: `train` until 2022-05-04 (171,671 rows), `test` from 2022-05-05 (56,658 rows). All
rows are kept, in order of time, also the 5,460 that repeat another one exactly.

What is known only after the exposure is not a feature. Nor are the averages of
`video_features_statistic_pure.csv`: they are taken over the whole month, test days
included, so the labels are in them. Left out because they are constant: `is_rand`,
`is_lowactive_period`, `visible_status`. A user has one row of features, undated.
"""

_CITATION = """
@inproceedings{gao2022kuairand,
  title = {KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed
           Videos},
  author = {Gao, Chongming and Li, Shijun and Zhang, Yuan and Chen, Jiawei and Li, Biao
            and Lei, Wenqiang and Jiang, Peng and He, Xiangnan},
  booktitle = {Proceedings of the 31st ACM International Conference on Information and
               Knowledge Management},
  year = {2022},
  pages = {3953--3957},
  doi = {10.1145/3511808.3557624}
}
"""


class KuaiRandPure(tfds.core.GeneratorBasedBuilder):
    """KuaiRand-Pure, splits `train` and `test` by date, rows in order of time.

    An example is `{"features": {column: value}, "labels": {task: (1,)}}`: the columns
    of `NUMERIC_COLUMNS`, `INTEGER_COLUMNS`, `STRING_COLUMNS`, `SEQUENCE_COLUMNS` and
    `TIME_COLUMNS`, the labels `float32`. With `as_supervised=True` it is the pair of
    both. The last days of `train` are held out by `date`, see the example and `load`.

    `watched`, `liked` and `long_watched` hold up to 50 video ids, the most recent first
    and -1 behind the last: what the standard recommender showed the user on dates until
    2022-04-24, clicked or not; what of it the user liked; what of it was a long view.
    `num_watched` counts all that was shown. `date`, which splits, is the log's own and
    runs ahead of `time_ms`, mostly by minutes; `hour` and `day_of_week` (Beijing) are
    those of `time_ms`.

    Files are the archive's (Gao et al., CIKM 2022), downloaded from Zenodo, or read
    without any network from `manual_dir`: the archive, the CSV files in it, or an
    extract of it, the exposures from 2022-04-25 and the histories as Parquet. CSV files
    are verified byte for byte, Parquet files by their columns and numbers of rows. Of
    the archive, histories are made here in the way in which the extract's were, as far
    as it shows: those count the archive's 1,208,280 earlier rows, are in order of time,
    and have likes and long views among what was shown; that its "long watch" is the
    log's `long_view` is inferred. The licence is CC BY-SA 4.0: what is made of the data
    and passed on is under the same licence.

    Example:

    ```python
    builder = KuaiRandPure(data_dir="prepared")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir="KuaiRand-Pure/data")
    )
    train = builder.as_dataset(split="train", as_supervised=True)
    fitted = train.filter(lambda features, labels: features["date"] < 20220503)
    ```
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Not needed with a network. Without one, put into `manual_dir` either "
        "`KuaiRand-Pure.tar.gz`, or what it holds, or the extract: "
        f"{', '.join(f'`{name}`' for name in files.EXTRACT_FILES)}; each file plain, "
        "`.gz` or `.xz`."
    )
    SHA256: Mapping[str, str] = files.SHA256
    NUM_ROWS: Mapping[str, int] = files.NUM_ROWS

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.Tensor(shape=(1,), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "features": PackedColumns(
                        columns.NUMERIC_COLUMNS,
                        columns.STRING_COLUMNS,
                        columns.TIME_COLUMNS + columns.INTEGER_COLUMNS,
                        columns.SEQUENCE_COLUMNS,
                    ),
                    "labels": {task: label for task in columns.TASKS},
                }
            ),
            supervised_keys=("features", "labels"),
            disable_shuffling=True,
            homepage="https://kuairand.com",
            citation=_CITATION,
            license="CC BY-SA 4.0",
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
    ) -> dict[str, Iterator[tuple[int, Example]]]:
        try:
            paths = files.find(dl_manager.manual_dir)
        except (AssertionError, FileNotFoundError):  # TFDS asserts that it exists.
            archive = dl_manager.download(URL)
            paths = dict.fromkeys(files.ARCHIVE_FILES, archive)
        raw = tables.read(paths, self.SHA256, self.NUM_ROWS)
        return {
            split: self._generate_examples(raw, split) for split in ("train", "test")
        }

    def _generate_examples(
        self, raw: tables.Tables, split: str
    ) -> Iterator[tuple[int, Example]]:
        features, labels = parsing.parse(raw, split)
        rows = zip(*map(_values, features.values()), strict=True)
        targets = zip(*(column[:, None] for column in labels.values()), strict=True)
        for key, (row, target) in enumerate(zip(rows, targets, strict=True)):
            yield (
                key,
                {
                    "features": dict(zip(features, row, strict=True)),
                    "labels": dict(zip(labels, target, strict=True)),
                },
            )


def _values(column: np.ndarray) -> Any:
    """A column's rows: Python's scalars, which are fast to pack, or arrays."""
    return column.tolist() if column.ndim == 1 else column
