"""MNIST: 60,000 + 10,000 handwritten digits, 28x28, white on black (LeCun, Cortes, Burges, 1998).

The files are IDX: a magic number, the sizes, the bytes; described on http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, RemoteFile, Source, cannot_read

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
INNER_FOLDERS = ("raw", "MNIST/raw", "train", "test")
MOST_BYTES = 256 * 2**20  # of one file; the largest of MNIST has 45 MiB
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
    licence="CC BY-SA 3.0",
)


def holds(folder: Path) -> bool:
    return find(folder, "t10k-images-idx3-ubyte") is not None


def load(folder: Path) -> Dataset:
    """pixels uint8 (70000, 28, 28), the training rows first; the published test files evaluate.

    Raises:
        InputError: a file is missing, damaged, or pictures and labels differ in number.
    """
    return load_idx(folder, SOURCE.name, tuple("0123456789"), PARTS, strokes=20)  # of 28, then centred by mass


def load_idx(folder: Path, name: str, classes: tuple[str, ...], prefixes: dict[str, str], strokes: int = 0) -> Dataset:
    """The same of any set of this form: labels from 0, files that begin with the prefix of each part."""
    pixels, labels, parts = [], [], []
    for part, prefix in prefixes.items():
        pixels.append(read_idx(existing(folder, f"{prefix}-images-idx3-ubyte"), dimensions=3))
        labels.append(read_idx(existing(folder, f"{prefix}-labels-idx1-ubyte"), dimensions=1))
        if len(pixels[-1]) != len(labels[-1]):
            raise InputError(
                f"{folder}: {len(pixels[-1])} pictures but {len(labels[-1])} labels in the {prefix} files. "
                f"Files of two data sets are mixed: python -m datasets fetch {name}"
            )
        if labels[-1].max(initial=0) >= len(classes):
            raise InputError(
                f"{folder}: a label {labels[-1].max()} in the {prefix} files, where {name} has 0 to "
                f"{len(classes) - 1}. Another data set, or damaged: python -m datasets fetch {name}"
            )
        parts += [part] * len(labels[-1])
    if pixels[0].shape[1:] != pixels[1].shape[1:] or not all(map(np.size, pixels)):
        raise InputError(
            f"{folder}: pictures of {pixels[0].shape} and of {pixels[1].shape}, where training and test pictures have "
            f"one size. Files of two data sets are mixed: python -m datasets fetch {name}"
        )
    return Dataset(
        name=name,
        root=folder,
        paths=None,
        labels=np.concatenate(labels).astype(np.int32),
        classes=classes,
        parts=tuple(parts),
        pixels=np.concatenate(pixels),
        strokes=strokes,
    )


def find(folder: Path, name: str) -> Path | None:
    """The file packed or not, with the first hyphen before idx or a dot as some unpackers write it; in the folders that
    the course, torchvision and unpackers make of it."""
    spellings = (f"{name}.gz", name, name.replace("-idx", ".idx"))
    places = [folder, *(folder / inner for inner in INNER_FOLDERS), *(folder / spelling for spelling in spellings)]
    return next((p / spelling for p in places for spelling in spellings if (p / spelling).is_file()), None)


def existing(folder: Path, name: str) -> Path:
    path = find(folder, name)
    if path is None:
        raise InputError(f"{folder}: {name} is missing, also as {name}.gz. Fetch it: python -m datasets fetch mnist")
    return path


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """uint8 with `dimensions` axes. The content decides whether it is packed; no more is unpacked than its head states.

    Raises:
        InputError: not IDX of bytes with these axes, too large, or cut short.
    """
    again = "Remove it and fetch it again."
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(4 + 4 * dimensions)
            if start.lstrip()[:1] == b"<":
                raise InputError(f"{path}: a web page in place of the data, perhaps of a login. {again}")
            zeros, kind, axes = struct.unpack_from(">HBB", start)
            if zeros or kind != 8 or axes != dimensions:
                raise InputError(f"{path}: not an IDX file of bytes with {dimensions} axes. {again}")
            shape = struct.unpack_from(f">{axes}I", start, 4)
            size = math.prod(shape)
            if size > MOST_BYTES:
                raise InputError(f"{path}: its head states {shape}, more than {MOST_BYTES >> 20} MiB. {again}")
            content = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error, struct.error) as error:
        raise InputError(f"{path}: damaged ({error}). {again}") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(content) != size:
        found = f"{len(content)} bytes" if len(content) < size else "more bytes"
        raise InputError(f"{path}: {found} of data where its head states {shape}. {again}")
    return np.frombuffer(content, np.uint8).reshape(shape)
