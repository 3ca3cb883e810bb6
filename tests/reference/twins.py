"""Slow twins in NumPy: the papers' equations, one number at a time."""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def relu(x):
    return max(0.0, x)


def identity(x):
    return x


def hard_concrete_sample(log_alpha, u, beta, gamma, zeta):
    z = np.zeros(log_alpha.shape)
    for k in np.ndindex(z.shape):
        noise = math.log(u[k]) - math.log(1 - u[k])
        s = sigmoid((noise + log_alpha[k]) / beta)
        z[k] = min(1.0, max(0.0, s * (zeta - gamma) + gamma))
    return z


def hard_concrete(log_alpha, gamma, zeta):
    z = np.zeros(log_alpha.shape)
    for k in np.ndindex(z.shape):
        z[k] = min(1.0, max(0.0, sigmoid(log_alpha[k]) * (zeta - gamma) + gamma))
    return z


def probability_not_zero(log_alpha, beta, gamma, zeta):
    p = np.zeros(log_alpha.shape)
    for k in np.ndindex(p.shape):
        p[k] = sigmoid(log_alpha[k] - beta * math.log(-gamma / zeta))
    return p


def probability_one(log_alpha, beta, gamma, zeta):
    p = np.zeros(log_alpha.shape)
    for k in np.ndindex(p.shape):
        p[k] = sigmoid(log_alpha[k] - beta * math.log((1 - gamma) / (zeta - 1)))
    return p


def snr_trans(u, w, z):
    """v_i = sum_j z_ij W_ij u_j, with w `(i, j, h, d)` as the paper prints it."""
    outputs, inputs, units, width = w.shape
    v = np.zeros((len(u), outputs, units))
    for b in range(len(u)):
        for i in range(outputs):
            for j in range(inputs):
                for h in range(units):
                    for d in range(width):
                        v[b, i, h] += z[i, j] * w[i, j, h, d] * u[b, j, d]
    return v


def snr_aver(u, z):
    """v_i = sum_j z_ij u_j."""
    v = np.zeros((len(u), len(z), u.shape[2]))
    for b in range(len(u)):
        for i in range(len(z)):
            for j in range(u.shape[1]):
                v[b, i] += z[i, j] * u[b, j]
    return v


def dense(x, kernel, bias, activation):
    """activation(x W + b) of one example."""
    y = np.zeros(kernel.shape[1])
    for h in range(kernel.shape[1]):
        total = bias[h]
        for d in range(kernel.shape[0]):
            total += x[d] * kernel[d, h]
        y[h] = activation(total)
    return y


def experts(x, kernels, biases, activation):
    """f_e(x) of each expert e; x is `(batch, d)`, or `(batch, e, d)`."""
    y = np.zeros((len(x), len(kernels), kernels.shape[2]))
    for b in range(len(x)):
        for e in range(len(kernels)):
            own = x[b] if x.ndim == 2 else x[b, e]
            y[b, e] = dense(own, kernels[e], biases[e], activation)
    return y


def tower(x, hidden, head, activation, head_activation):
    """A list of `(kernel, bias)` for the hidden layers, one for the head."""
    y = []
    for example in x:
        for kernel, bias in hidden:
            example = dense(example, kernel, bias, activation)
        y.append(dense(example, *head, head_activation))
    return np.array(y)


def standardize(x, mean, std, log):
    y = np.zeros(x.shape)
    for b in range(x.shape[0]):
        for k in range(x.shape[1]):
            value = float(x[b, k])
            if math.isnan(value) or math.isinf(value):
                continue
            if log[k]:
                value = math.copysign(math.log(1 + abs(value)), value)
            y[b, k] = (value - mean[k]) / std[k]
    return y


def bucketize(x, boundaries):
    y = np.zeros(x.shape, int)
    for b in range(x.shape[0]):
        for k in range(x.shape[1]):
            if math.isnan(x[b, k]) or math.isinf(x[b, k]):
                continue
            y[b, k] = 1
            for boundary in boundaries[k]:
                if x[b, k] >= boundary:
                    y[b, k] += 1
    return y


def field_embedding(ids, tables):
    """One table per field; an id that is not in it reads its row 0."""
    y = np.zeros((*ids.shape, tables[0].shape[1]))
    for b in range(ids.shape[0]):
        for f in range(ids.shape[1]):
            known = 0 <= ids[b, f] < len(tables[f])
            y[b, f] = tables[f][ids[b, f] if known else 0]
    return y
