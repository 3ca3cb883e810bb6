"""Slow twins in NumPy of the balancing methods, on explicit gradients.

Every surgery takes `gradients`, `(tasks, d)` in float64, and gives the update, `(d,)`.
Tasks without a gradient are left out by `present`.
"""

from itertools import combinations

import numpy as np
from scipy.optimize import minimize, nnls


def present(gradients):
    return gradients[np.linalg.norm(gradients, axis=1) > 0]


def unit(gradients):
    return gradients / np.linalg.norm(gradients, axis=1, keepdims=True)


def equal(gradients):
    return gradients.sum(axis=0)


def pc_grad(gradients, orders):
    update = np.zeros(gradients.shape[1])
    for i, order in enumerate(orders):
        g = gradients[i].copy()
        for j in order:
            product = g @ gradients[j]
            if product < 0:
                g -= product / (gradients[j] @ gradients[j]) * gradients[j]
        update += g
    return update


def grad_vac(gradients, orders, targets, decay):
    """The update and the next targets."""
    update, targets = np.zeros(gradients.shape[1]), targets.copy()
    for i, order in enumerate(orders):
        g = gradients[i].copy()
        for j in order:
            other = gradients[j]
            if not g.any() or not other.any():
                continue
            phi = g @ other / np.linalg.norm(g) / np.linalg.norm(other)
            phi = min(1.0, max(-1.0, phi))
            t = min(targets[i, j], 0.999)
            if phi < t:
                a, b = np.sqrt(1 - phi**2), np.sqrt(1 - t**2)
                g += (
                    np.linalg.norm(g)
                    * (t * a - phi * b)
                    / (np.linalg.norm(other) * b)
                    * other
                )
            targets[i, j] = (1 - decay) * targets[i, j] + decay * phi
        update += g
    return update, targets


def nearest_in_hull(gradients):
    """Of all faces of the hull, the shortest point inside one of them."""
    tasks, best = len(gradients), None
    for size in range(1, tasks + 1):
        for face in combinations(range(tasks), size):
            corner, edges = gradients[face[0]], gradients[list(face[1:])]
            spans = (edges - corner).T
            shares = np.linalg.lstsq(spans, -corner, rcond=None)[0]
            if (shares >= -1e-12).all() and shares.sum() <= 1 + 1e-12:
                point = corner + spans @ shares
                if best is None or point @ point < best @ best:
                    best = point
    return best


def mgda(gradients):
    gradients = present(gradients)
    return len(gradients) * nearest_in_hull(gradients)


def ca_grad_bound(gradients, c, w):
    """What no update in the ball can do better for the worst task; equation 4."""
    mean, combined = gradients.mean(axis=0), w @ gradients
    return combined @ mean + c * np.linalg.norm(mean) * np.linalg.norm(combined)


def ca_grad_value(gradients, c):
    """The least bound on the simplex, as the authors' code finds it."""
    tasks, size = len(gradients), np.linalg.norm(gradients, axis=1).max()
    found = minimize(
        lambda w: ca_grad_bound(gradients / size, c, w),
        np.full(tasks, 1 / tasks),
        bounds=[(0, 1)] * tasks,
        constraints={"type": "eq", "fun": lambda w: 1 - w.sum()},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return found.fun * size**2


def imtl_g(gradients):
    """Equation 6: g · (u_1 − u_k) = 0 and Σ α = 1, then |α| summing to T."""
    gradients = present(gradients)
    units = unit(gradients)
    equal_projections = (units[1:] - units[:1]) @ units.T
    lengths = np.linalg.norm(gradients, axis=1)
    system = np.vstack([lengths.min() / lengths, equal_projections])
    y = np.linalg.lstsq(system, np.eye(len(units))[0], rcond=None)[0]
    update, alpha = y @ units, y / lengths
    update *= np.sign(update @ units[0]) / np.abs(alpha).sum()
    return len(units) * update


def aligned_mtl(gradients):
    """Algorithm 1, by the singular values of the gradients, of as many as they span."""
    gradients = present(gradients)
    left, lengths, right = np.linalg.svd(gradients, full_matrices=False)
    rank = np.linalg.matrix_rank(unit(gradients), tol=1e-7)
    return lengths[rank - 1] * left[:, :rank].sum(axis=0) @ right[:rank]


def nash_mtl(gradients):
    """α_i g_i · Σ_j α_j g_j = 1, one α after the other."""
    gradients = present(gradients)
    size = np.sqrt(np.linalg.norm(gradients @ gradients.T))
    units = unit(gradients)
    y = np.ones(len(units))
    for _ in range(100_000):
        before = y.copy()
        for i in range(len(units)):
            rest = units[i] @ (y @ units - y[i] * units[i])
            y[i] = (np.sqrt(rest**2 + 4) - rest) / 2
        if np.abs(y / before - 1).max() < 1e-14:
            break
    return size * y @ units


def up_grad(gradients):
    """Each gradient plus what its projection on the dual cone adds to it."""
    units, update = unit(present(gradients)), np.zeros(gradients.shape[1])
    for g in present(gradients):
        length = np.linalg.norm(g)
        update += g + length * nnls(units.T, -g / length)[0] @ units
    return update


class Adam:
    def __init__(self, tasks, rate):
        self.values = np.zeros(tasks)
        self.m, self.v, self.t = np.zeros(tasks), np.zeros(tasks), np.zeros(tasks)
        self.rate = rate

    def step(self, gradient, there):
        for k in np.flatnonzero(there):
            self.t[k] += 1
            self.m[k] = 0.9 * self.m[k] + 0.1 * gradient[k]
            self.v[k] = 0.999 * self.v[k] + 0.001 * gradient[k] ** 2
            m = self.m[k] / (1 - 0.9 ** self.t[k])
            v = self.v[k] / (1 - 0.999 ** self.t[k])
            self.values[k] -= self.rate * m / (np.sqrt(v) + 1e-8)


def slope(function, x, step=1e-6):
    """Central differences."""
    return np.array(
        [
            (function(x + e) - function(x - e)) / (2 * step)
            for e in step * np.eye(len(x))
        ]
    )


def softmax(v):
    return np.exp(v) / np.exp(v).sum()


class Uncertainty:
    def __init__(self, tasks, regression, rate):
        self.factors = np.where(regression, 0.5, 1.0)
        self.adam = Adam(tasks, rate)

    def weights(self, losses):
        return self.factors * np.exp(-self.adam.values)

    def update(self, losses, gram, after):
        def objective(s):
            return (self.factors * np.exp(-s) * losses + s / 2).sum()

        self.adam.step(slope(objective, self.adam.values), losses != 0)


class DWA:
    def __init__(self, tasks, temperature):
        self.epochs, self.now = [[] for _ in range(tasks)], [[] for _ in range(tasks)]
        self.temperature = temperature

    def weights(self, losses):
        ratios = [own[-1] / own[-2] if len(own) > 1 else 1.0 for own in self.epochs]
        return len(ratios) * softmax(np.array(ratios) / self.temperature)

    def update(self, losses, gram, after):
        for own, loss in zip(self.now, losses, strict=True):
            if loss:
                own.append(loss)

    def epoch_end(self):
        for own, now in zip(self.epochs, self.now, strict=True):
            if now:
                own.append(np.mean(now))
            now.clear()


class GradNorm:
    def __init__(self, tasks, alpha, rate):
        self.adam, self.alpha, self.first = Adam(tasks, rate), alpha, [None] * tasks

    def weights(self, losses):
        return len(losses) * softmax(self.adam.values)

    def update(self, losses, gram, after):
        there = losses > 0
        self.first = [
            loss if first is None and loss > 0 else first
            for first, loss in zip(self.first, losses, strict=True)
        ]
        lengths = np.sqrt(np.diag(gram))
        rates = np.array(
            [v / (f or 1) for v, f in zip(losses, self.first, strict=True)]
        )
        rates = rates / rates[there].mean()
        mean = (self.weights(losses) * lengths)[there].mean()
        target = mean * rates**self.alpha

        def objective(v):
            weighted = len(losses) * softmax(v) * lengths
            return np.abs(weighted - target)[there].sum() / mean

        self.adam.step(slope(objective, self.adam.values), there)


class FAMO:
    def __init__(self, tasks, rate, decay):
        self.adam, self.decay = Adam(tasks, rate), decay

    def weights(self, losses):
        there = losses > 0
        z = np.where(there, softmax(self.adam.values), 0.0)
        shares = np.array([a / b if b else 0.0 for a, b in zip(z, losses, strict=True)])
        return there.sum() * shares / shares.sum()

    def update(self, losses, gram, after):
        there = losses > 0

        def objective(v):
            return softmax(v[there]) @ np.log(losses[there] / after[there])

        gradient = slope(objective, self.adam.values)
        self.adam.step(gradient + self.decay * self.adam.values, there)
