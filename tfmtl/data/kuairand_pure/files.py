"""The raw files, in two layouts: where they are and what they should be."""

import os
from pathlib import Path

from tfmtl.data import raw_files

EARLY_LOG = "log_standard_4_08_to_4_21_pure.csv"
LATE_LOG = "log_standard_4_22_to_5_08_pure.csv"
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
EXTRACT_LOG = "log_standard_4_25_to_5_08_pure.parquet"
EXTRACT_HISTORIES = "user_sequences_until_4_24.parquet"

ARCHIVE = "KuaiRand-Pure.tar.gz"
ARCHIVE_FILES = (EARLY_LOG, LATE_LOG, USERS, VIDEOS)
EXTRACT_FILES = (EXTRACT_LOG, EXTRACT_HISTORIES, USERS, VIDEOS)

SHA256 = {
    EARLY_LOG: "5bb6eb0b3d9f47e5436cb5dc82ee1899b845ebf9750a5560b801e929e18bd41c",
    LATE_LOG: "429e3b948828942e572f2c3a5be5a25799ffe75591d22d18cf417b9b534d31fd",
    USERS: "dc729a656301b4c6d07f713fe41d05ec9bfaab670b90e531c70037caf033c011",
    VIDEOS: "a6f7ee02684c5777422306cdc416e170302288aa89aca9dfea995edbd625bcc2",
}
"""CSV file to the checksum of its decompressed bytes."""

NUM_ROWS = {EXTRACT_LOG: 228_329, EXTRACT_HISTORIES: 26_469}
"""Parquet file, which may be written in many ways, to its number of rows."""


def find(directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Finds the files of either layout; the extract's before the archive's.

    Args:
        directory: A folder that holds the four files of the extract; or the four CSV
            files, there or in its `KuaiRand-Pure/data`; or `KuaiRand-Pure.tar.gz`.

    Returns:
        Name to path, for the files of one layout.

    Raises:
        FileNotFoundError: If one of the layout's files is not there.
    """
    folder = Path(directory).expanduser()
    if (folder / EXTRACT_LOG).is_file():
        return raw_files.find(folder, EXTRACT_FILES)
    if (folder / ARCHIVE).is_file():
        return dict.fromkeys(ARCHIVE_FILES, folder / ARCHIVE)
    extracted = folder / "KuaiRand-Pure" / "data"
    return raw_files.find(extracted if extracted.is_dir() else folder, ARCHIVE_FILES)
