"""The words everybody uses: Dataset, and the error a user gets to read.

Letters used in all packages: N pictures, C classes, D features, B pictures a batch, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # kept out of the way of --help
    import numpy as np

PARTS = ("train", "valid", "eval")
UNPACKED = "pictures"


class InputError(Exception):
    """Something given cannot be used. The message says what was found, what is possible, what to do."""


class MachineFault(InputError):
    """Not what was given is at fault: rights, a disk, a network, memory."""


def cannot_read(path: Path, error: OSError) -> MachineFault:
    """It says nothing about the file."""
    return MachineFault(
        f"{path}: cannot be read ({error.strerror or error}): a fault of its rights, the disk or the network, not of "
        "the file. Mend that and repeat the command; what is computed is kept."
    )


@dataclass(frozen=True)
class RemoteFile:
    """One published file, and how to know that it came whole."""

    name: str  # on this disk
    url: str
    sha256: str  # or how it begins; empty where it is not published
    bytes: int  # 0 where it is not published
    mirrors: tuple[str, ...] = ()  # further addresses


@dataclass(frozen=True)
class Source:
    """Where a data set comes from."""

    name: str  # what --dataset_path understands
    about: str  # a line for `python -m datasets list`
    credit: str  # authors, paper
    files: tuple[RemoteFile, ...] = ()  # empty: nothing to fetch
    licence: str = "not stated"
    unpacked: bool = False  # the files are archives of the pictures, unpacked into the folder UNPACKED beside them

    @property
    def bytes(self) -> int:
        """To download; 0 where one of the sizes is not published."""
        sizes = [file.bytes for file in self.files]
        return sum(sizes) if all(sizes) else 0


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
    passed_over: dict[str, dict[str, int]] = field(default_factory=dict)  # folder -> what is not used -> how many
    notes: tuple[str, ...] = ()  # what was decided about the folders
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
