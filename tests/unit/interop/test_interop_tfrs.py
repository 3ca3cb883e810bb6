"""TFRS needs Keras 2, which one process cannot have beside this one's: in others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FILES = sorted((HERE / "tfrs").glob("test_*.py"))
SETTING = 'os.environ["TF_USE_LEGACY_KERAS"] = "1"'


def in_own_process(*arguments, legacy="1"):
    """What Python prints, and how it ends."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    environment |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if legacy:
        environment["TF_USE_LEGACY_KERAS"] = legacy
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_tests(path, *options):
    done = in_own_process("-m", "pytest", "-q", "-p", "no:xdist", path, *options)
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    return done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_under_keras_2(path):
    passed = re.search(r"(\d+) passed", run_tests(path))
    assert int(passed[1]) > 0


def test_modules_are_documented_and_their_examples_run():
    chosen = "interop.tfrs or documented or front_door"
    out = run_tests(ROOT / "tests/unit/test_package.py", "-k", chosen)
    assert int(re.search(r"(\d+) passed", out)[1]) >= 9


def test_without_the_setting_the_error_tells_it():
    done = in_own_process("-c", "import tfmtl.interop.tfrs", legacy=None)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: TensorFlow Recommenders needs Keras 2: ")
    assert f"`{SETTING}` should be the first lines of the program" in error
    assert "before the first import of tensorflow, keras, tensorflow_reco" in error
    assert "Received: TF_USE_LEGACY_KERAS=None now" in error


def test_a_late_setting_is_told():
    code = f"import os, tensorflow as tf; tf.keras.layers; {SETTING}\n"
    done = in_own_process("-c", f"{code}import tfmtl.interop.tfrs", legacy=None)
    assert done.returncode == 1
    assert "Received: TF_USE_LEGACY_KERAS='1' now" in done.stderr


def test_a_missing_keras_2_is_told():
    code = "import sys; sys.modules['tf_keras'] = None; import tfmtl.interop.tfrs"
    done = in_own_process("-c", code)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert "Keras 2, which `pip install tf-keras` installs" in error


def test_keras_stays_keras_3():
    code = (
        "import keras, tensorflow as tf, tfmtl.interop.tfrs;"
        "print(keras.__version__[0], tf.keras.layers.Layer.__module__)"
    )
    assert in_own_process("-c", code).stdout.startswith("3 tf_keras.")


def test_the_room_itself_is_light():
    code = "import sys, tfmtl; tfmtl.interop; print(*sys.modules)"
    loaded = in_own_process("-c", code, legacy=None).stdout.split()
    assert "tfmtl.interop" in loaded
    assert not {"tf_keras", "tensorflow_recommenders", "keras_tuner"} & {*loaded}
