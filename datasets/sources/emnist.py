"""EMNIST letters: 124,800 + 20,800 handwritten letters, 28x28, upper and lower case as one (Cohen et al., 2017).

IDX files inside one archive of all EMNIST sets. Pictures lie on their side (rows are columns), and labels begin at 1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.base import UNPACKED, Dataset, RemoteFile, Source
from datasets.sources.mnist import find, load_idx

PARTS = {"train": "emnist-letters-train", "eval": "emnist-letters-test"}
INNER = (f"{UNPACKED}/gzip", "gzip", ".")
CLASSES = tuple("abcdefghijklmnopqrstuvwxyz")
SOURCE = Source(
    name="emnist",
    about="handwritten letters, 124,800 + 20,800, 28x28",
    credit="G. Cohen, S. Afshar, J. Tapson, A. van Schaik: EMNIST, arXiv:1702.05373",
    files=(
        RemoteFile(
            "gzip.zip",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip",
            "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
            561753746,
            mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
        ),
    ),
    licence="US government work",
    unpacked=True,
)


def inner(folder: Path) -> Path | None:
    return next((folder / name for name in INNER if find(folder / name, f"{PARTS['eval']}-images-idx3-ubyte")), None)


def holds(folder: Path) -> bool:
    return inner(folder) is not None


def load(folder: Path) -> Dataset:
    """pixels uint8 (145600, 28, 28) that stand upright, the training rows first. Raises InputError as `mnist.load`."""
    found = load_idx(inner(folder) or folder, SOURCE.name, ("", *CLASSES), PARTS, strokes=20)
    upright = np.ascontiguousarray(found.pixels.transpose(0, 2, 1))
    return replace(found, root=folder, labels=found.labels - 1, classes=CLASSES, pixels=upright)
