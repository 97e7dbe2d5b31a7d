"""AHCD: 13,440 + 3,360 handwritten Arabic letters, 32x32, white on black (El-Sawy, Loey, 2017).

A. El-Sawy, M. Loey, H. El-Bakry: Arabic Handwritten Characters Recognition using Convolutional Neural Network,
WSEAS Transactions on Computer Research 5, 2017. Pixels and labels are CSV files, in a zip archive or unpacked. Each
row is a letter column by column: read as rows, the letters lie on their side.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, RemoteFile, Source

SIDE = 32
NAMES = (
    "alef beh teh theh jeem hah khah dal thal reh zain seen sheen sad dad tah zah ain ghain feh qaf kaf lam meem noon "
    "heh waw yeh"
).split()  # Unicode's, in the order of the labels 1..28
ARCHIVE = "ahcd_csv.zip"
MOST_BYTES = 256 * 2**20  # of one file; the largest has 28 MiB
PARTS = {"train": ("csvTrainImages 13440x1024.csv", "csvTrainLabel 13440x1.csv"),
         "eval": ("csvTestImages 3360x1024.csv", "csvTestLabel 3360x1.csv")}  # fmt: skip
SOURCE = Source(
    name="arabic",
    about="handwritten Arabic letters, 13,440 + 3,360, 32x32",
    credit="A. El-Sawy, M. Loey, H. El-Bakry, WSEAS Transactions on Computer Research 5, 2017",
    files=(
        RemoteFile(
            ARCHIVE,
            "https://raw.githubusercontent.com/mloey/Arabic-Handwritten-Characters-Dataset/master/"
            "Arabic%20Handwritten%20Characters%20Dataset%20CSV.zip",
            "3dcf2ed8f57a5914078929a53a6302aeb1b065ffec5f0dd92b3b463a121d0161",
            3181704,
        ),
    ),
    licence="not stated",
)


def holds(folder: Path) -> bool:
    return (folder / ARCHIVE).is_file() or (folder / PARTS["eval"][0]).is_file()


def load(folder: Path) -> Dataset:
    """pixels uint8 (16800, 32, 32), upright, the training rows first; the published test rows evaluate.

    Raises:
        InputError: a file is missing, damaged, or not of this data set.
    """
    pixels, labels, parts = [], [], []
    for part, (pixels_name, labels_name) in PARTS.items():
        pixels.append(read_numbers(folder, pixels_name, SIDE * SIDE).reshape(-1, SIDE, SIDE).swapaxes(1, 2))
        labels.append(read_numbers(folder, labels_name, 1)[:, 0])
        if len(labels[-1]) != len(pixels[-1]) or not np.isin(labels[-1], range(1, len(NAMES) + 1)).all():
            raise InputError(
                f"{folder}: {labels_name} has {len(labels[-1])} labels from {labels[-1].min()} to {labels[-1].max()}, "
                f"expected {len(pixels[-1])} from 1 to {len(NAMES)}. Fetch it again: python -m datasets fetch arabic"
            )
        parts += [part] * len(labels[-1])
    return Dataset(
        name=SOURCE.name,
        root=folder,
        paths=None,
        labels=np.concatenate(labels).astype(np.int32) - 1,
        classes=tuple(NAMES),
        parts=tuple(parts),
        pixels=np.ascontiguousarray(np.concatenate(pixels)),
        strokes=18,  # of 32: about the mean of the letters' longer sides
    )


def read_numbers(folder: Path, name: str, columns: int) -> np.ndarray:
    """uint8 (rows, columns) of a CSV file, from the archive where it is there."""
    try:
        if (folder / ARCHIVE).is_file():
            with zipfile.ZipFile(folder / ARCHIVE) as archive:
                if archive.getinfo(name).file_size > MOST_BYTES:
                    raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
                text = archive.read(name)
        else:
            text = (folder / name).read_bytes()
        values = np.fromstring(text.decode("ascii").replace("\n", ","), dtype=np.int64, sep=",")
        if values.size == 0 or values.min() < 0 or values.max() > 255:
            raise ValueError("numbers outside of 0..255, or none")
        return values.astype(np.uint8).reshape(-1, columns)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{folder}: {name} is missing or damaged ({error}). Fetch it: python -m datasets fetch arabic"
        ) from error
