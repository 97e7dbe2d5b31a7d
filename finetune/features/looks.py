"""Small pictures, and what can be told of a picture without a label: dark, bright, blurred, tiny, long, grey.

A file is decoded once for all of this, reduced while it is decoded, so that it costs milliseconds a picture. The bounds
of the slices are numbers anybody can check, and not quantiles: of a set of bright pictures none is dark.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.decoding.decode import decode, read_file
from datasets.decoding.formats import DamagedPicture
from finetune.device import usable_cores

SIDE = 128  # pixels of the longer side that is kept
DARK, BRIGHT = 80.0, 160.0  # levels of 0..255, mean of the grey picture
BLURRED = 400.0  # levels squared: variance of the Laplacian of the small grey picture
TINY = 128  # pixels of the shorter side of the file
LONG = 1.8  # times the shorter side
GREY = 6.0  # levels between the largest and the smallest of red, green and blue, mean of the pixels
SLICES = {
    "dark": f"mean brightness below {DARK:g} of 255",
    "bright": f"mean brightness above {BRIGHT:g} of 255",
    "blurred": f"blurred or without detail: variance of the Laplacian below {BLURRED:g} at {SIDE} pixels",
    "tiny": f"shorter side below {TINY} pixels",
    "long": f"longer side at least {LONG:g} times the shorter",
    "grey": f"red, green and blue less than {GREY:g} of 255 apart",
}


class Thumbnail(NamedTuple):
    picture: Image.Image  # RGB, its longer side SIDE at most
    size: tuple[int, int]  # width, height in the file, upright


def thumbnail(path: Path) -> Thumbnail | None:
    """None where the picture cannot be read."""
    try:
        decoded = decode(read_file(path), SIDE // 2)
    except (OSError, DamagedPicture):
        return None
    picture = decoded.picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return Thumbnail(picture, decoded.size)


@dataclass(frozen=True)
class Looks:
    """What one look at each of N pictures gave. One that cannot be read any more is in no slice, and is not kept."""

    slices: dict[str, np.ndarray]  # for each of SLICES bool (N,): the pictures in it
    grey: dict[int, np.ndarray]  # row -> uint8 (H, W), the thumbnail in grey, of the rows to keep: 16 KB each at most


def look(paths: Sequence[Path], kept: Collection[int] = ()) -> Looks:
    """Each file is decoded once, and only the rows `kept` are kept as thumbnails."""

    def one(row: int) -> tuple[set[str], np.ndarray | None]:
        small = thumbnail(paths[row])
        return (look_at(small), np.asarray(small.picture.convert("L"))) if small else (set(), None)

    slices, grey = {name: np.zeros(len(paths), bool) for name in SLICES}, {}
    with ThreadPoolExecutor(usable_cores()) as threads:  # Pillow decodes beside them
        for row, (names, pixels) in enumerate(threads.map(one, range(len(paths)))):
            for name in names:
                slices[name][row] = True
            if row in kept and pixels is not None:
                grey[row] = pixels
    return Looks(slices, grey)


def look_at(small: Thumbnail) -> set[str]:
    """The names of the slices that a picture is in."""
    grey = np.asarray(small.picture.convert("L"), np.float32)
    colours = [np.asarray(channel) for channel in small.picture.split()]
    shorter, longer = sorted(small.size)
    there = {
        "dark": grey.mean() < DARK,
        "bright": grey.mean() > BRIGHT,
        "blurred": laplacian(grey).var() < BLURRED,
        "tiny": shorter < TINY,
        "long": longer >= LONG * shorter,
        "grey": (functools.reduce(np.maximum, colours) - functools.reduce(np.minimum, colours)).mean() < GREY,
    }
    return {name for name, its in there.items() if its}


def laplacian(grey: np.ndarray) -> np.ndarray:
    """float32 (H, W) -> (H, W): the four neighbours less four times the pixel, the edge repeated."""
    wide = np.pad(grey, 1, mode="edge")
    return wide[1:-1, :-2] + wide[1:-1, 2:] + wide[:-2, 1:-1] + wide[2:, 1:-1] - 4 * grey
