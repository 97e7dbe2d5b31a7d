"""Copies among the pictures, exact and near, and whether they flatter the accuracy."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from finetune.evaluation.significance import Right
from finetune.features.copies import alike, confirmed
from finetune.features.looks import Looks
from finetune.metrics import wilson_interval


@dataclass(frozen=True)
class Copy:
    """Two pictures of which one is a copy of the other."""

    kind: str  # exact, near
    first: str
    second: str
    first_class: str
    second_class: str
    first_part: str
    second_part: str

    to_dict = asdict

    @property
    def two_labels(self) -> bool:
        return self.first_class != self.second_class

    @property
    def leaks(self) -> bool:
        """One of the two evaluates, and the other does not."""
        return (self.first_part == "eval") != (self.second_part == "eval")


@dataclass(frozen=True)
class Proposed:
    """Pairs of rows."""

    exact: list[tuple[int, int]]  # with one sha256
    near: list[tuple[int, int]]  # alike by their features: pixels are to decide

    def rows(self) -> set[int]:
        """Those whose pixels decide."""
        return set(itertools.chain(*self.near))


def proposed(x: np.ndarray, keys: Sequence) -> Proposed:
    """Of rows x (N, D) with the sha256 `keys`."""
    rows_of = defaultdict(list)
    for row, key in enumerate(keys):
        rows_of[key].append(row)
    unique = [its[0] for its in rows_of.values()]
    near = [(unique[one], unique[other]) for one, other in alike(x[unique])]
    return Proposed([(its[0], row) for its in rows_of.values() for row in its[1:]], near)


def find(pairs: Proposed, paths: Sequence[Path], looks: Looks, facts: Sequence[tuple[str, str, str]]) -> list[Copy]:
    """Of N pictures at `paths`; `facts` are N (name, class, part). Those that matter most come first."""
    near = confirmed(pairs.near, paths, looks)
    found = []
    for kind, one, other in [*(("exact", *pair) for pair in pairs.exact), *(("near", *pair) for pair in near)]:
        (first, *of_first), (second, *of_second) = facts[one], facts[other]
        found.append(Copy(kind, first, second, of_first[0], of_second[0], of_first[1], of_second[1]))
    return sorted(found, key=lambda copy: (not copy.two_labels, not copy.leaks, copy.kind, copy.first))


def accuracy_without(copies: Sequence[Copy], right: Right) -> dict | None:
    """Accuracy on the evaluation pictures that have no copy outside the evaluation part; None where all or none do."""
    leaked = {copy.first if copy.first_part == "eval" else copy.second for copy in copies if copy.leaks}
    rest = [answer for (path, _), answer in right.items() if path not in leaked]
    if not rest or len(rest) == len(right):
        return None
    return {
        "accuracy": sum(rest) / len(rest),
        "interval": wilson_interval(sum(rest), len(rest)),
        "pictures": len(rest),
        "accuracy_of_all": sum(right.values()) / len(right),
    }
