"""Run as a script, on any Keras backend: writes what the saved models answer."""

import importlib
import sys
import traceback
from pathlib import Path

import keras
import numpy as np
from network import CASES, NETWORK

from tfmtl.sparsity import gates

BACKEND = keras.backend.backend()
native = importlib.import_module(BACKEND)  # tensorflow, jax or torch


def total(outputs):
    return keras.ops.sum(keras.ops.square(outputs["y"]))


def tensorflow_gradients(model, rows):
    weights = [weight.value for weight in model.trainable_weights]
    with native.GradientTape() as tape:
        loss = total(model(rows, training=False))
    return [native.convert_to_tensor(g) for g in tape.gradient(loss, weights)]


def jax_gradients(model, rows):
    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(weights):
        outputs, _ = model.stateless_call(weights, fixed, rows, training=False)
        return total(outputs)

    gradient = native.jit(native.grad(loss))
    return gradient([weight.value for weight in model.trainable_weights])


def torch_gradients(model, rows):
    total(model(rows, training=False)).backward()
    return [weight.value.grad for weight in model.trainable_weights]


GRADIENTS = {
    "tensorflow": tensorflow_gradients,
    "jax": jax_gradients,
    "torch": torch_gradients,
}


def answers(folder, case):
    model = keras.saving.load_model(folder / f"{case.id}.keras", safe_mode=True)
    rows = {"x": case.rows(5)}
    found = {
        "inference": model(rows, training=False)["y"],
        "training": model(rows, training=True)["y"],
        "penalty": sum(model.losses, keras.ops.zeros(())),
    }
    if model.trainable_weights:
        for k, gradient in enumerate(GRADIENTS[BACKEND](model, rows)):
            found[f"gradient_{k}"] = gradient
    return found


def trained():
    model, x = NETWORK.model(), NETWORK.rows(64)
    rows, labels = {"x": x}, {"y": x[:, :1]}
    model.compile("adam", "mse")
    history = model.fit(rows, labels, batch_size=16, epochs=3, verbose=0).history
    predicted = model.predict(rows, verbose=0)["y"]
    [gate] = gates(model)
    return {
        "losses": history["loss"],
        "evaluated": model.evaluate(rows, labels, verbose=0),
        "mse": np.mean((predicted - labels["y"]) ** 2),
        "open": keras.ops.sum(gate.open_probability()),
        "penalties": keras.ops.stack(model.losses),
    }


def write(path, answer, *arguments):
    try:
        found = answer(*arguments)
    except Exception:
        found = {"error": traceback.format_exc()}
    np.savez(path, **{k: keras.ops.convert_to_numpy(v) for k, v in found.items()})


def main(folder):
    written = folder / BACKEND
    written.mkdir()
    for case in CASES:
        write(written / f"{case.id}.npz", answers, folder, case)
    write(written / "trained.npz", trained)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
