"""Is a picture unlike anything that has trained? The distance of its features from those of the nearest training row.

distance     1 - cosine; 0: the same direction
threshold    99 % of the training rows are nearer than this to another one, of another group or file

No class is asked, so that a head which is sure of nonsense does not matter. Mahalanobis' distance with one covariance
for all classes (Lee et al., "A simple unified framework for detecting out-of-distribution samples", 2018) was measured
beside it: on plain features it is worse, on features of length 1 no better, and it needs a matrix (D, D) to be inverted
(`python -m benchmarks.insight.novelty`). NumPy is all that this needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import replace_file
from finetune.run_folder import again

FILE = "novelty.npz"  # in the run folder: rows float16 (N, D) of length 1, and the threshold
KEPT_SHARE = 0.99  # of the training rows that are not unlike the others
MOST = 20_000  # rows that are kept, drawn at random of more: 50 MB
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Novelty:
    rows: np.ndarray  # float32 (N, D) of length 1
    threshold: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Distances (n,) of feature rows x (n, D) from the nearest training row."""
        return nearest(unit(x), self.rows)

    def columns(self, distance: float) -> dict[str, str]:
        """What a table says of a picture."""
        return {"unlike": "yes" if distance > self.threshold else "no", "novelty": f"{distance:.6f}"}

    def save(self, run: Path) -> None:
        arrays = {"rows": self.rows.astype(np.float16), "threshold": np.float64(self.threshold)}
        replace_file(run / FILE, lambda file: np.savez(file, **arrays))


def load_novelty(run: Path) -> Novelty | None:
    """None where the run has no such file: it is from scratch, or of an earlier version.

    Raises:
        InputError: the file is damaged.
    """
    path = run / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            rows, threshold = unit(file["rows"].astype(np.float32)), float(file["threshold"])
        if rows.ndim != 2 or not np.isfinite(threshold):
            raise ValueError("no rows, or no threshold")
    except Exception as error:  # NumPy raises nearly any type on a damaged file
        raise InputError(f"{path}: damaged ({error}). {again(run)} Or remove it, and do without.") from error
    return Novelty(rows, threshold)


def fit_novelty(x: np.ndarray, groups: np.ndarray, held_out: np.ndarray | None = None, seed: int = 0) -> Novelty:
    """Of training rows x (N, D).

    Args:
        groups: int (N,); a row's neighbours are looked for in other groups, as a copy is always near.
        held_out: rows (n, D) to take the threshold from instead, where features were trained on the pictures of x and
            may tell them from new ones.
    """
    if len(x) > MOST:
        kept = np.sort(np.random.default_rng(seed).permutation(len(x))[:MOST])
        x, groups = x[kept], groups[kept]
    rows = unit(x)
    distances = nearest(rows, rows, groups) if held_out is None else nearest(unit(held_out), rows)
    return Novelty(rows, upper_bound(distances))


def upper_bound(distances: np.ndarray) -> float:
    """What the next one of their kind passes in 1 % of cases at most: the largest where there are fewer than 99."""
    rank = math.ceil((len(distances) + 1) * KEPT_SHARE)
    return float(np.sort(distances)[min(rank, len(distances)) - 1])


def nearest(x: np.ndarray, rows: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """1 - the largest cosine of each of x (n, D) with rows (N, D), all of length 1; with groups (N,) x are the rows,
    and those of the same group do not count."""
    found = np.empty(len(x), np.float32)
    for start in range(0, len(x), ROWS_AT_ONCE):
        piece = slice(start, start + ROWS_AT_ONCE)
        cosine = x[piece] @ rows.T
        if groups is not None:
            cosine[groups[piece, None] == groups[None]] = -1
        found[piece] = 1 - cosine.max(1)
    return found


def unit(x: np.ndarray) -> np.ndarray:
    """Rows (n, D) of length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
