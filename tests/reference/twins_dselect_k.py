"""Slow twin in NumPy of DSelect-k: the paper's equations, one number at a time."""

import math

import numpy as np


def smooth_step(t, gamma):
    if t <= -gamma / 2:
        return 0.0
    if t >= gamma / 2:
        return 1.0
    return -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5


def selector(s, experts):
    """r of one vector of digits between 0 and 1, the first the most significant."""
    r = np.ones(experts)
    for e in range(experts):
        number = format(e, "b").zfill(len(s)) if len(s) else ""
        for j, digit in enumerate(number):
            r[e] *= s[j] if digit == "1" else 1 - s[j]
    return r


def softmax(logits):
    exponentials = [math.exp(logit) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def selectors(z, experts, gamma):
    """r(S(z^(i))) of each selector i of one example and output."""
    return np.array(
        [selector([smooth_step(t, gamma) for t in digits], experts) for digits in z]
    )


def dselect_k(alpha, z, experts, gamma):
    """q of one example and output."""
    q = np.zeros(experts)
    for share, r in zip(softmax(alpha), selectors(z, experts, gamma), strict=True):
        for e in range(experts):
            q[e] += share * r[e]
    return q


def entropy(r):
    return -sum(value * math.log(value + 1e-6) for value in r)


def gate(x, parameters, reads, gamma, entropy_weight):
    """Weights `(batch, outputs, experts)`, and the penalty of the batch.

    Args:
        x: Selector `(batch, outputs, d)`.
        parameters: Per output G `(k, d)`, a `(k)`, W `(k, m, d)` and b `(k, m)`.
        reads: Which experts each output may choose, `(outputs, experts)`.
        gamma: Width of the smooth step.
        entropy_weight: Weight of the entropy in the penalty.
    """
    weights, penalty = np.zeros((len(x), *reads.shape)), 0.0
    for b in range(len(x)):
        for t, (g, a, w, c) in enumerate(parameters):
            own = [e for e in range(reads.shape[1]) if reads[t, e]]
            alpha, z = g @ x[b, t] + a, w @ x[b, t] + c
            q = dselect_k(alpha, z, len(own), gamma)
            for number, e in enumerate(own):
                weights[b, t, e] = q[number]
            for r in selectors(z, len(own), gamma):
                penalty += entropy_weight * entropy(r)
                if math.log2(len(own)) % 1:
                    penalty += 1 / max(sum(r), 1e-6)
    return weights, penalty / len(x)
