"""A name or a folder -> Dataset: one plain table. A source is imported only when it is chosen."""

from __future__ import annotations

from pathlib import Path

from datasets.base import Dataset
from datasets.folder import load_folder

DRAWN = "drawn"  # the name of the embedded sample set
DRAWN_PER_CLASS = 200


def load(name_or_folder: str, cache_dir: str | Path) -> Dataset:
    """The dataset of a known name, or that of a folder of pictures. A folder of that name comes first.

    Raises:
        InputError: it cannot be used; see `datasets.folder`.
    """
    source = None if Path(name_or_folder).is_dir() else SOURCES.get(name_or_folder)
    return source(Path(cache_dir)) if source else load_folder(Path(name_or_folder))


def load_drawn(cache_dir: Path) -> Dataset:
    """Cats and dogs drawn by `datasets.drawn`: 150 training and 50 evaluation pictures a class."""
    from datasets.drawn import draw_dataset

    return load_folder(draw_dataset(cache_dir / "drawn_cats_dogs", DRAWN_PER_CLASS))


SOURCES = {DRAWN: load_drawn}
