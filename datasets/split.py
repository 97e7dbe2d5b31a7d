"""Which rows train, which choose the best epoch, which evaluate. Kept as JSON with file names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from datasets.base import PARTS, Dataset, InputError, Split


def make_split(
    dataset: Dataset, valid_fraction: float, eval_fraction: float, seed: int, rotation: int | None = None
) -> Split:
    """The published split where there is one; what is missing is drawn, stratified by class.

    Published test rows stay evaluation rows. Validation rows, by which everything is chosen, are taken from the
    training rows, never from the evaluation rows. With no `valid_fraction`, or too few pictures to hold any out,
    `valid` is empty. With a `rotation` nothing is drawn; see `rotate`.

    Raises:
        InputError: a class has too few pictures to have one on each side.
    """
    rows = np.arange(len(dataset))
    if rotation is not None:
        return rotate(dataset, rotation)
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


def rotate(dataset: Dataset, rotation: int) -> Split:
    """Of each class one picture evaluates, the next one validates, the others train.

    Picture `rotation` of each class, counted from 0 and around, is for evaluation: as many rotations as a class has
    pictures use each of them once. For small sets without a published split, such as ORL.

    Raises:
        InputError: a class has fewer than three pictures, or the set has a published split.
    """
    if dataset.parts is not None:
        raise InputError(f"{dataset.name}: has a published split; data.rotation is for sets without one.")
    valid, evaluation = [], []
    for label, name in enumerate(dataset.classes):
        of_class = np.flatnonzero(dataset.labels == label)
        if len(of_class) < 3:
            raise InputError(
                f"{dataset.root}: the class {name!r} has {len(of_class)} picture(s); data.rotation needs 3."
            )
        evaluation.append(of_class[rotation % len(of_class)])
        valid.append(of_class[(rotation + 1) % len(of_class)])
    held = np.concatenate([valid, evaluation])
    return Split(np.setdiff1d(np.arange(len(dataset)), held), np.sort(valid), np.sort(evaluation))


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
