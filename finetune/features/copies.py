"""Near copies: the same photograph once more, re-encoded, resized or modestly cropped.

The cosine of their features proposes pairs; their pixels decide, so that two cats in one pose are no copies: one of the
two, or a part of it that is searched for, must have the same small grey picture as the other. Exact copies have one
sha256, see `finetune.features.usable`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.decoding.decode import decode, read_file
from datasets.decoding.formats import DamagedPicture

COSINE = 0.6  # of the features: proposals only; a crop to 85 % at 60 % of the size came down to 0.69
NEIGHBOURS = 3  # of a row at most that are looked at
ROWS_AT_ONCE = 1024
SIDE, SMALL = 128, 24  # pixels of the longer side that is kept, and of the square that is compared
CORRELATION = 0.97  # of two small grey pictures of one photograph; two black cats on white came to 0.93
WORTH_A_SEARCH = 0.7  # of the best place on the grid
SHARES = (0.9, 0.8, 0.7)  # of a side that is left after a crop, to begin the search with
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the crop within what is free
LEAST_SHARE = 0.5
STEPS = (0.04, 0.02, 0.01)  # by which each edge is moved, coarse to fine


Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1


def grid() -> tuple[Box, ...]:
    """Parts to begin with."""
    boxes = [(0.0, 0.0, 1.0, 1.0)]
    for share, x, y in itertools.product(SHARES, PLACES, PLACES):
        left, top = x * (1 - share), y * (1 - share)
        boxes.append((left, top, left + share, top + share))
    return tuple(boxes)


GRID = grid()


def near_copies(features: np.ndarray, paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Pairs of rows (first < second) of features (N, D) whose pictures are near copies."""
    pairs = alike(features)
    pictures = {row: grey(paths[row]) for row in sorted(set(itertools.chain(*pairs)))}
    wanted = {row: small(picture) for row, picture in pictures.items() if picture is not None}
    parts: dict[int, list[int]] = defaultdict(list)  # row -> rows that may be parts of its picture
    for one, other in pairs:
        if one in wanted and other in wanted:
            parts[one].append(other)
            parts[other].append(one)
    found = set()
    for row, its_parts in parts.items():
        on_grid = np.stack([small(pictures[row], box) for box in GRID])
        for part in its_parts:
            correlations = (on_grid * wanted[part]).mean((1, 2))
            best = int(correlations.argmax())
            if correlations[best] >= WORTH_A_SEARCH:
                value = fitted_part(pictures[row], wanted[part], GRID[best], float(correlations[best]))
                if value >= CORRELATION:
                    found.add((min(row, part), max(row, part)))
    return sorted(found)


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


def fitted_part(whole: Image.Image, wanted: np.ndarray, box: Box, best: float) -> float:
    """The largest correlation of a part of a picture with `wanted`, a small one, when a box is moved edge by edge."""
    for step in STEPS:
        moved = True
        while moved and best < CORRELATION:
            moved = False
            for edge, by in itertools.product(range(4), (-step, step)):
                tried = (*box[:edge], min(max(box[edge] + by, 0.0), 1.0), *box[edge + 1 :])
                if min(tried[2] - tried[0], tried[3] - tried[1]) < LEAST_SHARE:
                    continue
                value = float((small(whole, tried) * wanted).mean())
                if value > best + 1e-4:
                    best, box, moved = value, tried, True
    return best


def small(picture: Image.Image, box: Box = (0.0, 0.0, 1.0, 1.0)) -> np.ndarray:
    """float32 (SMALL, SMALL) of a part: mean 0 and variance 1, so that a mean product is a correlation."""
    width, height = picture.size
    part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    pixels = np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BILINEAR, part), dtype=np.float32)
    pixels = pixels - pixels.mean()
    return pixels / max(float(pixels.std()), 1.0)  # a flat picture is like no other
