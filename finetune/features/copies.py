"""Near copies: the same photograph once more, re-encoded, resized or modestly cropped.

The cosine of their features proposes pairs; their pixels decide, so that two cats in one pose are no copies: one of the
two, or a part of it that is searched for, must have the same small grey picture as the other. Exact copies have one
sha256, see `finetune.features.usable`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.decoding.decode import decode, read_file
from datasets.decoding.formats import DamagedPicture

COSINE = 0.75  # of the features: proposals only
NEIGHBOURS = 4  # of a row at most that are looked at
ROWS_AT_ONCE = 1024
SIDE, SMALL = 128, 24  # pixels of the longer side that is kept, and of the square that is compared
CORRELATION = 0.93  # of two small grey pictures of the same photograph; see docs/insight.md
WORTH_A_SEARCH = 0.6  # of the best place on the grid
SHARES = (1.0, 0.9, 0.8, 0.7)  # of a side that is left after a crop, to begin the search with
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the crop within what is free
STEPS = (0.04, 0.02, 0.01)  # by which each edge is moved, coarse to fine


def near_copies(features: np.ndarray, paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Pairs of rows (first < second) of features (N, D) whose pictures are near copies."""
    looked_at: dict[int, Image.Image | None] = {}

    def picture(row: int) -> Image.Image | None:
        if row not in looked_at:
            looked_at[row] = grey(paths[row])
        return looked_at[row]

    return [pair for pair in alike(features) if same_photograph(picture(pair[0]), picture(pair[1]))]


def alike(features: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows whose features have a cosine of at least COSINE, the nearest of each row."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    pairs = set()
    for start in range(0, len(unit), ROWS_AT_ONCE):
        cosine = unit[start : start + ROWS_AT_ONCE] @ unit.T
        cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = -1
        count = min(NEIGHBOURS, len(unit) - 1)
        nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        for row, column in zip(*np.nonzero(np.take_along_axis(cosine, nearest, 1) >= COSINE)):
            pairs.add(tuple(sorted((start + int(row), int(nearest[row, column])))))
    return sorted(pairs)


def grey(path: Path) -> Image.Image | None:
    """The picture in grey, its longer side SIDE; None where it cannot be read."""
    try:
        picture = decode(read_file(path), SIDE // 2).picture.convert("L")
    except (OSError, DamagedPicture):
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return picture


def same_photograph(one: Image.Image | None, other: Image.Image | None) -> bool:
    """Whether one of the two is a part of the other, or all of it."""
    if one is None or other is None:
        return False
    return any(best_part(whole, small(part)) >= CORRELATION for whole, part in ((one, other), (other, one)))


def best_part(whole: Image.Image, wanted: np.ndarray) -> float:
    """The largest correlation of a part of a picture with `wanted`, a small one: on a grid, then edge by edge."""

    def judge(box: tuple[float, ...]) -> float:
        return float((small(whole, box) * wanted).mean())

    best, box = max((judge(box), box) for box in grid())
    if best < WORTH_A_SEARCH:
        return best
    for step in STEPS:
        moved = True
        while moved and best < 0.995:
            moved = False
            for edge, by in itertools.product(range(4), (-step, step)):
                tried = (*box[:edge], min(max(box[edge] + by, 0.0), 1.0), *box[edge + 1 :])
                if tried[2] - tried[0] >= 0.5 and tried[3] - tried[1] >= 0.5 and (value := judge(tried)) > best + 1e-4:
                    best, box, moved = value, tried, True
    return best


def grid() -> list[tuple[float, float, float, float]]:
    """Parts to begin with: left, top, right, bottom in 0..1."""
    boxes = [(0.0, 0.0, 1.0, 1.0)]
    for share, x, y in itertools.product(SHARES[1:], PLACES, PLACES):
        left, top = x * (1 - share), y * (1 - share)
        boxes.append((left, top, left + share, top + share))
    return boxes


def small(picture: Image.Image, box: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)) -> np.ndarray:
    """float32 (SMALL, SMALL) of a part: mean 0 and variance 1, so that a mean product is a correlation."""
    width, height = picture.size
    part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    pixels = np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BILINEAR, part), dtype=np.float32)
    pixels = pixels - pixels.mean()
    return pixels / max(float(pixels.std()), 1.0)  # a flat picture is like no other
