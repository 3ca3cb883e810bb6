"""What the README shows runs as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


def run(example, folder):
    script = folder / "example.py"
    script.write_text(example, "utf-8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_example_runs_in_an_empty_folder(tmp_path):
    assert len(EXAMPLES[0].splitlines()) <= 30
    assert "connections" in run(EXAMPLES[0], tmp_path)
    assert (tmp_path / "models" / "ranker" / "1" / "saved_model.pb").is_file()


def test_a_folded_model_trains_on(tmp_path):
    [_, example, _] = EXAMPLES
    script = f"{example}\nprint(model.count_params(), folded.count_params())\n"
    before, after = map(int, run(script, tmp_path).split()[-2:])
    assert after < before / 2
    assert (tmp_path / "ranker.keras").is_file()


def test_the_composition_trains_folds_and_exports(tmp_path):
    [_, _, example] = EXAMPLES
    network = re.search(r"^inputs = .*^model = [^\n]*", example, re.S | re.M)
    assert len(network[0].splitlines()) <= 20
    table = re.search(r"^connections +(\d+) +(\d+)", run(example, tmp_path), re.M)
    before, after = map(int, table.groups())
    assert 0 < after < before
    assert (tmp_path / "models" / "composed" / "1" / "saved_model.pb").is_file()


def test_the_commands_it_names_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"^make ([\w-]+)", README, re.M))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_ci_runs_the_checks_that_it_names():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    checks = re.findall(r"^make ([\w-]+)\s+# in CI", README, re.M)
    assert checks
    for check in checks:
        assert f"make {check}" in script
