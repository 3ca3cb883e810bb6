"""Where local data is: the folder of `TFMTL_DATA`, else `../shared/data`."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / os.environ.get("TFMTL_DATA", "../shared/data")


def data_folder(name, title):
    """The folder of a data set's original files; skips where there is none."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"no {title} files in the folder of TFMTL_DATA")
    return folder


@pytest.fixture(scope="session")
def census_folder():
    """The folder of the original Census-Income files."""
    return data_folder("census-income", "Census-Income")


@pytest.fixture(scope="session")
def kuairand_folder():
    """The folder of the extract of KuaiRand-Pure."""
    return data_folder("kuairand-pure", "KuaiRand-Pure")


@pytest.fixture(scope="session")
def movielens_folder():
    """The folder of MovieLens' original archive."""
    return data_folder("movielens-latest-small", "MovieLens")
