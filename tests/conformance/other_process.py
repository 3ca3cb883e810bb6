"""Run as a script: loads every saved layer and writes what it answers."""

import sys
from pathlib import Path

import keras
import numpy as np
from registry import REGISTRY


def answer(entry, folder):
    if keras.backend.backend() == "tensorflow":
        model = keras.saving.load_model(folder / f"{entry.id}.keras", safe_mode=True)
    else:
        model = entry.model()
        weights = np.load(folder / f"{entry.id}.npz")
        model.set_weights([weights[f"arr_{k}"] for k in range(len(weights.files))])
    y = model({"x": entry.rows(5)}, training=False)["y"]
    return keras.ops.convert_to_numpy(y)


def main(folder):
    answers = {}
    for entry in REGISTRY:
        try:
            answers[entry.id] = answer(entry, folder)
        except Exception as error:
            answers[entry.id] = np.array(f"{type(error).__name__}: {error}")
    np.savez(folder / f"{keras.backend.backend()}_answers.npz", **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
