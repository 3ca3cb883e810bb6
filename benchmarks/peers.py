"""The training step of the stacked layers against that of DeepCTR's networks.

The MMoE and PLE of `layers.py`, and DeepCTR 0.9.4's of the same sizes and as many
parameters, with Adam, without dropout and regularisation. DeepCTR needs Keras 2 and so
an environment of its own:

    python -m venv /tmp/deepctr
    /tmp/deepctr/bin/pip install tensorflow==2.21.0 tf_keras==2.21.0 requests
    /tmp/deepctr/bin/pip install --no-deps deepctr==0.9.4

Each side is a process, and the two run a step in turns; a cell is the median of the
pairs' time of DeepCTR ÷ time of the stacked layers, with the 10th and 90th percentile.

    python benchmarks/peers.py --peer-python /tmp/deepctr/bin/python
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from layers import (
    EXPERT_UNITS,
    EXPERTS,
    INPUTS,
    LEVELS,
    SHARED,
    SPECIFIC,
    TOWER,
    cell,
    stacked_mmoe,
    stacked_ple,
    training_step,
)
from peers_deepctr import serve

STACKED = {"MMoE": stacked_mmoe, "PLE": stacked_ple}
PEERS: dict[str, dict[str, Any]] = {
    "MMoE": {
        "name": "MMOE",
        "num_experts": EXPERTS,
        "expert_dnn_hidden_units": EXPERT_UNITS,
    },
    "PLE": {
        "name": "PLE",
        "num_levels": len(LEVELS),
        "specific_expert_num": SPECIFIC,
        "shared_expert_num": SHARED,
        "expert_dnn_hidden_units": LEVELS[:1],
    },
}


class Worker:
    """A process that runs a step when asked to."""

    def __init__(self, command: list[str], stack: ExitStack) -> None:
        self._command = command
        self._errors: IO[str] = stack.enter_context(tempfile.TemporaryFile("w+"))
        self._process: Any = stack.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        )

    def answer(self) -> Any:
        """The next line that it writes."""
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(
                f"{' '.join(self._command)} ended before it answered:\n"
                f"{self._errors.read()}"
            )
        return json.loads(line)

    def step(self) -> float:
        """Milliseconds of a step."""
        with suppress(BrokenPipeError):  # It has ended: `answer` says so.
            os.write(self._process.stdin.fileno(), b"\n")
        return float(self.answer())


def commands(python: str, name: str, num_tasks: int, batch: int) -> list[list[str]]:
    """What starts DeepCTR's process, and this package's."""
    described = PEERS[name] | {
        "inputs": INPUTS,
        "num_tasks": num_tasks,
        "tower_dnn_hidden_units": [TOWER],
        "gate_dnn_hidden_units": [],
        "batch": batch,
    }
    peer = str(Path(__file__).with_name("peers_deepctr.py"))
    return [
        ["env", "TF_USE_LEGACY_KERAS=1", python, peer, json.dumps(described)],
        [sys.executable, __file__, "--worker", name, str(num_tasks), str(batch)],
    ]


def turns(pair: list[Worker], seconds: float) -> np.ndarray:
    """Milliseconds of steps in turns for some seconds, `(turns, 2)`."""
    found: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        found.append([worker.step() for worker in pair])
    return np.array(found)


def compare(started: list[list[str]], seconds: float) -> tuple[np.ndarray, list[Any]]:
    """Milliseconds of the two processes' steps, and what they run."""
    with ExitStack() as stack:
        pair = [Worker(command, stack) for command in started]
        running = [worker.answer() for worker in pair]
        if len({side["parameters"] for side in running}) > 1:
            raise ValueError(
                f"both networks should have as many parameters. Received: {running}"
            )
        return turns(pair, seconds), running


def work(name: str, num_tasks: str, batch: str) -> None:
    """This package's process."""
    model = STACKED[name](int(num_tasks))
    serve(model, training_step(model, int(batch)))


def table(options: argparse.Namespace) -> None:
    """Prints the table, and what was compared."""
    heads = [f"B={batch}" for batch in options.batches]
    print("| DeepCTR ÷ stacked | parameters | " + " | ".join(heads) + " |")
    running: list[Any] = []
    for name in PEERS:
        for num_tasks in options.tasks:
            cells = []
            for batch in options.batches:
                started = commands(options.peer_python, name, num_tasks, batch)
                spent, running = compare(started, options.seconds)
                cells.append(cell(spent[:, 0] / spent[:, 1]))
            count = f"{running[0]['parameters']:,}"
            row = [f"{name}, {num_tasks} tasks", count, *cells]
            print("| " + " | ".join(row) + " |", flush=True)
    print(" ÷ ".join(side["versions"] for side in running))


def main() -> None:
    """Prints the table, or is a process of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--peer-python", help="the Python that has DeepCTR")
    mode.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=20.0, help="per cell")
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 4096])
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
    else:
        table(options)


if __name__ == "__main__":
    main()
