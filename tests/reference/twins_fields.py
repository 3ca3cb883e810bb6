"""Slow twins in NumPy of the layers of fields and sequences."""

import math

import numpy as np
import twins


def silu(x):
    return x * twins.sigmoid(x)


def field_gate(x, log_alpha, gamma, zeta):
    """y_f = z_f x_f, as served."""
    z = twins.hard_concrete(log_alpha, gamma, zeta)
    y = np.zeros(x.shape)
    for b in range(len(x)):
        for f in range(len(z)):
            y[b, f] = z[f] * x[b, f]
    return y


def sequence_pooling(values, ids, kind):
    """Mean, sum or maximum over the positions whose id is not 0."""
    y = np.zeros((len(values), 1, values.shape[2]))
    for b in range(len(values)):
        present = [values[b, j] for j in range(len(ids[b])) if ids[b, j] != 0]
        for d in range(values.shape[2] if present else 0):
            numbers = [value[d] for value in present]
            y[b, 0, d] = max(numbers) if kind == "max" else math.fsum(numbers)
            if kind == "mean":
                y[b, 0, d] /= len(numbers)
    return y


def target_attention(values, ids, target, kernels, biases, activation):
    """sum_j a_j v_j, a_j an MLP of [q, v_j, q * v_j]."""
    y = np.zeros(target.shape)
    for b in range(len(values)):
        q = target[b, 0]
        for j in range(len(ids[b])):
            if ids[b, j] == 0:
                continue
            v = values[b, j]
            x = [*q, *v, *(q * v)]
            for level, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
                if level > 0:
                    x = [activation(number) for number in x]
                x = [
                    bias[h] + sum(x[d] * kernel[d, h] for d in range(len(x)))
                    for h in range(len(bias))
                ]
            [a] = x
            y[b, 0] += a * v
    return y


def hashed_cross(ids, bins):
    """31-bit integer mixing in Python's own integers."""
    limit = 2**31
    y = np.zeros((len(ids), 1), int)
    for b in range(len(ids)):
        h = 0
        for number in ids[b].tolist():
            h = (h ^ number) % limit
            for _ in range(2):
                h = ((h >> 16) ^ h) * 0x45D9F3B % limit
            h = (h >> 16) ^ h
        y[b, 0] = h % bins
    return y
