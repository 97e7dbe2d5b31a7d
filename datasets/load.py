"""A name or a folder -> Dataset: one plain table. A source is imported only when it is chosen."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

from datasets.base import Dataset, InputError, Source
from datasets.folder import load_folder
from datasets.sources import photographs

DRAWN = "drawn"  # the name of the embedded sample set
DRAWN_PER_CLASS = 200
ORL_PGM, ORL_PGM_FOLDERS = "orl_pgm", ("orl_pgm", "orl_faces", "att_faces")
# A module each, with SOURCE, holds(folder) and load(folder).
FETCHED = ("mnist", "fashion_mnist", "emnist", "cifar10", "orl", "arabic")
BUILT_IN = ("digits", "xor")  # a module each, with SOURCE and load(folder); they need no files
FOLDER_VARIABLE = "DATASETS_PATH"  # a folder of data sets, looked into before the cache


def load(name_or_folder: str, cache_dir: str | Path, least_classes: int = 2) -> Dataset:
    """The dataset of a known name, or that of a folder. A folder of that name comes first.

    A folder is a set of known files (IDX, the sheet of faces, the CSV of letters) or pictures in class folders. The
    files of a name are looked for in $DATASETS_PATH/<name>, in $DATASETS_PATH, and in <cache_dir>/<name>.

    Raises:
        InputError: it cannot be used; see `datasets.folder`.
    """
    folder, cache_dir = Path(name_or_folder), Path(cache_dir)
    if folder.is_dir():
        for name in sorted(FETCHED, key=lambda name: name.replace("_", "") != plain(folder)):
            if module_of(name).holds(folder):
                return module_of(name).load(folder)
        if photographs.holds(folder) and (name := folder.name) in photographs.BY_NAME:
            return photographs.load(name, folder)
    elif name_or_folder in FETCHED:
        return module_of(name_or_folder).load(find_folder(name_or_folder, cache_dir))
    elif name_or_folder in photographs.BY_NAME:
        return photographs.load(name_or_folder, find_folder(name_or_folder, cache_dir))
    elif name_or_folder in SOURCES:
        return SOURCES[name_or_folder](cache_dir)
    return load_folder(folder, least_classes)


def plain(folder: Path) -> str:
    """The name of a folder in small letters: two sets have files of the same names."""
    folder = folder.resolve()
    name = folder.parent.name if folder.name == "raw" else folder.name
    return "".join(c for c in name.lower() if c.isalnum())


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"datasets.sources.{name}")


def find_folder(name: str, cache_dir: Path) -> Path:
    """The first folder that holds the files of a source.

    Raises:
        InputError: none does.
    """
    if place := found_in(name, cache_dir):
        return place
    raise InputError(
        f"{name}: its files are not in {' or '.join(map(str, places_of([name], cache_dir)))}. Fetch them: "
        f"python -m datasets fetch {name}; or give their folder as --dataset_path or in the variable {FOLDER_VARIABLE}."
    )


def found_in(name: str, cache_dir: Path) -> Path | None:
    """Where the files of a source lie."""
    module = module_of(name) if name in FETCHED else photographs
    return next((place for place in places_of([name], cache_dir) if module.holds(place)), None)


def places_of(names: list[str], cache_dir: Path) -> list[Path]:
    """Where the files of a source may lie, best first."""
    given = os.environ.get(FOLDER_VARIABLE)
    roots = [Path(given)] if given else []
    return [root / name for root in (*roots, cache_dir) for name in names] + roots


def load_drawn(cache_dir: Path) -> Dataset:
    """Cats and dogs drawn by `datasets.drawn.sample`: 150 training and 50 evaluation pictures a class."""
    from datasets.drawn.sample import draw_dataset

    return load_folder(draw_dataset(cache_dir / "drawn_cats_dogs", DRAWN_PER_CLASS))


def load_orl_pgm(cache_dir: Path) -> Dataset:
    """The faces of `orl` as published, folders s1 ... s40 of PGM files, 112x92.

    Raises:
        InputError: no such folder.
    """
    places = places_of(list(ORL_PGM_FOLDERS), cache_dir)
    for place in places:
        if (place / "s1").is_dir():
            return load_folder(place)
    raise InputError(
        f"{ORL_PGM}: none of {', '.join(map(str, places))} has folders s1 to s40. Unpack att_faces.zip of "
        "https://cam-orl.co.uk/facedatabase.html and give the folder as --dataset_path."
    )


def sources() -> list[Source]:
    """The records of all published sets."""
    return [*(module_of(name).SOURCE for name in FETCHED + BUILT_IN), *photographs.SOURCES]


SOURCES = {
    DRAWN: load_drawn,
    ORL_PGM: load_orl_pgm,
    **{name: lambda cache_dir, name=name: module_of(name).load(cache_dir / name) for name in BUILT_IN},
}
