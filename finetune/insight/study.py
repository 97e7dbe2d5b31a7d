"""All that insight says of one set of rows, in order; written to `insight/` in a run folder.

insight.json has the numbers, section.html what report.html shows of them, the CSV files and pictures the lists.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Dataset, Split
from datasets.files import write_json, write_text
from finetune.config import Config
from finetune.features.cache import Features
from finetune.insight import section
from finetune.insight.folds import cross_validate

FOLDER = "insight"

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Rows:
    """The usable pictures of a data set: N rows in the order of the data set."""

    x: np.ndarray  # float32 (N, D)
    y: np.ndarray  # int32 (N,)
    classes: tuple[str, ...]
    names: Sequence[str]  # N, relative to the root
    paths: Sequence[Path]  # N
    parts: np.ndarray  # N of train, valid, eval
    groups: np.ndarray | None = None  # int (N,), see data.group_by


def rows_of(dataset: Dataset, found: Features, split: Split) -> Rows:
    rows = np.sort(np.concatenate(list(vars(split).values())))
    parts = np.empty(len(dataset), "U5")
    for part, its_rows in vars(split).items():
        parts[its_rows] = part
    names, paths = [dataset.picture_name(row) for row in rows], [dataset.paths[row] for row in rows]
    return Rows(found.rows[rows], dataset.labels[rows], dataset.classes, names, paths, parts[rows])


def study(rows: Rows, config: Config, run: Path) -> dict:
    """Write `<run>/insight/` and return what insight.json holds."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    settings, l2, class_count = config.insight, config.train.l2, len(rows.classes)
    found: dict = {"pictures": len(rows.y)}
    judged = cross_validate(
        rows.x, rows.y, class_count, l2, settings.folds, settings.seeds, rows.groups, seed=config.seed
    )
    if judged is None:
        log.info("insight: a class has one picture only: no folds")
        found["number"] = None
    else:
        number, _ = judged
        found["number"] = number.to_dict()
        log.info("insight: %s", number.in_words())
    write_json(folder / "insight.json", found)
    write_text(folder / section.FILE, section.html_of(found))
    return found
