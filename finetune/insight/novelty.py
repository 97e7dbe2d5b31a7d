"""Is a picture unlike anything that has trained? How far its features are from those of the training pictures.

Features of length 1 are described by one Gaussian: its mean, its longest axes, and one variance for all other
directions (M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis", 1999), drawn to a sphere where
rows are few (O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004).

novelty      the squared distance by that Gaussian (Mahalanobis'), divided by what 99 % of the training rows keep when
             the Gaussian has not seen them: above 1 a picture is unlike the training pictures

No class is asked, so that a head which is sure of nonsense does not matter. It holds no row of a picture, is as large
for 20,000 pictures as for 100, and is a few operations in an exported graph. Other measures were tried beside it
(`python -m benchmarks.insight.novelty`). NumPy is all that this needs.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import replace_file
from finetune.run_folder import MOBILENETV2, again, ckpt_path

# In the run folder: the arrays of a `Novelty`, and the sha256 of the CKPT whose features they are of.
FILE = "novelty.npz"
AXES = 64  # at most: with as many, or twice as many, training pictures tell others best out of fold
THRESHOLD = 1.0  # of novelty
KEPT_SHARE = 0.99  # of the training rows that are not unlike the others
FOLDS = 5
LEAST_LENGTH = 1e-12  # of features
MOST_SCALE = 1e9  # variances below 1e-9 are those of rounding
LEAST_HELD_OUT = 20  # rows: the largest of fewer is passed by more than one new picture in 20 of the same kind
TURNS = 8  # of the search for axes; more change nothing that can be measured

log = logging.getLogger("finetune")


class NoThreshold(Exception):
    """What the training pictures are does not say how far others may be."""


@dataclass(frozen=True)
class Novelty:
    """scale * |d|^2 - |d @ axes|^2 with d = features of length 1 - mean: far in all directions, but for the axes, along
    which the training pictures differ most."""

    mean: np.ndarray  # float32 (D,)
    axes: np.ndarray  # float32 (D, K)
    scale: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32 (n,) of feature rows x (n, D)."""
        d = unit(x) - self.mean
        return np.float32(self.scale) * (d**2).sum(1) - ((d @ self.axes) ** 2).sum(1)

    def within(self, threshold: float) -> Novelty:
        """The same in units of a threshold."""
        axes = self.axes / np.float32(math.sqrt(threshold))
        return Novelty(self.mean, axes, self.scale / threshold)

    def save(self, run: Path) -> None:
        arrays = {"mean": self.mean, "axes": self.axes, "scale": np.float64(self.scale), "ckpt": ckpt_digest(run)}
        replace_file(run / FILE, lambda file: np.savez(file, **arrays))


def columns(novelty: float, threshold: float) -> dict[str, str]:
    """What a table says of a picture."""
    return {"unlike": "yes" if novelty > threshold else "no", "novelty": f"{novelty:.6f}"}


def load_novelty(run: Path) -> Novelty | None:
    """None where the run has no such file, as it is from scratch, or where it is of other weights, which is said.

    Raises:
        InputError: the file is damaged.
    """
    path = run / FILE
    if not path.is_file():
        return None
    wanted = ckpt_digest(run)
    try:
        with np.load(path) as file:
            if "ckpt" not in file or str(file["ckpt"]) != wanted:
                why = "not of this CKPT" if "ckpt" in file else "of an earlier version"
                log.warning("%s: %s: what is unlike the training pictures is not told. %s", path, why, again(run))
                return None
            found = Novelty(file["mean"], file["axes"], float(file["scale"]))
        if found.axes.shape[:1] != found.mean.shape or not found.scale > 0:
            raise ValueError("its arrays do not fit")
    except Exception as error:  # NumPy raises nearly any type on a damaged file
        raise InputError(f"{path}: damaged ({error}). {again(run)} Or remove it, and do without.") from error
    return found


def ckpt_digest(run: Path) -> str:
    """sha256 of the weights whose features these are."""
    return hashlib.sha256(ckpt_path(run, MOBILENETV2).read_bytes()).hexdigest()


def fit_novelty(x: np.ndarray, groups: np.ndarray, held_out: np.ndarray | None = None, seed: int = 0) -> Novelty:
    """Of training rows x (N, D).

    Args:
        groups: int (N,); rows of one group are never in and out of a fold at a time, as a copy is always near.
        held_out: rows (n, D) to take the threshold from instead, where features were trained on the pictures of x and
            may tell them from new ones.

    Raises:
        NoThreshold: nothing can be told from so few rows, or from equal ones, or where most are of one group.
    """
    x = unit(x)
    whole = Moments.of(x)
    found = gaussian(whole, x)
    if found.scale > MOST_SCALE:
        raise NoThreshold("the training pictures are too few, or have the same features")
    if held_out is not None:
        if len(held_out) < LEAST_HELD_OUT:
            raise NoThreshold(
                f"blocks were trained, and {len(held_out)} validation pictures, of {LEAST_HELD_OUT}, give no threshold"
            )
        return found.within(upper_bound(found(held_out)))
    fold = dealt(groups, seed)
    if np.bincount(fold).max() > math.ceil(len(x) / 2):
        raise NoThreshold("more than half of the training pictures are of one group")
    distances = np.empty(len(x), np.float32)
    for number in range(fold.max() + 1):
        out = fold == number
        distances[out] = gaussian(whole.without(Moments.of(x[out])), x[~out])(x[out])
    return found.within(upper_bound(distances))


def dealt(groups: np.ndarray, seed: int) -> np.ndarray:
    """int (N,): the fold of each row, whose group stays together; the larger ones first, into the smallest fold."""
    names, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(np.random.default_rng(seed).permutation(len(names)))
    fold, rows = np.empty(len(names), int), np.zeros(min(FOLDS, len(names)), int)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold[group] = rows.argmin()
        rows[fold[group]] += sizes[group]
    return fold[place]


@dataclass(frozen=True)
class Moments:
    """Sums over rows, of which those of a part can be taken away: N rows cost their products once, not once a fold."""

    count: int
    total: np.ndarray  # float64 (D,)
    products: np.ndarray  # float64 (D, D)

    @classmethod
    def of(cls, x: np.ndarray) -> Moments:
        return cls(len(x), x.sum(0, dtype=np.float64), (x.T @ x).astype(np.float64))

    def without(self, part: Moments) -> Moments:
        return Moments(self.count - part.count, self.total - part.total, self.products - part.products)


def gaussian(moments: Moments, x: np.ndarray, most_axes: int = AXES) -> Novelty:
    """Of rows x (N, D) of length 1, whose moments are known; in units of variances."""
    width = x.shape[1]
    mean = moments.total / moments.count
    covariance = moments.products / moments.count - np.outer(mean, mean)
    variances, axes = longest(covariance, min(most_axes, width - 1, max(1, len(x) - 1)))
    average = np.trace(covariance) / width
    share = sphere_share(covariance, average, ((x - mean.astype(np.float32)) ** 2).sum(1))
    variances = (1 - share) * variances + share * average
    rest = max((average * width - variances.sum()) / (width - len(variances)), 1e-12)
    axes = axes * np.sqrt(np.maximum(1 / rest - 1 / np.maximum(variances, rest), 0))
    return Novelty(mean.astype(np.float32), axes.astype(np.float32), 1 / rest)


def longest(covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(variances (K,), axes (D, K)), near enough: by powers of the matrix, a small part of the work of all of them."""
    axes = np.random.default_rng(0).normal(size=(len(covariance), count))
    for _ in range(TURNS):
        axes, _ = np.linalg.qr(covariance @ axes)
    variances, turn = np.linalg.eigh(axes.T @ covariance @ axes)
    return variances, axes @ turn


def sphere_share(covariance: np.ndarray, average: float, squares: np.ndarray) -> float:
    """How far a covariance is drawn to a sphere, 0..1. `squares`: (N,) of the lengths of the centred rows."""
    count, plain = len(squares), (covariance**2).sum()
    spread = plain - len(covariance) * average**2
    noise = (squares.astype(np.float64) ** 2).sum() / count**2 - plain / count
    return float(min(1.0, max(0.0, noise / max(spread, 1e-12))))


def upper_bound(distances: np.ndarray) -> float:
    """What the next one of their kind passes in 1 % of cases at most: the largest where there are fewer than 99."""
    rank = math.ceil((len(distances) + 1) * KEPT_SHARE)
    return float(np.sort(distances)[min(rank, len(distances)) - 1])


def unit(x: np.ndarray) -> np.ndarray:
    """Rows (n, D) of length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), LEAST_LENGTH)
