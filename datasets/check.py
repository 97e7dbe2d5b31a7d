"""Read every picture of a folder data set, as training would, and say what is wrong, copied or passed over.

python -m datasets check FOLDER
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from datasets.base import cannot_read
from datasets.decoding.decode import read_file
from datasets.decoding.formats import DamagedPicture
from datasets.folder import load_folder
from datasets.image import ImageSpec, odd_tone, to_array
from datasets.listing import passed_over_lines
from datasets.progress import Progress

SPEC = ImageSpec(size=(224, 224), resize=256, mean_unit=(0.5,) * 3, std_unit=(0.5,) * 3)  # as most weights want them


class Checked(NamedTuple):
    key: bytes
    damage: str | None  # why it cannot be read
    tone: str | None  # what is odd about it


def check_folder(folder: Path) -> int:
    """Print what was found; returns how many pictures are damaged.

    Raises:
        InputError: no such data set, or a fault of the machine.
    """
    dataset = load_folder(folder)
    with Progress("check", len(dataset), "pictures") as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = []
        for one in pool.map(check_file, dataset.paths):
            checked.append(one)
            progress.update(1)
    names = [dataset.picture_name(row) for row in range(len(dataset))]
    for name, one in zip(names, checked):
        if one.damage:
            print(f"damaged: {name}: {one.damage}")
        elif one.tone:
            print(f"odd: {name}: shows {one.tone}")
    print_copies(names, dataset.labels, checked)
    for line in (*passed_over_lines(dataset.passed_over), *dataset.notes):
        print(line)
    parts = dataset.parts or [""] * len(dataset)
    for (part, label), count in sorted(Counter(zip(parts, dataset.labels)).items()):
        print(f"{part:6} {dataset.classes[label]:20} {count} pictures")
    damaged = sum(one.damage is not None for one in checked)
    print(f"{len(dataset)} pictures, {damaged} damaged")
    return damaged


def check_file(path: Path) -> Checked:
    try:
        content = read_file(path)
    except DamagedPicture as error:
        return Checked(os.fsencode(path), str(error), None)
    except OSError as error:
        raise cannot_read(path, error) from error
    key = hashlib.sha256(content).digest()
    try:
        return Checked(key, None, odd_tone(to_array(content, SPEC)))
    except DamagedPicture as error:
        return Checked(key, str(error), None)


def print_copies(names: list[str], labels, checked: list[Checked]) -> None:
    rows_of = defaultdict(list)
    for row, one in enumerate(checked):
        rows_of[one.key].append(row)
    for rows in rows_of.values():
        if len(rows) > 1 and not checked[rows[0]].damage:
            kind = "one picture under two labels" if len({int(labels[row]) for row in rows}) > 1 else "copies"
            print(f"{kind}: {', '.join(names[row] for row in rows)}")
