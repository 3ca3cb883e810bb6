"""The examples of `docs/` run as they are printed, a page as one script."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path for path in sorted(ROOT.glob("docs/*.md"))}

# What a page needs beside the environment of this process: a variable's value, or the
# fixture of the folder that it names.
VARIABLES = {"tfrs": {"TF_USE_LEGACY_KERAS": "1"}}
FOLDERS = {name: {"MOVIELENS": "movielens_folder"} for name in ("tfds", "tfrs")}


def script(page):
    """The page's examples, one after the other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs(name, tmp_path, request):
    folders = {
        variable: str(request.getfixturevalue(fixture).resolve())
        for variable, fixture in FOLDERS.get(name, {}).items()
    }
    (tmp_path / "page.py").write_text(script(PAGES[name]), "utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TFDS_DATA_DIR": str(tmp_path / "tfds"),
            **VARIABLES.get(name, {}),
            **folders,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_examples(name):
    compile(script(PAGES[name]), name, "exec")
    assert script(PAGES[name])


def test_what_pages_need_is_that_of_pages():
    assert set(FOLDERS) <= set(PAGES)
