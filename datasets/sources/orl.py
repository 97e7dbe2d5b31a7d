"""ORL faces: 40 people, 10 pictures each (AT&T Laboratories Cambridge; Samaria, Harter, 1994).

Two forms: `orl`, the sheet `olivettifaces.gif` of S. Roweis, 20 x 20 tiles of 57x47; `orl_pgm`, the original folders
s1 ... s40 of PGM files, 112x92, which are an ordinary folder of pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from datasets.base import Dataset, InputError, RemoteFile, Source

PEOPLE, PICTURES_EACH = 40, 10
TILES, HEIGHT, WIDTH = 20, 57, 47  # tiles a side; pixels of a tile with the white line on its right and below
BETWEEN = (470, 941)  # columns of the sheet that belong to no tile
SHEET = "olivettifaces.gif"
SOURCE = Source(
    name="orl",
    about="faces of 40 people, 10 each, 57x47",
    credit="AT&T Laboratories Cambridge; the sheet is by S. Roweis, New York University",
    files=(
        RemoteFile(
            SHEET,
            "https://cs.nyu.edu/~roweis/data/olivettifaces.gif",
            "9d897f7e091b4a73dd46d82bbd260382eac1d269fe0a660b4f1d21e77e3f3051",
            1182931,
        ),
    ),
    licence="credit AT&T Laboratories Cambridge",
)


def holds(folder: Path) -> bool:
    return (folder / SHEET).is_file()


def load(folder: Path) -> Dataset:
    """pixels uint8 (400, 57, 47); a person is ten tiles in reading order; no published split.

    Raises:
        InputError: the sheet is damaged or of another size.
    """
    path = folder / SHEET
    try:
        with Image.open(path) as picture:
            sheet = np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, EOFError) as error:
        raise InputError(f"{path}: damaged ({error}). Remove it and fetch it again.") from error
    expected = (TILES * HEIGHT, TILES * WIDTH + len(BETWEEN))
    if sheet.shape != expected:
        raise InputError(
            f"{path}: {sheet.shape[1]} x {sheet.shape[0]} pixels, expected {expected[1]} x {expected[0]}. "
            "Remove it and fetch it again: python -m datasets fetch orl"
        )
    tiles = np.delete(sheet, BETWEEN, axis=1).reshape(TILES, HEIGHT, TILES, WIDTH).swapaxes(1, 2)
    pixels = np.ascontiguousarray(tiles.reshape(PEOPLE * PICTURES_EACH, HEIGHT, WIDTH))
    pixels[:, :, -1], pixels[:, -1] = pixels[:, :, -2], pixels[:, -2]  # the white lines are no part of a face
    return Dataset(
        name=SOURCE.name,
        root=folder,
        paths=None,
        labels=np.repeat(np.arange(PEOPLE, dtype=np.int32), PICTURES_EACH),
        classes=tuple(f"s{person}" for person in range(1, PEOPLE + 1)),
        parts=None,
        pixels=pixels,
    )
