"""Linear heads from sums over the rows, which need no row twice and add up over any parts of them.

    ridge   least squares on the classes as 0 and 1         Hastie, Tibshirani & Friedman, "The Elements of Statistical
    lda     Gaussians of one covariance, discriminant       Learning", 2009, sections 3.4.1 and 4.3.1
            analysis

Both shrink the covariance towards a multiple of the identity (Ledoit & Wolf, 2004). N rows, D features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune.heads.logistic import softmax

ROWS_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Sums:
    """Of some rows, in float64."""

    counts: np.ndarray  # (C,) rows of each class
    totals: np.ndarray  # (C, D) sums of each class
    squares: np.ndarray  # (D, D) of x x^T

    @classmethod
    def of(cls, x, y: np.ndarray, rows: np.ndarray, class_count: int) -> Sums:
        """Of x[rows], which may stay on the disk: a block of rows is read at a time."""
        totals, squares = np.zeros((class_count, x.shape[1])), np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            block = x[some].astype(np.float64)
            np.add.at(totals, y[some], block)
            squares += block.T @ block
        return cls(np.bincount(y[rows], minlength=class_count).astype(float), totals, squares)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.counts + other.counts, self.totals + other.totals, self.squares + other.squares)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.counts - other.counts, self.totals - other.totals, self.squares - other.squares)

    @property
    def mean(self) -> np.ndarray:
        """(D,)"""
        return self.totals.sum(0) / self.counts.sum()


def ridge(sums: Sums, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """W (D, C) and b (C,) of scores x W + b, with penalty `strength` in units of the rows' mean variance."""
    n, mean, shares = sums.counts.sum(), sums.mean, sums.counts / sums.counts.sum()
    covariance = sums.squares / n - np.outer(mean, mean)
    weight = solve(covariance, strength, sums.totals.T / n - np.outer(mean, shares))
    return weight, shares - mean @ weight


def lda(sums: Sums, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """W (D, C) and b (C,) of logits x W + b; the covariance within classes is shrunk by `strength` in units of its mean
    variance."""
    n = sums.counts.sum()
    means = sums.totals / np.maximum(sums.counts, 1)[:, None]
    covariance = (sums.squares - (means.T * sums.counts) @ means) / n
    weight = solve(covariance, strength, means.T)
    priors = np.log(np.maximum(sums.counts, 0.1) / n)
    return weight, priors - 0.5 * (means.T * weight).sum(0)


def solve(covariance: np.ndarray, strength: float, right: np.ndarray) -> np.ndarray:
    """(covariance + strength * its mean diagonal * identity)^-1 right; D x D, D x C."""
    from scipy.linalg import cho_factor, cho_solve

    matrix = covariance.copy()
    matrix[np.diag_indices(len(matrix))] += strength * max(np.trace(matrix) / len(matrix), 1e-12)
    return cho_solve(cho_factor(matrix), right)


def best_scale(scores: np.ndarray, y: np.ndarray) -> float:
    """The factor that makes logits of scores (N, C): that with the lowest cross-entropy for y (N,)."""
    from scipy.optimize import minimize_scalar

    def loss(log_scale: float) -> float:
        p = softmax(scores * np.exp(log_scale))
        return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-30)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x))
