"""Run as a script, on any Keras backend: writes what the saved models answer."""

import importlib
import sys
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np
from cases import CASES, L0, NETWORK, WITHOUT_GRADIENT

from tfmtl.sparsity import L0Ramp, SparsityWarning, Target, gates

BACKEND = keras.backend.backend()
native = importlib.import_module(BACKEND)  # tensorflow, jax or torch


def tensorflow_gradients(loss, variables):
    values = [variable.value for variable in variables]
    with native.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, values, unconnected_gradients="zero")
    return [native.convert_to_tensor(gradient) for gradient in gradients]


def jax_gradients(loss, variables):
    def loss_of(values):
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return loss()

    gradients = native.jit(native.grad(loss_of))
    return gradients([variable.value for variable in variables])


def torch_gradients(loss, variables):
    values = [variable.value for variable in variables]
    return native.autograd.grad(loss(), values, materialize_grads=True)


GRADIENTS = {
    "tensorflow": tensorflow_gradients,
    "jax": jax_gradients,
    "torch": torch_gradients,
}


def gradients(model, rows):
    """Of the sum of squares, for every trainable weight and a floating input.

    They are 0 for an input that is not read.
    """
    floating = keras.backend.is_float_dtype(rows.dtype)
    x = keras.Variable(rows, dtype=rows.dtype.name, trainable=floating)

    def loss():
        y = model({"x": x.value}, training=False)["y"]
        return keras.ops.sum(keras.ops.square(y))

    variables = [*model.trainable_variables, *([x] if floating else [])]
    return GRADIENTS[BACKEND](loss, variables)


def answers(folder, case):
    model = keras.saving.load_model(folder / f"{case.id}.keras", safe_mode=True)
    rows = case.rows(5)
    found = {
        "inference": model({"x": rows}, training=False)["y"],
        "penalty": sum(model.losses, keras.ops.zeros(())),
    }
    if case.id not in WITHOUT_GRADIENT:
        for k, gradient in enumerate(gradients(model, rows)):
            found[f"gradient_{k}"] = gradient
    found["training"] = model({"x": rows}, training=True)["y"]  # moves statistics
    return found


def trained():
    warnings.simplefilter("ignore", SparsityWarning)  # of three epochs
    model, x = NETWORK.model(), NETWORK.rows(64)
    rows, labels = {"x": x}, {"y": x[:, :1]}
    model.compile("adam", "mse")
    ramp = L0Ramp(L0, dense_epochs=0, ramp_epochs=2.5)  # ends within an epoch
    history = model.fit(
        rows, labels, batch_size=16, epochs=3, callbacks=[ramp], verbose=0
    ).history
    predicted = model.predict(rows, verbose=0)["y"]
    [gate] = gates(model)
    found = {
        "losses": history["loss"],
        "evaluated": model.evaluate(rows, labels, verbose=0),
        "mse": np.mean((predicted - labels["y"]) ** 2),
        "open": keras.ops.sum(gate.open_probability()),
        "penalties": keras.ops.stack(model.losses),
    }
    aimed = NETWORK.model()
    aimed.compile("adam", "mse")
    aimed.fit(rows, labels, batch_size=16, epochs=4, callbacks=[Target(0.5)], verbose=0)
    [gate] = gates(aimed)
    return {**found, "aimed": keras.ops.cast(gate(training=False) > 0, "float32")}


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
