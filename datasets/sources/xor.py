"""XOR: the four rows that no single layer can learn (Minsky, Papert: Perceptrons, 1969)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import Dataset, Source

SOURCE = Source(
    name="xor",
    about="the four rows of exclusive or, as pictures of two pixels",
    credit="Minsky, Papert: Perceptrons",
    licence="none",
)


def load(folder: Path) -> Dataset:
    """pixels uint8 (8, 1, 2), 0 or 255: the four rows to train on, and the same four to evaluate.

    The four rows are all there are, so nothing can be held out.
    """
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.uint8)
    labels = inputs[:, 0] ^ inputs[:, 1]
    return Dataset(
        name=SOURCE.name,
        root=folder,
        paths=None,
        labels=np.tile(labels, 2).astype(np.int32),
        classes=("false", "true"),
        parts=("train",) * 4 + ("eval",) * 4,
        pixels=np.tile(255 * inputs[:, None, :], (2, 1, 1)),
    )
