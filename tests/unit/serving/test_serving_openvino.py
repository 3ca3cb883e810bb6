"""OpenVINO, which reads a SavedModel without TensorFlow, gives the same outputs."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from side_doors import MODELS, columns, inputs_of, make_model

from tfmtl.serving import export, run_in_cpp_session

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("openvino"), reason="needs openvino"
)

CHILD = """
import sys
import numpy as np
import openvino

folder, inputs, outputs = sys.argv[1:]
model = openvino.convert_model(folder)
compiled = openvino.Core().compile_model(
    model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
)
with np.load(inputs) as rows:
    answers = compiled(dict(rows))
named = {next(iter(key.get_names())): value for key, value in answers.items()}
assert "tensorflow" not in sys.modules
np.savez(outputs, **named)
"""


def run(version, rows, folder):
    """Outputs of a process of its own."""
    np.savez(folder / "in.npz", **rows)
    files = [str(folder / "in.npz"), str(folder / "out.npz")]
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(version), *files],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    with np.load(files[1]) as outputs:
        return dict(outputs)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_tensorflow(name, tmp_path):
    rows = columns(largest=60)
    model = make_model(name, hashed=False, rows=rows)
    rows = inputs_of(model, rows)
    version = export(model, tmp_path / "ranker").path
    expected, got = run_in_cpp_session(version, rows), run(version, rows, tmp_path)
    assert set(got) == {"click", "time"}
    for task, value in got.items():
        assert np.ptp(expected[task]) > 1e-3
        np.testing.assert_allclose(value, expected[task], 1e-6, 1e-6)


def test_hashed_ids_are_computed_in_32_bits(tmp_path):
    """Hence the manual's advice: no hashed ids with OpenVINO."""
    model = make_model("mmoe")
    rows = inputs_of(model, columns())
    version = export(model, tmp_path / "ranker", golden=rows).path
    expected, got = run_in_cpp_session(version, rows), run(version, rows, tmp_path)
    assert np.max(np.abs(got["click"] - expected["click"])) > 1e-4
