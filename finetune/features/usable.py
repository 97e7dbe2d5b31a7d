"""Which pictures are used: what is left out and why, what looks wrong, and the split among the rest."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from datasets.base import Dataset, InputError, Split
from datasets.split import make_split
from finetune.config import Config
from finetune.features.cache import Features

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


def draw_split(dataset: Dataset, config: Config, found: Features | None = None) -> Split:
    """As `make_split`; by content among the readable pictures, where it is known which they are.

    Rows of a data set of arrays never come or go, and keep the split that they have always had.
    """
    data, keys = config.data, found.keys if found and dataset.paths is not None else None
    readable = found.readable if found else None
    return make_split(dataset, data.valid_fraction, data.eval_fraction, config.seed, data.rotation, readable, keys)


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
