"""MNIST: 60,000 + 10,000 handwritten digits, 28x28, white on black (LeCun, Cortes, Burges, 1998).

The files are IDX: a magic number, the sizes, the bytes; described on http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, RemoteFile, Source

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
PARTS = {"train": "train", "eval": "t10k"}  # ours -> the files'
SOURCE = Source(
    name="mnist",
    about="handwritten digits, 60,000 + 10,000, 28x28",
    credit="Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits",
    files=tuple(
        RemoteFile(name, MIRROR + name, sha256, size)
        for name, sha256, size in (
            ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
            ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
            ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
            ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
        )
    ),
)


def holds(folder: Path) -> bool:
    return find(folder, "t10k-images-idx3-ubyte") is not None


def load(folder: Path) -> Dataset:
    """pixels uint8 (70000, 28, 28), the training rows first; the published test files evaluate.

    Raises:
        InputError: a file is missing, damaged, or pictures and labels differ in number.
    """
    pixels, labels, parts = [], [], []
    for part, prefix in PARTS.items():
        pixels.append(read_idx(existing(folder, f"{prefix}-images-idx3-ubyte"), dimensions=3))
        labels.append(read_idx(existing(folder, f"{prefix}-labels-idx1-ubyte"), dimensions=1))
        if len(pixels[-1]) != len(labels[-1]):
            raise InputError(
                f"{folder}: {len(pixels[-1])} pictures but {len(labels[-1])} labels in the {prefix} files. "
                "Files of two data sets are mixed: python -m datasets fetch mnist"
            )
        parts += [part] * len(labels[-1])
    return Dataset(
        name=SOURCE.name,
        root=folder,
        paths=None,
        labels=np.concatenate(labels).astype(np.int32),
        classes=tuple("0123456789"),
        parts=tuple(parts),
        pixels=np.concatenate(pixels),
        strokes=20,  # of 28: how the digits were fitted in, then centred by mass
    )


def find(folder: Path, name: str) -> Path | None:
    """The file packed or not, with the first hyphen before idx or a dot as some unpackers write it."""
    spellings = (f"{name}.gz", name, name.replace("-idx", ".idx"))
    return next((folder / spelling for spelling in spellings if (folder / spelling).is_file()), None)


def existing(folder: Path, name: str) -> Path:
    path = find(folder, name)
    if path is None:
        raise InputError(f"{folder}: {name} is missing, also as {name}.gz. Fetch it: python -m datasets fetch mnist")
    return path


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """uint8 with `dimensions` axes.

    Raises:
        InputError: not IDX of bytes with these axes, or cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise InputError(f"{path}: damaged ({error}). Remove it and fetch it again.") from error
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if zeros or kind != 8 or axes != dimensions:
        raise InputError(f"{path}: not an IDX file of bytes with {dimensions} axes. Remove it and fetch it again.")
    if values.size != np.prod(shape, dtype=int):
        raise InputError(
            f"{path}: {values.size} bytes of data where its head states {shape}. Remove it and fetch it again."
        )
    return values.reshape(shape)
