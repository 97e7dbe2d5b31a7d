"""CIFAR-10: 50,000 + 10,000 photographs of ten kinds, 32x32 in colour (Krizhevsky, 2009), in its binary form.

A record is a label and 32x32 bytes each of red, green and blue; described on https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import UNPACKED, Dataset, InputError, RemoteFile, Source, cannot_read

SIDE, CHANNELS = 32, 3
RECORD_BYTES = 1 + CHANNELS * SIDE * SIDE
BATCHES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "eval": ("test_batch.bin",)}
INNER = (f"{UNPACKED}/cifar-10-batches-bin", "cifar-10-batches-bin", ".")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCE = Source(
    name="cifar10",
    about="photographs of ten kinds, 50,000 + 10,000, 32x32",
    credit="A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
    files=(
        RemoteFile(
            "cifar-10-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170052171,
        ),
    ),
    unpacked=True,
)


def inner(folder: Path) -> Path | None:
    return next((folder / name for name in INNER if (folder / name / BATCHES["eval"][0]).is_file()), None)


def holds(folder: Path) -> bool:
    return inner(folder) is not None


def load(folder: Path) -> Dataset:
    """pixels uint8 (60000, 32, 32, 3), the training rows first; the published test batch evaluates.

    Raises:
        InputError: a file is missing or damaged.
    """
    place = inner(folder) or folder
    records, parts = [], []
    for part, names in BATCHES.items():
        for name in names:
            records.append(read_batch(place / name))
            parts += [part] * len(records[-1])
    rows = np.concatenate(records)
    return Dataset(
        name=SOURCE.name,
        root=folder,
        paths=None,
        labels=rows[:, 0].astype(np.int32),
        classes=CLASSES,
        parts=tuple(parts),
        pixels=np.ascontiguousarray(rows[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)),
    )


def read_batch(path: Path) -> np.ndarray:
    """uint8 (n, 3073). Raises InputError: not whole records, or a label that is none."""
    again = "Fetch it again: python -m datasets fetch cifar10"
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing. {again}") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    if not len(content) or len(content) % RECORD_BYTES:
        raise InputError(f"{path}: {len(content):,} bytes are no whole records of {RECORD_BYTES}. {again}")
    rows = content.reshape(-1, RECORD_BYTES)
    if rows[:, 0].max() >= len(CLASSES):
        raise InputError(f"{path}: a label {rows[:, 0].max()}, where there are 0 to {len(CLASSES) - 1}. {again}")
    return rows
