"""The models under test as files, and what they answer in a process of its own."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import CASES

SCRIPT = Path(__file__).with_name("other_process.py")
WARNINGS = (
    "error",
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    # JAX has 64-bit types only where they are switched on
    "ignore:Explicitly requested dtype int64:UserWarning",
)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for case in CASES:
        case.model().save(folder / f"{case.id}.keras")
    return folder


@pytest.fixture(scope="session")
def elsewhere(saved):
    """Starts a process on a backend; returns its answers by case, or file name."""

    @functools.cache
    def start(backend):
        path = os.pathsep.join(sys.path)
        process = subprocess.run(
            [sys.executable, *(f"-W{rule}" for rule in WARNINGS), SCRIPT, saved],
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return lambda case: read(saved / backend / f"{getattr(case, 'id', case)}.npz")

    return start


def read(path):
    with np.load(path) as found:
        assert "error" not in found, str(found["error"])
        return dict(found)
