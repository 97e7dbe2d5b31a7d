"""The words everybody uses: Dataset, and the error a user gets to read.

Letters used in all packages: N pictures, C classes, D features, B pictures a batch, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # kept out of the way of --help
    import numpy as np

PARTS = ("train", "valid", "eval")


class InputError(Exception):
    """Something given cannot be used. The message says what was found, what is possible, what to do."""


@dataclass(frozen=True)
class Dataset:
    """N labelled pictures of C classes."""

    name: str
    root: Path  # the folder the picture names are relative to
    paths: tuple[Path, ...]  # N files
    labels: np.ndarray  # (N,) int32, indices into `classes`
    classes: tuple[str, ...]  # C names, sorted
    parts: tuple[str, ...] | None  # N of PARTS as published, or None where the source has no split

    def __len__(self) -> int:
        return len(self.paths)

    def picture_name(self, row: int) -> str:
        """The path of one picture relative to the root, with forward slashes on every system."""
        return self.paths[row].relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Split:
    """Which rows of a Dataset are for what: three sorted int arrays without a common row."""

    train: np.ndarray
    valid: np.ndarray  # taken from the training rows; chooses the best epoch
    eval: np.ndarray  # seen once, at the end
