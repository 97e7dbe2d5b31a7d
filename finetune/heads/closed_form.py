"""Linear heads in a fraction of a second: for the many that insight needs, and as heads to choose.

`LinearHead` is the minimum of the loss that `run` minimises for a head without a hidden layer,

    mean over the N rows of cross-entropy(x W + b, y)  +  l2 * sum of W**2

which is strictly convex in W, so that the optimizer plays no part: it is found by L-BFGS (Liu & Nocedal, 1989) instead
of Adam. `run` also looks at its validation rows when to stop; a test holds that both give the same answers.

`RidgeHead` and `ShrinkageHead` need one solution of linear equations (Hastie, Tibshirani & Friedman, "The Elements of
Statistical Learning", 2009, sections 3.4.1 and 4.3.1; the shrinkage towards a multiple of the identity is that of
Ledoit & Wolf, 2004).
"""

from __future__ import annotations

import numpy as np

LEAST_L2 = 1e-5  # without any penalty rows that can be separated have no minimum
STEPS = 200  # at most; 15 to 25 are usual
GRADIENT, PROGRESS = 1e-4, 1e-6  # largest entry of the gradient, and share of the loss won by a step, to stop at


class LinearHead:
    """`LinearHead(x, y, classes, l2)` is trained on rows x (N, D) with labels y (N,); called with x (n, D), it gives
    probabilities (n, C)."""

    def __init__(self, x: np.ndarray, y: np.ndarray, class_count: int, l2: float):
        from scipy.optimize import minimize

        self.mean = x.mean(0)  # centred rows need fewer steps; the penalty does not touch the bias
        x = x - self.mean
        width, l2 = x.shape[1], max(l2, LEAST_L2)
        wanted = np.eye(class_count, dtype=np.float32)[y]

        def split(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """W (D, C) and b (C,) in float32: twice as fast, and the steps stay in float64."""
            flat = flat.astype(np.float32)
            return flat[:-class_count].reshape(width, class_count), flat[-class_count:]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weight, bias = split(flat)
            p = softmax(x @ weight + bias)
            value = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-30)).mean() + l2 * (weight**2).sum()
            error = (p - wanted) / len(x)
            gradient = np.concatenate([(x.T @ error + 2 * l2 * weight).ravel(), error.sum(0)])
            return float(value), gradient.astype(np.float64)

        start = np.zeros((width + 1) * class_count)
        options = {"maxiter": STEPS, "gtol": GRADIENT, "ftol": PROGRESS}
        self.weight, self.bias = split(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return softmax((x - self.mean) @ self.weight + self.bias)


class RidgeHead:
    """The same by least squares on the classes as 0 and 1, with penalty `strength` in units of the rows' mean variance.

    Its scores are no logits: they are stretched by the factor with the lowest cross-entropy on the rows that trained.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, class_count: int, strength: float):
        self.mean = x.mean(0)
        x = x - self.mean
        wanted = np.eye(class_count, dtype=np.float32)[y]
        self.weight = solve(x.T @ x / len(x), strength, x.T @ (wanted - wanted.mean(0)) / len(x))
        self.bias = wanted.mean(0)
        scale = best_scale(x @ self.weight + self.bias, y)
        self.weight, self.bias = self.weight * scale, self.bias * scale

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return softmax((x - self.mean) @ self.weight + self.bias)


class ShrinkageHead:
    """The same by linear discriminant analysis: a Gaussian a class with one covariance, which is shrunk by `strength`
    in units of its mean variance."""

    def __init__(self, x: np.ndarray, y: np.ndarray, class_count: int, strength: float):
        self.mean = x.mean(0)
        x = x - self.mean
        shares = np.bincount(y, minlength=class_count) / len(y)
        means = np.stack([x[y == c].mean(0) if shares[c] else np.zeros(x.shape[1]) for c in range(class_count)])
        means = means.astype(np.float32)
        within = x - means[y]
        self.weight = solve(within.T @ within / len(x), strength, means.T)
        priors = np.log(np.maximum(shares, 1 / (10 * len(y))))
        self.bias = (priors - 0.5 * (means.T * self.weight).sum(0)).astype(np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return softmax((x - self.mean) @ self.weight + self.bias)


def solve(covariance: np.ndarray, strength: float, right: np.ndarray) -> np.ndarray:
    """(covariance + strength * its mean diagonal * identity)^-1 right; D x D, D x C."""
    from scipy.linalg import cho_factor, cho_solve

    matrix = covariance.astype(np.float64)
    matrix[np.diag_indices(len(matrix))] += strength * max(np.trace(matrix) / len(matrix), 1e-12)
    return cho_solve(cho_factor(matrix), right.astype(np.float64)).astype(np.float32)


def best_scale(scores: np.ndarray, y: np.ndarray) -> np.float32:
    """The factor of scores (N, C) whose softmax has the lowest cross-entropy for y (N,)."""
    from scipy.optimize import minimize_scalar

    def loss(log_scale: float) -> float:
        p = softmax(scores * np.exp(log_scale))
        return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-30)).mean())

    return np.float32(np.exp(minimize_scalar(loss, bounds=(-1.0, 5.0), method="bounded").x))


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) -> probabilities (N, C)."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)
