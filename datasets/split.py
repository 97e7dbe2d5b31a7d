"""Which rows train, which choose the best epoch, which evaluate. Kept as JSON with file names."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.base import PARTS, Dataset, InputError, Split
from datasets.files import write_json


def make_split(
    dataset: Dataset,
    valid_fraction: float,
    eval_fraction: float,
    seed: int,
    rotation: int | None = None,
    readable: np.ndarray | None = None,
    keys: Sequence[bytes] | None = None,
    groups: np.ndarray | None = None,
) -> Split:
    """The published split where there is one; what is missing is drawn among the readable, stratified by class.

    Published test rows stay evaluation rows. Validation rows, by which everything is chosen, are taken from the
    training rows, never from the evaluation rows; a class with one training picture keeps it. With no
    `valid_fraction`, or too few pictures to hold any out, `valid` is empty. With a `rotation` nothing is drawn; see
    `rotate`.

    Args:
        readable: bool (N,); None: all are.
        keys: N digests of the pictures. With them the content decides which are held out, see `_held_by_content`;
            without, the row does.
        groups: int (N,), see data.group_by: those of one group are on one side. Of a published split, what trains
            is left out where its group evaluates.

    Raises:
        InputError: a class has too few pictures to have one on each side.
    """
    if rotation is not None:
        return rotate(dataset, rotation, readable)

    def hold_out(rows: np.ndarray, fraction: float, purpose: str) -> tuple[np.ndarray, np.ndarray]:
        if groups is not None:
            return _hold_out_groups(dataset, rows, fraction, seed, purpose, groups)
        return _hold_out(dataset, rows, fraction, seed, purpose, keys)

    rows = np.arange(len(dataset)) if readable is None else np.flatnonzero(readable)
    if dataset.parts is None:
        train, evaluation = hold_out(rows, eval_fraction, "evaluation")
        valid = rows[:0]
    else:
        parts = np.array(dataset.parts)[rows]
        train, valid, evaluation = (rows[parts == part] for part in PARTS)
        if groups is not None:
            valid = valid[~np.isin(groups[valid], groups[evaluation])]
            train = train[~np.isin(groups[train], groups[np.concatenate([valid, evaluation])])]
    largest_class = np.bincount(dataset.labels[train], minlength=1).max()
    if not len(valid) and valid_fraction and largest_class >= 2:
        train, valid = hold_out(train, valid_fraction, "validation")
    return Split(train, valid, evaluation)


def rotate(dataset: Dataset, rotation: int, readable: np.ndarray | None = None) -> Split:
    """Of each class one readable picture evaluates, the next one validates, the others train.

    Picture `rotation` of each class, counted from 0 and around, is for evaluation: as many rotations as a class has
    pictures use each of them once. For small sets without a published split, such as ORL.

    Raises:
        InputError: a class has fewer than three pictures, or the set has a published split.
    """
    if dataset.parts is not None:
        raise InputError(f"{dataset.name}: has a split of its own. Leave data.rotation out.")
    rows = np.arange(len(dataset)) if readable is None else np.flatnonzero(readable)
    valid, evaluation = [], []
    for label, name in enumerate(dataset.classes):
        of_class = rows[dataset.labels[rows] == label]
        if len(of_class) < 3:
            raise InputError(
                f"{dataset.root}: the class {name!r} has {len(of_class)} picture(s) that can be read; "
                "data.rotation needs 3. Add pictures, or leave data.rotation out."
            )
        evaluation.append(of_class[rotation % len(of_class)])
        valid.append(of_class[(rotation + 1) % len(of_class)])
    held = np.concatenate([valid, evaluation])
    return Split(np.setdiff1d(rows, held), np.sort(valid), np.sort(evaluation))


def _hold_out(
    dataset: Dataset, rows: np.ndarray, fraction: float, seed: int, purpose: str, keys: Sequence[bytes] | None
):
    """(kept, held) rows: of each class, `fraction` of its rows rounded, but at least one, are held; to validate, none
    of a class that has one."""
    rng = np.random.default_rng(seed)
    labels_of = labels_of_keys(dataset, rows, keys) if keys is not None else {}
    held = []
    for label, name in enumerate(dataset.classes):
        of_class = rows[dataset.labels[rows] == label]
        count = min(max(1, round(fraction * len(of_class))), len(of_class) - 1)
        if count < 1 and purpose == "validation":
            continue
        if count < 1:
            raise InputError(
                f"{dataset.root}: the class {name!r} has {len(of_class)} picture(s) that can be read; "
                f"at least 2 are needed to hold one out for {purpose}."
            )
        if keys is None:
            held.append(rng.permutation(of_class)[:count])
        else:
            held.append(_held_by_content(of_class, count, keys, labels_of, f"{seed} {purpose}"))
            if not len(held[-1]) and purpose == "evaluation":
                raise InputError(
                    f"{dataset.root}: the class {name!r} has no two different pictures of its own, so that none can be "
                    f"held out for {purpose}. Remove the copies, also those under other classes, and add pictures."
                )
    held = np.sort(np.concatenate(held))
    return np.setdiff1d(rows, held), held


def _hold_out_groups(
    dataset: Dataset, rows: np.ndarray, fraction: float, seed: int, purpose: str, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held) rows: whole groups in random order, until of each class about `fraction` is held.

    Raises:
        InputError: a class is one group, so that none of it can be held out for evaluation.
    """
    names, group = np.unique(groups[rows], return_inverse=True)
    counts = np.zeros((len(names), len(dataset.classes)), int)
    np.add.at(counts, (group, dataset.labels[rows]), 1)
    kept, held = counts.sum(0), np.zeros(len(dataset.classes), int)
    wanted = np.maximum(1, np.round(fraction * kept))
    taken = np.zeros(len(names), bool)
    for one in np.random.default_rng(seed).permutation(len(names)):
        its = counts[one] > 0
        lacking = (held < wanted)[its].all()
        if lacking and (kept - counts[one])[its].min() > 0:
            taken[one] = True
            kept, held = kept - counts[one], held + counts[one]
    if purpose == "evaluation" and not held.all():
        name = dataset.classes[int(np.flatnonzero(held == 0)[0])]
        raise InputError(
            f"{dataset.root}: by data.group_by the class {name!r} has no group that can be held out for {purpose}: its "
            "pictures are one group, or hang together with other classes. Group them more finely, or add pictures."
        )
    return rows[~taken[group]], rows[taken[group]]


def labels_of_keys(dataset: Dataset, rows: np.ndarray, keys: Sequence[bytes]) -> dict[bytes, set[int]]:
    """The labels under which each picture of these rows stands: more than one is a contradiction."""
    labels = defaultdict(set)
    for row in rows:
        labels[keys[row]].add(int(dataset.labels[row]))
    return labels


def _held_by_content(
    of_class: np.ndarray, count: int, keys: Sequence[bytes], labels_of: dict[bytes, set[int]], salt: str
) -> np.ndarray:
    """About `count` of the rows of a class, by a hash of what is in the file: a picture keeps its side when others come
    or go, but for one at most. All copies of a picture are on one side; one that stands under two labels is never held,
    and one picture at least is kept."""
    rows_of = defaultdict(list)
    for row in of_class:
        rows_of[keys[row]].append(row)
    own = [key for key in rows_of if len(labels_of[key]) == 1]
    own.sort(key=lambda key: hashlib.sha256(salt.encode() + key).digest())
    if len(own) == len(rows_of):
        own.pop()
    held = []
    for key in own:
        if len(held) >= count:
            break
        held += rows_of[key]
    return np.array(held, dtype=of_class.dtype)


def keep(split: Split, readable: np.ndarray) -> Split:
    """The split without the rows whose `readable` (N,) is False: damaged pictures."""
    return Split(*(rows[readable[rows]] for rows in (split.train, split.valid, split.eval)))


def write_split(path: Path, dataset: Dataset, split: Split) -> None:
    """Write {"root": folder, "classes": [...], "train": {name: class}, "valid": ..., "eval": ...}."""
    facts = {"root": str(dataset.root.resolve()), "classes": list(dataset.classes)}
    for part in PARTS:
        rows = getattr(split, part)
        facts[part] = {dataset.picture_name(row): dataset.classes[dataset.labels[row]] for row in rows}
    write_json(path, facts)
