"""The pictures of a job in ranges, and a range whose worker died in parts: down to the picture that killed it."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from finetune.features.compute import CHUNK_ROWS

RANGE = 4 * CHUNK_ROWS  # rows of one call at most: seconds of work
SMALLEST_RANGE = 16
TURNS = 4  # ranges that each worker gets at least, so that all end at about the same time
PARTS = 8  # of a range whose worker died: from 256 pictures to one in three steps
TRIES = 2  # of one picture that kills its worker

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Range:
    """Pictures that are computed by one call, in order."""

    wanted: list[tuple[int, int]]  # (row, view), the views of a row together
    paths: dict[int, Path]  # row -> file
    keys: dict[int, bytes]  # row -> sha256 as it was looked up

    def absolute(self) -> Range:
        """For another process; a million pictures of a job that waits share their paths with its data set."""
        return replace(self, paths={row: Path(path).absolute() for row, path in self.paths.items()})


def ranges(wanted: Sequence[tuple[int, int]], paths: Sequence[Path], keys: Sequence, workers: int) -> list[Range]:
    """All of `wanted` in ranges of at most RANGE, the views of a picture together."""
    size = min(RANGE, max(SMALLEST_RANGE, len(wanted) // (TURNS * workers)))
    found, rows = [], []
    for _, several in itertools.groupby(wanted, key=itemgetter(0)):
        rows += several
        if len(rows) >= size:
            found.append(rows)
            rows = []
    return [range_of(some, paths, keys) for some in [*found, rows] if some]


def range_of(wanted: list[tuple[int, int]], paths, keys) -> Range:
    rows = dict.fromkeys(row for row, _ in wanted)
    return Range(wanted, {row: paths[row] for row in rows}, {row: keys[row] for row in rows})


def parts_of(piece: Range, tries: Counter[int]) -> list[Range]:
    """What is tried again of a range whose worker died: up to PARTS of it; one picture as it is, TRIES times in all."""
    pictures = [list(several) for _, several in itertools.groupby(piece.wanted, key=itemgetter(0))]
    if len(pictures) == 1:
        ((row, _), *_) = piece.wanted
        tries[row] += 1
        return [piece] if tries[row] < TRIES else []
    log.warning("ray: a worker died at %d pictures; they are tried again", len(pictures))
    size = -(-len(pictures) // PARTS)
    parts = (pictures[start : start + size] for start in range(0, len(pictures), size))
    return [range_of(list(itertools.chain(*part)), piece.paths, piece.keys) for part in parts]
