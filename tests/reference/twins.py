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
        kernels: Per output a kernel `(d, number of experts it reads)`; one that
            reads a single expert gives it weight 1 and has no columns.
        biases: Per output a bias, one value for each of these experts.
        reads: Which experts each output reads, `(outputs, experts)`.
        z: Openness of the pairs, `(outputs, experts)`.
    """
    g = np.zeros((len(x), *reads.shape))
    for b in range(len(x)):
        for t, row in enumerate(reads):
            own = [e for e in range(len(row)) if row[e]]
            if len(own) == 1:
                g[b, t, own[0]] = 1
                continue
            selector = x[b] if x.ndim == 2 else x[b, t]
            logits = dense(selector, kernels[t], biases[t], identity)
            weights = gate_weights(logits[None, None], z[None, None, t, own])
            for number, e in enumerate(own):
                g[b, t, e] = weights[0, 0, number]
    return g


def pair_gates(log_alpha, reads):
    """z of the pairs of rows that read several; one of each row stays open.

    Args:
        log_alpha: Location of their gates, packed row by row.
        reads: Which experts each output reads, `(outputs, experts)`.

    Returns:
        z, `(outputs, experts)`, 1 for the pair of a row that reads only one.
    """
    z, given = np.zeros(reads.shape), iter(log_alpha)
    for t, row in enumerate(reads):
        own = [e for e in range(len(row)) if row[e]]
        if len(own) == 1:
            z[t, own[0]] = 1
            continue
        located = {e: next(given) for e in own}
        for e in own:
            z[t, e] = hard_concrete(located[e], -0.1, 1.1)
        if not z[t].any():
            z[t, max(own, key=located.get)] = 1
    return z


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


def softplus(x):
    """log(1 + exp(x))."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def log_loss(y, logit):
    """-y log p - (1 - y) log(1 - p), p = sigmoid(logit)."""
    return y * softplus(-logit) + (1 - y) * softplus(logit)


def squared_error(y, p):
    return (p - y) ** 2


def huber_error(y, p, delta):
    error = abs(p - y)
    return error**2 / 2 if error <= delta else delta * (error - delta / 2)


def log_normal_error(y, x, sigma):
    """Of log(1 + y), normal around mu, where 1 + exp(x) = exp(mu + sigma^2 / 2)."""
    mu = math.log(1 + math.exp(x)) - sigma**2 / 2
    return (math.log(1 + y) - mu) ** 2 / (2 * sigma**2)


def weighted_log_loss(y, x):
    """A positive counts y times; the odds are exp(x)."""
    p = math.exp(x) / (1 + math.exp(x))
    return -y * math.log(p) if y > 0 else -math.log(1 - p)


def poisson_loss(y, x):
    """-log of the Poisson probability of y, less log y!, where the mean is exp(x)."""
    return math.exp(x) - y * x


def class_loss(y, logits):
    total = sum(math.exp(logit) for logit in logits)
    return -math.log(math.exp(logits[int(y)]) / total)


def ordinal_loss(y, x):
    """Mean over levels k of the log loss of "y > k", whose logits fall with k."""
    logit, total = x[0], 0.0
    for k in range(len(x)):
        if k:
            logit -= softplus(x[k])
        total += log_loss(float(y > k), logit)
    return total / len(x)


def funnel_labels(taken):
    """Labels of steps `(steps, rows)`, 0 after a step not taken; weights of the rows.

    Who is known not to have taken a step counts as often as those who took it have a
    label of the step in question.
    """
    filled = taken.copy()
    for k in range(1, len(taken)):
        filled[k, filled[k - 1] == 0] = 0
    weights = np.ones(taken.shape)
    for k in range(1, len(taken)):
        own = np.where(np.isnan(filled[k]), 0.0, 1.0)
        for step in reversed(range(k)):
            took = [own[row] for row in range(len(own)) if filled[step, row] > 0]
            share = np.mean(took) if took else 1.0
            for row in range(len(own)):
                if filled[step, row] == 0:
                    own[row] = share
        weights[k] = own
    return filled, weights


def funnel_expected(filled, weights):
    """Weights of the rows `(steps, rows)` but for luck with labels of later steps.

    Who is known to have taken the first step, or not to have, counts as those who took
    it do on average.
    """
    expected = weights.copy()
    for k in range(1, len(filled)):
        took = [w for w, label in zip(weights[k], filled[0], strict=True) if label > 0]
        for row, label in enumerate(filled[0]):
            if not math.isnan(label):
                expected[k, row] = np.mean(took) if took else 1.0
    return expected


def funnel_loss(y, logits):
    """Log loss of a product of probabilities."""
    p = math.prod(sigmoid(logit) for logit in logits)
    return -y * math.log(p) - (1 - y) * math.log(1 - p)


def labelled_mean(loss, labels, raw, weights):
    """sum_i w_i L(y_i, x_i) / sum_i w_i, over the labels y_i that are not NaN.

    Args:
        loss: L of one label, and what its tower computes.
        labels: `(batch, k)`.
        raw: `(batch, k)`, or `(batch, 1, d)` where a loss takes several numbers.
        weights: `(batch,)`.
    """
    total, counted = 0.0, 0.0
    for b, k in np.ndindex(labels.shape):
        if not math.isnan(labels[b, k]):
            total += float(weights[b]) * loss(float(labels[b, k]), raw[b, k])
            counted += float(weights[b])
    return total / counted if counted else 0.0


def slope(function, x, step=1e-5):
    """The gradient by central differences."""
    gradient = np.zeros(x.shape)
    for k in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[k] += step
        below[k] -= step
        gradient[k] = (function(above) - function(below)) / (2 * step)
    return gradient


def joint_probability(first, second):
    y = np.zeros(first.shape)
    for k in np.ndindex(y.shape):
        y[k] = first[k] * second[k]
    return y


def score_fusion(predictions, weights, kind, offset):
    """A sum of w p, or a product of (p + offset)^w."""
    batch = len(next(iter(predictions.values())))
    y = np.full((batch, 1), 0.0 if kind == "sum" else 1.0)
    for b in range(batch):
        for task, w in weights.items():
            p = float(predictions[task][b, 0])
            y[b] = y[b] + w * p if kind == "sum" else y[b] * (p + offset) ** w
    return y
