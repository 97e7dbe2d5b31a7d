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
class RemoteFile:
    """One published file, and how to know that it came whole."""

    name: str  # on this disk
    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Source:
    """Where a data set comes from."""

    name: str  # what --dataset_path understands
    about: str  # a line for `python -m datasets list`
    credit: str  # authors, paper, terms
    files: tuple[RemoteFile, ...] = ()  # empty: nothing to fetch


@dataclass(frozen=True)
class Dataset:
    """N labelled pictures of C classes: files, or arrays of pixels."""

    name: str
    root: Path  # the folder the picture names are relative to
    paths: tuple[Path, ...] | None  # N files; None where there are pixels
    labels: np.ndarray  # (N,) int32, indices into `classes`
    classes: tuple[str, ...]  # C names; of folders: sorted
    parts: tuple[str, ...] | None  # N of PARTS as published, or None where the source has no split
    pixels: np.ndarray | None = None  # uint8 (N, H, W) grey or (N, H, W, 3) RGB
    strokes: int = 0  # white strokes on black, fitted into a box of this many pixels; 0: ordinary pictures

    def __len__(self) -> int:
        return len(self.labels)

    def picture_name(self, row: int) -> str:
        """The path of one picture relative to the root, with forward slashes on every system; of an array
        its part and its row."""
        if self.paths is not None:
            return self.paths[row].relative_to(self.root).as_posix()
        return f"{self.parts[row]}/{row:05d}" if self.parts else f"{row:05d}"


@dataclass(frozen=True)
class Split:
    """Which rows of a Dataset are for what: three sorted int arrays without a common row."""

    train: np.ndarray
    valid: np.ndarray  # taken from the training rows; chooses the best epoch
    eval: np.ndarray  # seen once, at the end
