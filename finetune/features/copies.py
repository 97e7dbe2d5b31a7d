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
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.device import one_core_each
from finetune.features.looks import Looks, look, thumbnail

COSINE = 0.6  # of the features: proposals only; a crop to 85 % at 60 % of the size came down to 0.69
NEIGHBOURS = 3  # of a row at most that are looked at
ROWS_AT_ONCE = 256
SMALL = 24  # pixels of the square that is compared
CORRELATION = 0.97  # of two small grey pictures of one photograph; two black cats on white came to 0.93
COLOUR = 8.0  # levels, root of the mean square, between two small ones in colour: copies came to 5.4, others to 11.9
WORTH_A_SEARCH = 0.7  # of the best place on the grid
SHARES = (0.9, 0.8, 0.7)  # of a side that is left after a crop, to begin the search with
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the crop within what is free
LEAST_SHARE = 0.5
# By which each edge is moved, and the correlation that must be reached: 179 cropped copies had 0.84, 0.978 and 0.991.
STEPS = ((0.04, 0.8), (0.02, 0.9), (0.01, CORRELATION))
ONES = np.ones(SMALL**2, np.float32)  # a product with it is a sum, in a fraction of the time

Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1


# Parts to begin with: intervals of a side, those of one size together, of which one is taken for x and one for y.
INTERVALS_OF_A_SIZE = (
    ((0.0, 1.0),),
    *(tuple((at * (1 - share), at * (1 - share) + share) for at in PLACES) for share in SHARES),
)
GRID: tuple[Box, ...] = tuple(
    (x[0], y[0], x[1], y[1]) for some in INTERVALS_OF_A_SIZE for x, y in itertools.product(some, repeat=2)
)


def near_copies(features: np.ndarray, paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Pairs of rows (first < second) of features (N, D) whose pictures are near copies."""
    pairs = alike(features)
    return confirmed(pairs, paths, look(paths, set(itertools.chain(*pairs))))


def confirmed(pairs: Sequence[tuple[int, int]], paths: Sequence[Path], looks: Looks) -> list[tuple[int, int]]:
    """Those of the pairs of rows whose pictures are near copies; `looks` have kept the rows of all pairs."""
    grey = looks.grey
    wanted = {row: small(Image.fromarray(pixels)) for row, pixels in grey.items()}
    parts: dict[int, list[int]] = defaultdict(list)  # row -> rows that may be parts of its picture
    for one, other in pairs:
        if one in grey and other in grey:
            parts[one].append(other)
            parts[other].append(one)

    def parts_of(row: int) -> list[int]:
        """Those of its candidates that are parts of the picture of a row."""
        boxes = places_of(grey[row], [wanted[part] for part in parts[row]])
        return [part for part, box in zip(parts[row], boxes) if box and one_colour(paths[row], box, paths[part])]

    with one_core_each() as threads:
        found = zip(parts, threads.map(parts_of, list(parts)))
        return sorted({(min(row, part), max(row, part)) for row, its_parts in found for part in its_parts})


def places_of(whole: np.ndarray, wanted: Sequence[np.ndarray]) -> list[Box | None]:
    """The box of a grey picture (H, W) that each of `wanted`, small ones, is; None where it is none."""
    whole = whole.astype(np.float32)
    on_grid = small_on_grid(whole)
    correlations = on_grid.reshape(len(GRID), -1) @ np.stack([one.ravel() for one in wanted], 1) / SMALL**2
    boxes: list[Box | None] = []
    for one, its in zip(wanted, correlations.T):
        best = int(its.argmax())
        value, box = 0.0, GRID[best]
        if its[best] >= WORTH_A_SEARCH:
            value, box = fitted_part(whole, one, box, float(its[best]))
        boxes.append(box if value >= CORRELATION else None)
    return boxes


def one_colour(whole: Path, box: Box, part: Path) -> bool:
    """Whether a part of a picture has the colours of another picture."""
    pictures = [thumbnail(path) for path in (whole, part)]
    return None not in pictures and colours_apart(pictures[0].picture, box, pictures[1].picture) <= COLOUR


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

    def nearest(start: int) -> list[tuple[int, int]]:
        cosine = unit[start : start + ROWS_AT_ONCE] @ unit.T
        rows = np.arange(len(cosine))
        cosine[rows, start + rows] = -1
        found = []
        for _ in range(min(NEIGHBOURS, len(unit) - 1)):  # far less to do, and to hold, than to sort
            column = cosine.argmax(1)
            found += [(start + row, int(column[row])) for row in np.flatnonzero(cosine[rows, column] >= COSINE)]
            cosine[rows, column] = -1
        return found

    with one_core_each() as threads:
        found = itertools.chain(*threads.map(nearest, range(0, len(unit), ROWS_AT_ONCE)))
        return sorted({(int(min(pair)), int(max(pair))) for pair in found})


def fitted_part(whole: np.ndarray, wanted: np.ndarray, box: Box, best: float) -> tuple[float, Box]:
    """The largest correlation of a part of a grey picture (H, W) with `wanted`, a small one, when a box is moved edge
    by edge, and that box. The search ends early where it has come too short."""
    height, width = whole.shape
    across, down = whole @ line(width, box[0], box[2]).T, line(height, box[1], box[3]) @ whole  # shrunk one way only
    for step, least in STEPS:
        moved = True
        while moved:
            moved = False
            for edge, by in itertools.product(range(4), (-step, step)):
                tried = (*box[:edge], min(max(box[edge] + by, 0.0), 1.0), *box[edge + 1 :])
                if min(tried[2] - tried[0], tried[3] - tried[1]) < LEAST_SHARE:
                    continue
                sideways = edge % 2 == 0
                shrinking = line(width, tried[0], tried[2]) if sideways else line(height, tried[1], tried[3])
                value = correlation(down @ shrinking.T if sideways else shrinking @ across, wanted)
                if value > best + 1e-4:
                    best, box, moved = value, tried, True
                    across, down = (whole @ shrinking.T, down) if sideways else (across, shrinking @ whole)
        if best < least:
            break
    return best, box


def correlation(part: np.ndarray, wanted: np.ndarray) -> float:
    """Of levels (SMALL, SMALL) with a small picture."""
    levels = part.ravel()
    mean = float(levels @ ONES) / levels.size
    variance = float(levels @ levels) / levels.size - mean**2
    return float(levels @ wanted.ravel()) / levels.size / max(variance, 1.0) ** 0.5


def small(picture: Image.Image, box: Box = (0.0, 0.0, 1.0, 1.0)) -> np.ndarray:
    """float32 (SMALL, SMALL) of a part: mean 0 and variance 1, so that a mean product is a correlation."""
    width, height = picture.size
    part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    pixels = np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BILINEAR, part), dtype=np.float32)
    pixels = pixels - pixels.mean()
    return pixels / max(float(pixels.std()), 1.0)  # a flat picture is like no other


def small_on_grid(pixels: np.ndarray) -> np.ndarray:
    """float32 (len(GRID), SMALL, SMALL): `small` of all boxes of GRID in a grey picture (H, W), as a few products of
    matrices."""
    height, width = pixels.shape
    pieces = []
    for some in INTERVALS_OF_A_SIZE:
        down, across = (np.concatenate([line(side, *interval) for interval in some]) for side in (height, width))
        all_pairs = (down @ pixels @ across.T).reshape(len(some), SMALL, len(some), SMALL)
        pieces.append(all_pairs.transpose(2, 0, 1, 3).reshape(-1, SMALL, SMALL))
    found = np.concatenate(pieces)
    found -= found.mean((1, 2), keepdims=True)
    spread = np.sqrt(np.einsum("nij,nij->n", found, found) / SMALL**2)
    return found / np.maximum(spread, 1.0)[:, None, None]


@functools.lru_cache(maxsize=1 << 12)
def line(side: int, first: float, last: float) -> np.ndarray:
    """float32 (SMALL, side): how Pillow's bilinear filter shrinks or widens the part from `first` to `last` in 0..1 of
    a line of pixels."""
    first, last = first * side, last * side
    scale = (last - first) / SMALL
    centres, reach = first + scale * (np.arange(SMALL) + 0.5), max(scale, 1.0)
    weights = np.maximum(0, 1 - np.abs(np.arange(side) + 0.5 - centres[:, None]) / reach)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
