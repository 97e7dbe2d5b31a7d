"""Pictures that belong together, as burst shots or frames of one film: they stay on one side of a split.

folder      those in one folder below the class's own; pictures right in that are each on its own
prefix      those of one name up to its last number: IMG_12_3.jpg and IMG_12_4.jpg
exif        those of one camera within SECONDS of the next
FILE.csv    two columns, path and group; paths are relative to the data set's folder
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.base import Dataset, InputError
from datasets.files import read_csv

SECONDS = 2.0  # between two pictures of one burst
KINDS = ("folder", "prefix", "exif", "duplicates")  # the last is found by features, see finetune.features.copies
MAKE, MODEL, TAKEN, DETAILS = 271, 272, 36867, 34665  # tags of EXIF


def groups_of(dataset: Dataset, group_by: str) -> np.ndarray:
    """int (N,): the group of each picture; one that belongs to no other has a group of its own.

    Raises:
        InputError: there are no files, an unknown kind, or a CSV file without such columns.
    """
    if dataset.paths is None:
        raise InputError(f"data.group_by: {dataset.name} is arrays of pixels, without names or dates to group by.")
    if group_by == "exif":
        return by_time([taken(path) for path in dataset.paths])
    if group_by == "folder":
        above = 2 if dataset.parts else 1  # root/train/class, root/class
        inner = (len(path.relative_to(dataset.root).parts) - 1 > above for path in dataset.paths)
        return numbered(path.parent if deeper else path for path, deeper in zip(dataset.paths, inner))
    if group_by == "prefix":
        return numbered((path.parent, prefix(path.stem)) for path in dataset.paths)
    return by_table(dataset, Path(group_by))


def numbered(names: Iterable[Hashable]) -> np.ndarray:
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], np.int64)


def prefix(stem: str) -> str:
    """Up to the last number: film_03_0120 -> film_03."""
    return re.sub(r"[\W_]*\d+\D*$", "", stem) or stem


def taken(path: Path) -> tuple[str, float] | None:
    """(camera, seconds) of a photograph; None where it does not say."""
    try:
        with Image.open(path) as picture:
            exif = picture.getexif()
            when = datetime.datetime.strptime(str(exif.get_ifd(DETAILS)[TAKEN]), "%Y:%m:%d %H:%M:%S")
            return f"{exif.get(MAKE)} {exif.get(MODEL)}", when.replace(tzinfo=datetime.timezone.utc).timestamp()
    except Exception:  # Pillow raises nearly any type on a damaged block; such a picture is on its own
        return None


def by_time(photographs: list[tuple[str, float] | None]) -> np.ndarray:
    """Each group is a chain of photographs of one camera, SECONDS apart at most."""
    groups = np.arange(len(photographs))
    order = sorted((one, row) for row, one in enumerate(photographs) if one is not None)
    for ((camera, then), before), ((same, now), row) in zip(order, order[1:]):
        if same == camera and now - then <= SECONDS:
            groups[row] = groups[before]
    return groups


def by_table(dataset: Dataset, path: Path) -> np.ndarray:
    """Pictures that the table does not name are on their own."""
    if not path.is_file():
        raise InputError(
            f"data.group_by: {path} is none of {', '.join(KINDS)}, and no CSV file with the columns path and group."
        )
    rows = read_csv(path, {"path": str, "group": str}, "Give a CSV file with the columns path and group.")
    group = {row["path"]: row["group"] for row in rows}
    names = [dataset.picture_name(row) for row in range(len(dataset))]
    unknown = sorted(group.keys() - set(names))
    if unknown:
        raise InputError(
            f"{path}: {unknown[0]} is no picture of {dataset.root}. Paths are relative to it, as {names[0]}."
        )
    return numbered(("named", group[name]) if name in group else ("alone", name) for name in names)


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """int (count,): the groups that pairs of rows make: who is a copy of a copy belongs to it."""
    above = list(range(count))  # another row of the same group; the group's own name is the row above itself

    def name_of(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for one, other in pairs:
        above[name_of(other)] = name_of(one)
    return np.array([name_of(row) for row in range(count)], np.int64)
