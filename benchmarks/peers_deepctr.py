"""A training step of DeepCTR, one for each line read: the other side of `peers.py`.

It runs in DeepCTR's environment, which has Keras 2: nothing of this package or of
Keras 3 is imported here.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

WARM = 5  # Steps before the first answer.

Run = Callable[[], object]


def network(name: str, inputs: int, num_tasks: int, **sizes: Any) -> Any:
    """A model of DeepCTR on a dense input, without regularisation."""
    columns = importlib.import_module("deepctr.feature_column")
    return getattr(importlib.import_module("deepctr.models"), name)(
        [columns.DenseFeat("x", inputs)],
        l2_reg_embedding=0,
        l2_reg_dnn=0,
        task_types=["binary"] * num_tasks,
        task_names=[f"task_{k}" for k in range(num_tasks)],
        **sizes,
    )


def training_step(model: Any, batch: int) -> Run:
    """One step of `fit` on made-up rows, waiting for its loss, as in `layers.py`."""
    generator = np.random.default_rng(0)
    [inputs] = model.inputs
    rows = {"x": generator.standard_normal((batch, inputs.shape[1])).astype("float32")}
    labels = {
        name: generator.integers(0, 2, (batch, 1)).astype("float32")
        for name in model.output_names
    }
    data = tf.data.Dataset.from_tensors((rows, labels)).repeat()
    model.compile("adam", loss="binary_crossentropy")
    step, batches = model.make_train_function(), iter(data)
    return lambda: float(step(batches)["loss"])


def serve(model: Any, step: Run) -> None:
    """Says what runs, then answers each line with the milliseconds of a step."""
    for _ in range(WARM):
        step()
    keras = sys.modules[type(model).__module__.partition(".")[0]]
    versions = f"TensorFlow {tf.__version__}, {keras.__name__} {keras.__version__}"
    answer = {"versions": versions, "parameters": model.count_params()}
    print(json.dumps(answer), file=sys.__stdout__, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        spent = time.perf_counter() - start
        print(1e3 * spent, file=sys.__stdout__, flush=True)


def main() -> None:
    """Serves the network that the argument describes, in JSON."""
    sys.stdout = sys.stderr  # DeepCTR prints what comes of its look for newer versions.
    described = json.loads(sys.argv[1])
    batch = described.pop("batch")
    model = network(**described)
    serve(model, training_step(model, batch))


if __name__ == "__main__":
    main()
