"""Training rows of classes of different sizes made as many of each: features or pixels, and never other rows.

random    rows of the smaller classes again, drawn with replacement; or of the larger ones fewer, without
smote     new rows between a row and one of its nearest of the same class: N. Chawla et al., "SMOTE: Synthetic Minority
          Over-sampling Technique", 2002
"""

from __future__ import annotations

import numpy as np

from datasets.base import InputError
from finetune.config import TrainConfig

NEIGHBOURS = 5  # as in the paper


def resampled(x: np.ndarray, y: np.ndarray, config: TrainConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x (N, ...) and y (N,) of the training rows, as train.oversample and train.undersample say.

    The given rows come first, as they are, or the chosen of them in their order.

    Raises:
        InputError: the rows are so many that they stay on the disk.
    """
    if not isinstance(x, np.ndarray) and config.resamples:
        raise InputError(
            "train.oversample and train.undersample hold all training rows in memory, and these are too many. Use "
            "train.class_weights=balanced or train.sampling=balanced."
        )
    rng = np.random.default_rng([seed, 3])
    counts = np.bincount(y)
    present = np.flatnonzero(counts)
    if config.undersample:
        few = counts[present].min()
        chosen = [rng.choice(np.flatnonzero(y == label), few, replace=False) for label in present]
        rows = np.sort(np.concatenate(chosen))
        return x[rows], y[rows]
    if config.oversample == "none":
        return x, y
    make = smote if config.oversample == "smote" else repeated
    more = {label: counts.max() - counts[label] for label in present}
    rows = [make(x[y == label], count, rng) for label, count in more.items()]
    labels = np.repeat(list(more), list(more.values())).astype(y.dtype)
    return np.concatenate([x, *rows]).astype(x.dtype, copy=False), np.concatenate([y, labels])


def repeated(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the rows x (n, ...) of a class."""
    return x[rng.integers(len(x), size=count)]


def smote(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` new rows of a class x (n, ...): x + u (neighbour - x), u from 0 to 1, the rows in turn. One row alone has
    no neighbour and is repeated."""
    neighbours = min(NEIGHBOURS, len(x) - 1)
    if not neighbours or not count:
        return repeated(x, count, rng)
    from sklearn.neighbors import NearestNeighbors

    flat = x.reshape(len(x), -1)
    nearest = NearestNeighbors(n_neighbors=neighbours).fit(flat).kneighbors(return_distance=False)  # not the row itself
    rows = rng.permutation(np.resize(rng.permutation(len(x)), count))
    others = nearest[rows, rng.integers(neighbours, size=count)]
    along = rng.random((count, 1), dtype=np.float32)
    return (flat[rows] + along * (flat[others] - flat[rows])).reshape(count, *x.shape[1:])
