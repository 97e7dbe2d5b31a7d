"""A linear head in a fraction of a second: for the many that insight needs, and as a head to choose.

It is the minimum of the loss that `run` minimises for a head without a hidden layer,

    mean over the N rows of cross-entropy(x W + b, y)  +  l2 * sum of W**2

which is strictly convex in W, so that the optimizer plays no part: it is found by L-BFGS (Liu & Nocedal, 1989) instead
of Adam. `run` also looks at its validation rows when to stop; a test holds that both give the same answers.
"""

from __future__ import annotations

import numpy as np

LEAST_L2 = 1e-5  # without any penalty rows that can be separated have no minimum
STEPS = 200  # at most; 20 to 50 are usual
GRADIENT, PROGRESS = 1e-4, 1e-6  # largest entry of the gradient, and share of the loss won by a step, to stop at


class LinearHead:
    """`LinearHead(x, y, classes, l2)` is trained on rows x (N, D) with labels y (N,); called with x (n, D), it gives
    probabilities (n, C). From the head of some of the rows, `start`, it is found in two thirds of the steps."""

    def __init__(self, x: np.ndarray, y: np.ndarray, class_count: int, l2: float, start: LinearHead | None = None):
        from scipy.optimize import minimize

        self.mean = x.mean(0)  # centred rows need fewer steps; the penalty does not touch the bias
        width, l2 = x.shape[1], max(l2, LEAST_L2)
        wanted = np.eye(class_count, dtype=np.float32)[y]

        def split(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """W transposed (C, D), which keeps both products below along the rows of x, and b (C,), in float32: twice
            as fast, and the steps stay in float64."""
            flat = flat.astype(np.float32)
            return flat[:-class_count].reshape(class_count, width), flat[-class_count:]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            """Of centred rows, without a copy of them."""
            weight, bias = split(flat)
            p = softmax(x @ weight.T + (bias - weight @ self.mean))
            value = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-30)).mean() + l2 * (weight**2).sum()
            error = (p - wanted) / len(x)
            by_bias = error.sum(0)
            by_weight = error.T @ x - np.outer(by_bias, self.mean) + 2 * l2 * weight
            return float(value), np.concatenate([by_weight.ravel(), by_bias]).astype(np.float64)

        first = np.zeros((width + 1) * class_count)
        if start is not None:
            first = np.concatenate([start.weight.T.ravel(), start.bias])
        options = {"maxiter": STEPS, "gtol": GRADIENT, "ftol": PROGRESS}
        weight, self.bias = split(minimize(loss, first, jac=True, method="L-BFGS-B", options=options).x)
        self.weight = weight.T

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return softmax((x - self.mean) @ self.weight + self.bias)


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) -> probabilities (N, C)."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)
