"""Which rows train, which choose the best epoch, which evaluate. Kept as JSON with file names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from datasets.base import PARTS, Dataset, InputError, Split


def make_split(dataset: Dataset, valid_fraction: float, eval_fraction: float, seed: int) -> Split:
    """The published split where there is one; what is missing is drawn, stratified by class.

    Validation rows are taken from the training rows, never from the evaluation rows. With no
    `valid_fraction`, or too few pictures to hold any out, `valid` is empty.

    Raises:
        InputError: a class has too few pictures to have one on each side.
    """
    rows = np.arange(len(dataset))
    if dataset.parts is None:
        train, evaluation = _hold_out(dataset, rows, eval_fraction, seed, "evaluation")
        valid = rows[:0]
    else:
        parts = np.array(dataset.parts)
        train, valid, evaluation = (rows[parts == part] for part in PARTS)
    smallest_class = np.bincount(dataset.labels[train], minlength=len(dataset.classes)).min()
    if not len(valid) and valid_fraction and smallest_class >= 2:
        train, valid = _hold_out(dataset, train, valid_fraction, seed, "validation")
    return Split(train, valid, evaluation)


def _hold_out(dataset: Dataset, rows: np.ndarray, fraction: float, seed: int, purpose: str):
    """(kept, held) rows: of each class, `fraction` of its rows rounded, but at least one, are held."""
    rng = np.random.default_rng(seed)
    held = []
    for label, name in enumerate(dataset.classes):
        of_class = rows[dataset.labels[rows] == label]
        if len(of_class) < 2:
            raise InputError(
                f"{dataset.root}: the class {name!r} has {len(of_class)} picture(s); "
                f"at least 2 are needed to hold one out for {purpose}."
            )
        count = min(max(1, round(fraction * len(of_class))), len(of_class) - 1)
        held.append(rng.permutation(of_class)[:count])
    held = np.sort(np.concatenate(held))
    return np.setdiff1d(rows, held), held


def keep(split: Split, readable: np.ndarray) -> Split:
    """The split without the rows whose `readable` (N,) is False: damaged pictures."""
    return Split(*(rows[readable[rows]] for rows in (split.train, split.valid, split.eval)))


def write_split(path: Path, dataset: Dataset, split: Split) -> None:
    """Write {"root": folder, "classes": [...], "train": {name: class}, "valid": ..., "eval": ...}."""
    facts = {"root": str(dataset.root.resolve()), "classes": list(dataset.classes)}
    for part in PARTS:
        rows = getattr(split, part)
        facts[part] = {dataset.picture_name(row): dataset.classes[dataset.labels[row]] for row in rows}
    path.write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")
