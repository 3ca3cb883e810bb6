"""Where local data is: the folder of `TFMTL_DATA`, else `../shared/data`."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / os.environ.get("TFMTL_DATA", "../shared/data")


@pytest.fixture(scope="session")
def census_folder():
    """The folder of the original Census-Income files."""
    folder = DATA / "census-income"
    if not folder.is_dir():
        pytest.skip("no Census-Income files in the folder of TFMTL_DATA")
    return folder
