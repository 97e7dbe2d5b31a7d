"""Two runs on the same evaluation pictures: is the difference more than chance?

python -m finetune insight runs/cats_vs_dogs runs/cats_vs_dogs-2
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import InputError
from finetune.evaluation.significance import difference, read_right


def in_words(first: Path, second: Path) -> str:
    """One sentence.

    Raises:
        InputError: no run folders, or they have no evaluation picture in common.
    """
    right = [read_right(run) for run in (first, second)]
    found = difference(right[:1], right[1:])
    if not found.pictures:
        raise InputError(
            f"{first} and {second} have no evaluation picture in common. Train both on the same pictures with one seed."
        )
    return f"{first.name} and {second.name}: {found.in_words(first.name, second.name)}"
