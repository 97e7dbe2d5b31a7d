"""What every format gives, and the sentence for what cannot be read."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from datasets.base import InputError

MOST_BYTES = 1 << 29  # of a file, and of all its arrays: the largest MobileNetV2 with an optimizer's state has 100 MB


@dataclass(frozen=True)
class WeightFile:
    """The arrays of a file by the names that they have there, in their own layout."""

    file_format: str  # for people
    arrays: dict[str, np.ndarray]
    size: tuple[int, int] | None = None  # H, W of the pictures, where the file itself says so
    bn_eps: float | None = None  # the same


@dataclass
class Entries:
    """Collects arrays; their sizes are compared with what is there before memory is asked for."""

    path: Path
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    left_bytes: int = MOST_BYTES

    def claim(self, name: str, shape: Sequence[int], dtype: np.dtype, there: int | None) -> None:
        """Raises InputError unless an array of this shape is `there` bytes long and the sum stays within bounds."""
        wanted = prod(map(int, shape)) * dtype.itemsize
        if min(shape, default=0) < 0 or (there is not None and wanted != there):
            raise unreadable(self.path, f"{name} claims the shape {tuple(shape)}, and {there:,} bytes are there for it")
        self.left_bytes -= wanted
        if self.left_bytes < 0:
            raise unreadable(self.path, f"it claims more than {MOST_BYTES >> 20} MiB of numbers")

    def add(self, name: str, content: bytes | memoryview, dtype: np.dtype, shape: Sequence[int]) -> None:
        self.claim(name, shape, dtype, len(content))
        self.arrays[name] = as_float(np.frombuffer(content, dtype), name).reshape(tuple(map(int, shape)))


ZIP_FAULTS = (
    *(KeyError, OSError, EOFError, ValueError, NotImplementedError, RuntimeError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has no such type: the upper half of a float32


def as_float(array: np.ndarray, name: str = "") -> np.ndarray:
    """Every type of number as itself, and bfloat16 as float32."""
    if array.dtype != BFLOAT16:
        return array
    return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)


def unreadable(path: Path, reason: object) -> InputError:
    size = f" ({path.stat().st_size:,} bytes)" if path.is_file() else ""
    return InputError(
        f"{path}{size}: not readable as weights: {reason}. It is cut short, damaged or of another kind: "
        "download or copy it again and compare its size with the source."
    )


def bounded(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of an archive. Raises InputError where it unpacks to more than weights ever have."""
    try:
        if archive.getinfo(name).file_size > MOST_BYTES:
            raise unreadable(path, f"{name} in it unpacks to more than {MOST_BYTES >> 20} MiB")
        with archive.open(name) as file:
            return file.read(MOST_BYTES)
    except ZIP_FAULTS as error:
        raise unreadable(path, f"{name} in it: {error}") from error
