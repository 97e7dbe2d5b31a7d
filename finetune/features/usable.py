"""Which pictures are used: what is left out and why, what looks wrong, and the split among the rest."""

from __future__ import annotations

import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, Split
from datasets.split import make_split
from finetune.config import Config
from finetune.features.cache import Features
from finetune.features.copies import near_copies
from finetune.features.groups import groups_of, joined

LINES = 20  # of one kind in the log; metrics.json has them all

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Findings:
    """What is to say of the pictures, for metrics.json and the report."""

    damaged: dict[str, str]  # path -> why it is left out
    passed_over: dict[str, dict[str, int]]  # folder -> what is no picture -> how many
    tones: dict[str, dict[str, int]]  # class -> what is odd about pictures -> how many
    two_labels: list[tuple[str, str]] = field(default_factory=list)  # the same picture in two classes
    both_parts: list[tuple[str, str]] = field(default_factory=list)  # one that trains and one that evaluates

    def to_dict(self) -> dict:
        return asdict(self)


def grouped(dataset: Dataset, config: Config, found: Features | None) -> np.ndarray | None:
    """int (N,): the group of each picture by data.group_by; None where nothing is grouped."""
    kind = config.data.group_by
    if kind is None:
        return None
    if config.data.rotation is not None:
        raise InputError("data.group_by: data.rotation says already which pictures evaluate. Use one of the two.")
    if kind != "duplicates":
        return groups_of(dataset, kind)
    if found is None or dataset.paths is None:  # not known before there are features
        return None
    rows = np.flatnonzero(found.readable)
    first = {found.keys[row]: row for row in rows[::-1]}
    exact = [(first[found.keys[row]], row) for row in rows]
    unique = np.array(sorted(first.values()))
    near = near_copies(found.rows[unique], [dataset.paths[row] for row in unique])
    return joined(len(dataset), [*exact, *((unique[one], unique[other]) for one, other in near)])


def excluded(dataset: Dataset, path: str | None) -> np.ndarray:
    """bool (N,): the pictures that the file of data.exclude names.

    Raises:
        InputError: no such file, or it names what is no picture of the data set.
    """
    names = [dataset.picture_name(row) for row in range(len(dataset))]
    if path is None:
        return np.zeros(len(names), bool)
    if not Path(path).is_file():
        raise InputError(
            f"data.exclude: {path}: no such file. It has a picture a line, or is a CSV with a column path."
        )
    lines = Path(path).read_bytes().decode("utf-8", "replace").lstrip("\ufeff").splitlines()
    if lines and "path" in next(csv.reader(lines[:1])):
        wanted = {row["path"] for row in csv.DictReader(lines) if row.get("suspect") != "no"}
    else:
        wanted = {line.strip() for line in lines if line.strip()}
    unknown = sorted(wanted - set(names))
    if unknown:
        raise InputError(
            f"{path}: {unknown[0]} is no picture of {dataset.root}. Names are relative to that folder, as {names[0]}."
        )
    return np.isin(names, list(wanted))


def draw_split(dataset: Dataset, config: Config, found: Features | None = None) -> Split:
    """As `make_split`; by content among the readable pictures, where it is known which they are.

    Rows of a data set of arrays never come or go, and keep the split that they have always had.
    """
    data, keys = config.data, found.keys if found and dataset.paths is not None else None
    readable = found.readable if found else np.ones(len(dataset), bool)
    left_out = excluded(dataset, data.exclude)
    usable = readable & ~left_out
    groups = grouped(dataset, config, found)
    if found and data.exclude:
        log.info("data.exclude: %d pictures left out", left_out.sum())
    if found and groups is not None:
        sizes = np.unique(groups[usable], return_counts=True)[1]
        several = sizes[sizes > 1]
        log.info("data.group_by: %d groups of several pictures, %d pictures in all", len(several), several.sum())
    fractions = data.valid_fraction, data.eval_fraction
    split = make_split(dataset, *fractions, config.seed, data.rotation, usable, keys, groups)
    train, valid = (thinned(rows, dataset.labels, data.fraction, config.seed) for rows in (split.train, split.valid))
    return Split(train, valid, split.eval)


def thinned(rows: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Of each class a share of the sorted rows, but at least one; labels (N,) of all rows."""
    if fraction == 1 or not len(rows):
        return rows
    rng = np.random.default_rng(seed)
    of_classes = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    return np.sort(np.concatenate([rng.permutation(one)[: max(1, round(fraction * len(one)))] for one in of_classes]))


def usable_split(dataset: Dataset, found: Features, config: Config) -> tuple[Split, Findings]:
    """The split among the pictures that can be read, and what there is to say. It is logged, too.

    Raises:
        InputError: a class has no readable picture on one side.
    """
    for line in shortened([f"left out: {path}: {reason}" for path, reason in found.damaged.items()]):
        log.warning(line)
    if found.damaged:
        log.warning("%d damaged picture(s) left out of %d", len(found.damaged), len(dataset))
    split = draw_split(dataset, config, found)
    check_every_class(dataset, split)
    tell_who_does_not_validate(dataset, split)
    findings = Findings(
        found.damaged,
        dataset.passed_over,
        tones_of_classes(dataset, found),
        *copies(dataset, found.keys, found.readable, split),
    )
    for line in warnings_of(dataset, found, findings):
        log.warning(line)
    return split, findings


def check_every_class(dataset: Dataset, split: Split) -> None:
    for part, rows in (("train", split.train), ("eval", split.eval)):
        counts = np.bincount(dataset.labels[rows], minlength=len(dataset.classes))
        for name in np.array(dataset.classes)[counts == 0]:
            raise InputError(
                f"{dataset.root}: no picture of the class {name!r} in the {part} part can be read. "
                "Replace the damaged files listed above."
            )


def tell_who_does_not_validate(dataset: Dataset, split: Split) -> None:
    lacking = np.setdiff1d(dataset.labels[split.train], dataset.labels[split.valid])
    if len(split.valid) and len(lacking):
        log.warning(
            "%d class(es) with no picture to validate, as %r: what is chosen by validation pictures is chosen without "
            "them. Where there are few pictures of a class, add some, or leave it out",
            *(len(lacking), dataset.classes[lacking[0]]),
        )


def tones_of_classes(dataset: Dataset, found: Features) -> dict[str, dict[str, int]]:
    by_class: dict[str, Counter[str]] = defaultdict(Counter)
    for row, tone in found.tones.items():
        by_class[dataset.classes[dataset.labels[row]]][tone] += 1
    return {name: dict(counts) for name, counts in sorted(by_class.items())}


def copies(
    dataset: Dataset, keys: Sequence, readable: np.ndarray, split: Split
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(pairs of one picture under two labels, pairs of which the first trains and the second evaluates)."""
    first: dict[bytes, int] = {}
    two_labels = []
    for row in np.flatnonzero(readable):
        other = first.setdefault(keys[row], row)
        if dataset.labels[other] != dataset.labels[row]:
            two_labels.append((dataset.picture_name(other), dataset.picture_name(row)))
    trains = {keys[row]: row for rows in (split.valid, split.train) for row in rows}
    both = [(trains[keys[row]], row) for row in split.eval if keys[row] in trains]
    return two_labels, [(dataset.picture_name(a), dataset.picture_name(b)) for a, b in both]


def warnings_of(dataset: Dataset, found: Features, findings: Findings) -> list[str]:
    lines = []
    for name, tones in findings.tones.items():
        label = dataset.classes.index(name)
        for tone, count in tones.items():
            example = next(r for r, t in found.tones.items() if t == tone and dataset.labels[r] == label)
            lines.append(
                f"{name}: {count} of {int((dataset.labels == label).sum())} pictures show {tone}, as "
                f"{dataset.picture_name(example)}. Look at them: are depth and transparency as they should be?"
            )
    if findings.two_labels:
        lines += shortened([f"one picture under two labels: {a} and {b}" for a, b in findings.two_labels])
    if findings.both_parts:
        lines += shortened([f"{b} evaluates, and is also {a}, which trains" for a, b in findings.both_parts])
        lines.append(
            f"{len(findings.both_parts)} evaluation picture(s) are also among the training pictures: "
            "the accuracy is too high"
        )
    return lines


def shortened(lines: list[str]) -> list[str]:
    more = len(lines) - LINES
    return [*lines[:LINES], f"... and {more} more; metrics.json has all"] if more > 0 else lines
