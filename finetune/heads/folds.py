"""Rows dealt into folds, of which each is judged by what has learnt from the others."""

from __future__ import annotations

import numpy as np


def deal(y: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """int (N,): the fold of each row. The rows of a class are dealt out one by one, in random order."""
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % folds
    return fold
