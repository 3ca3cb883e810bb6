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


def spread_pairs(packed, reads):
    """The next value where a pair exists, row by row, and 0 where none does."""
    matrix, taken = np.zeros(reads.shape), 0
    for k in np.ndindex(reads.shape):
        if reads[k]:
            matrix[k] = packed[taken]
            taken += 1
    return matrix


def gate_weights(logits, z):
    """g_te = z_te exp(l_te) / sum_e' z_te' exp(l_te'); 0 in a row that is closed."""
    g = np.zeros(logits.shape)
    for b, t, e in np.ndindex(g.shape):
        total = 0.0
        for other in range(logits.shape[2]):
            total += z[b, t, other] * math.exp(logits[b, t, other])
        if total > 0:
            g[b, t, e] = z[b, t, e] * math.exp(logits[b, t, e]) / total
    return g


def mixture(weights, experts):
    """f_t = sum_e g_te f_e."""
    f = np.zeros((len(experts), weights.shape[1], experts.shape[2]))
    for b, t, h in np.ndindex(f.shape):
        for e in range(experts.shape[1]):
            f[b, t, h] += weights[b, t, e] * experts[b, e, h]
    return f


def softmax_gate(x, kernels, biases, reads, z):
    """Weights of the experts that each output reads.

    Args:
        x: Selector `(batch, d)`, or `(batch, outputs, d)` with one for each.
        kernels: Per output a kernel `(d, number of experts it reads)`.
        biases: Per output a bias, one value for each of these experts.
        reads: Which experts each output reads, `(outputs, experts)`.
        z: Openness of the pairs, `(outputs, experts)`.
    """
    g = np.zeros((len(x), *reads.shape))
    for b in range(len(x)):
        for t, row in enumerate(reads):
            own = [e for e in range(len(row)) if row[e]]
            selector = x[b] if x.ndim == 2 else x[b, t]
            logits = dense(selector, kernels[t], biases[t], identity)
            weights = gate_weights(logits[None, None], z[None, None, t, own])
            for number, e in enumerate(own):
                g[b, t, e] = weights[0, 0, number]
    return g


def batch_normalization(x, gamma, beta, mean, variance, epsilon=1e-3):
    """One example in inference, by the moving statistics."""
    y = np.zeros(len(x))
    for k in range(len(x)):
        centred = x[k] - mean[k]
        y[k] = gamma[k] * centred / math.sqrt(variance[k] + epsilon) + beta[k]
    return y


def layer_normalization(x, gamma, beta, epsilon=1e-3):
    """One example, by the statistics of its own values."""
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return batch_normalization(
        x, gamma, beta, [mean] * len(x), [variance] * len(x), epsilon
    )


def mlp(x, hidden, activation):
    """Hidden layers on one example.

    Args:
        x: `(d,)`.
        hidden: Per layer `(kernel, bias, normalize)`, the last one a function.
        activation: Activation of every layer.
    """
    for kernel, bias, normalize in hidden:
        values = normalize(dense(x, kernel, bias, identity))
        x = np.array([activation(value) for value in values])
    return x


def deep_experts(x, hidden, slots, activation):
    """Experts of several hidden layers.

    Args:
        x: `(batch, d)`, or `(batch, slots, d)`.
        hidden: Per expert its hidden layers, as `mlp` takes them.
        slots: The slot that each expert reads, where `x` has slots.
        activation: Activation of every layer.
    """
    y = []
    for example in x:
        read = [example if x.ndim == 2 else example[slot] for slot in slots]
        pairs = zip(read, hidden, strict=True)
        y.append([mlp(own, layers, activation) for own, layers in pairs])
    return np.array(y)


def position_bias(positions, biases):
    """Inference: the bias of a missing position, the first, for every example."""
    return np.array([[biases[0][0]] for _ in positions])
