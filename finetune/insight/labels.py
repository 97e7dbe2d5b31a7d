"""Labels that are probably wrong: confident learning on out-of-fold probabilities.

Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021: a class's threshold is
the mean probability that the pictures labelled so have for it; a picture is a suspect where another class reaches its
own threshold, and does so with the highest probability. All pictures are ranked by the probability of their label, the
lowest first; the paper's package `cleanlab` does so in many more lines. The heads are stiffer than those of a run,
so that they learn fewer wrong labels by heart (`python -m benchmarks.insight.labels`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STIFFER = 10.0  # times the penalty of a run
SEEDS = 2


@dataclass(frozen=True)
class Ranked:
    order: np.ndarray  # int (N,): rows, the most doubtful label first
    probability: np.ndarray  # float (N,): of each row's label, by heads that have not seen the row
    suspect: np.ndarray  # bool (N,)
    better: np.ndarray  # int (N,): the class that fits best beside the label


def doubtful(probabilities: np.ndarray, y: np.ndarray) -> Ranked:
    """Of out-of-fold probabilities (N, C) and labels y (N,)."""
    rows = np.arange(len(y))
    present = np.unique(y)
    thresholds = np.full(probabilities.shape[1], np.inf)
    thresholds[present] = [probabilities[y == label, label].mean() for label in present]
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    confident = np.where(reached.max(1) >= 0, reached.argmax(1), y)
    others = probabilities.copy()
    others[rows, y] = -1
    own = probabilities[rows, y]
    return Ranked(np.argsort(own, kind="stable"), own, confident != y, others.argmax(1))
