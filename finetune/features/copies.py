"""Near copies: the same photograph once more, re-encoded, resized or modestly cropped.

The cosine of their features proposes pairs; their pixels decide, so that two cats in one pose, or two shirts on one
sheet, are no copies: one of the two, or a part of it that is searched for in grey, must have the same small picture in
colour as the other. Exact copies have one sha256, see `finetune.features.usable`.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.device import usable_cores
from finetune.features.looks import SIDE, thumbnail

COSINE = 0.6  # of the features: proposals only; a crop to 85 % at 60 % of the size came down to 0.69
NEIGHBOURS = 3  # of a row at most that are looked at
ROWS_AT_ONCE = 1024
SMALL = 24  # pixels of the square that is compared
CORRELATION = 0.97  # of two small grey pictures of one photograph; two black cats on white came to 0.93
COLOUR = 8.0  # levels, root of the mean square, between two small ones in colour: copies came to 5.4, others to 11.9
WORTH_A_SEARCH = 0.7  # of the best place on the grid
SHARES = (0.9, 0.8, 0.7)  # of a side that is left after a crop, to begin the search with
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the crop within what is free
LEAST_SHARE = 0.5
SQUARE = tuple(itertools.product(range(len(PLACES)), repeat=2))
STEPS = (0.04, 0.02, 0.01)  # by which each edge is moved, coarse to fine


Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1


# Parts to begin with: intervals of a side, and pairs of one for x and one for y.
INTERVALS = ((0.0, 1.0), *((at * (1 - share), at * (1 - share) + share) for share in SHARES for at in PLACES))
PAIRS = (
    (0, 0),
    *((1 + first + x, 1 + first + y) for first in range(0, len(INTERVALS) - 1, len(PLACES)) for x, y in SQUARE),
)
GRID: tuple[Box, ...] = tuple((INTERVALS[x][0], INTERVALS[y][0], INTERVALS[x][1], INTERVALS[y][1]) for x, y in PAIRS)


def near_copies(features: np.ndarray, paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Pairs of rows (first < second) of features (N, D) whose pictures are near copies."""
    pairs = alike(features)
    rows = sorted(set(itertools.chain(*pairs)))
    with ThreadPoolExecutor(usable_cores()) as threads:  # Pillow decodes and resizes beside them
        found = zip(rows, threads.map(lambda row: thumbnail(paths[row]), rows))
        pictures = {row: its.picture for row, its in found if its is not None}
        wanted = {row: small(picture.convert("L")) for row, picture in pictures.items()}
        parts: dict[int, list[int]] = defaultdict(list)  # row -> rows that may be parts of its picture
        for one, other in pairs:
            if one in wanted and other in wanted:
                parts[one].append(other)
                parts[other].append(one)

        def parts_of(row: int) -> list[int]:
            """Those of its candidates that are parts of the picture of a row."""
            whole = pictures[row].convert("L")
            on_grid, found = small_on_grid(whole), []
            for part in parts[row]:
                box = place_of(whole, on_grid, wanted[part])
                if box and colours_apart(pictures[row], box, pictures[part]) <= COLOUR:
                    found.append(part)
            return found

        found = zip(parts, threads.map(parts_of, list(parts)))
        return sorted({(min(row, part), max(row, part)) for row, its_parts in found for part in its_parts})


def place_of(whole: Image.Image, on_grid: np.ndarray, wanted: np.ndarray) -> Box | None:
    """The box of a grey picture that `wanted`, a small one, is; `on_grid`: the small pictures of all boxes of GRID."""
    correlations = (on_grid * wanted).mean((1, 2))
    best = int(correlations.argmax())
    if correlations[best] < WORTH_A_SEARCH:
        return None
    value, box = fitted_part(whole, wanted, GRID[best], float(correlations[best]))
    return box if value >= CORRELATION else None


def colours_apart(whole: Image.Image, box: Box, part: Image.Image) -> float:
    """Levels of 0..255 between a part of a picture and another picture, root of the mean square."""
    width, height = whole.size
    edges = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    one = whole.resize((SMALL, SMALL), Image.Resampling.BILINEAR, edges)
    other = part.resize((SMALL, SMALL), Image.Resampling.BILINEAR)
    return float(np.sqrt(((np.asarray(one, np.float32) - np.asarray(other, np.float32)) ** 2).mean()))


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


def fitted_part(whole: Image.Image, wanted: np.ndarray, box: Box, best: float) -> tuple[float, Box]:
    """The largest correlation of a part of a grey picture with `wanted`, a small one, when a box is moved edge by edge,
    and that box."""
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for edge, by in itertools.product(range(4), (-step, step)):
                tried = (*box[:edge], min(max(box[edge] + by, 0.0), 1.0), *box[edge + 1 :])
                if min(tried[2] - tried[0], tried[3] - tried[1]) < LEAST_SHARE:
                    continue
                value = float((small(whole, tried) * wanted).mean())
                if value > best + 1e-4:
                    best, box, moved = value, tried, True
    return best, box


def small(picture: Image.Image, box: Box = (0.0, 0.0, 1.0, 1.0)) -> np.ndarray:
    """float32 (SMALL, SMALL) of a part: mean 0 and variance 1, so that a mean product is a correlation."""
    width, height = picture.size
    part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    pixels = np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BILINEAR, part), dtype=np.float32)
    pixels = pixels - pixels.mean()
    return pixels / max(float(pixels.std()), 1.0)  # a flat picture is like no other


def small_on_grid(picture: Image.Image) -> np.ndarray:
    """float32 (len(GRID), SMALL, SMALL): `small` of all boxes of GRID at once, as two products of matrices."""
    width, height = picture.size
    pixels = np.asarray(picture, dtype=np.float32)
    all_pairs = (shrinking(height) @ pixels @ shrinking(width).T).reshape(len(INTERVALS), SMALL, len(INTERVALS), SMALL)
    found = np.stack([all_pairs[y, :, x] for x, y in PAIRS])
    found -= found.mean((1, 2), keepdims=True)
    return found / np.maximum(found.std((1, 2), keepdims=True), 1.0)


@functools.lru_cache(maxsize=2 * SIDE)
def shrinking(side: int) -> np.ndarray:
    """float32 (len(INTERVALS) * SMALL, side): Pillow's resize of a line of pixels, as it does to the identity."""
    identity = Image.fromarray(np.eye(side, dtype=np.float32))
    boxes = ((0, first * side, side, last * side) for first, last in INTERVALS)
    return np.concatenate([np.asarray(identity.resize((side, SMALL), Image.Resampling.BILINEAR, box)) for box in boxes])
