"""The number: stratified k-fold x seeds on cached features, with an interval that covers.

Each seed deals the rows into folds anew; every row is judged once a seed, by a head that was trained on the other
folds. The seeds deal the same N rows: they take away the chance of the deal, never that of the sample. The interval is
Wilson's for the mean accuracy and N (k - 1) / k rows, as many as train a head: with all N it holds the truth too
seldom, because such heads are a little worse than one of all rows, and the corrected resampled t of Nadeau & Bengio
("Inference for the generalization error", 2003) is wider, and of no width where all folds are right. The figures are
those of `python -m benchmarks.insight.coverage`. Where rows hang together in groups, they are divided by what groups
add to the variance (Kish's design effect).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from finetune.device import one_core_each
from finetune.heads.folds import deal
from finetune.heads.logistic import LinearHead
from finetune.metrics import majority_class, nearest_class_mean, wilson_interval


@dataclass(frozen=True)
class Number:
    """Accuracies are shares, 0..1."""

    accuracy: float  # mean over folds and seeds
    interval: tuple[float, float]  # 95 %
    fold_accuracies: tuple[float, ...]  # folds x seeds
    folds: int
    seeds: int
    pictures: int
    majority_class: float
    nearest_class_mean: float

    to_dict = asdict

    def in_words(self) -> str:
        mean, low, high, least, most, nearest, frequent = (
            f"{100 * share:.1f}"
            for share in (
                *(self.accuracy, *self.interval, min(self.fold_accuracies), max(self.fold_accuracies)),
                *(self.nearest_class_mean, self.majority_class),
            )
        )
        return (
            f"accuracy {mean} %, 95 % interval {low} to {high} %: {self.folds} folds x {self.seeds} seeds of "
            f"{self.pictures} pictures; single folds from {least} to {most} %; the nearest class mean has {nearest} %, "
            f"the most frequent class {frequent} %"
        )


def cross_validate(
    x: np.ndarray,
    y: np.ndarray,
    class_count: int,
    l2: float,
    folds: int,
    seeds: int,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Number, np.ndarray] | None:
    """(the number, out-of-fold probabilities (N, C), the mean of the seeds) of rows x (N, D) with labels y (N,).

    Args:
        groups: int (N,); rows of one group are in one fold.

    Returns:
        None where a class has fewer than two rows, or groups.
    """
    folds = min(folds, most_folds(y, groups))
    if folds < 2:
        return None
    parts = list(splits(y, groups, folds, seeds, seed))

    def judged(part: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, float, float]:
        """(probabilities, accuracies of the nearest class mean and of the most frequent class) of the rows judged."""
        train, test = part
        known, labels = x[train], y[train]
        means = nearest_class_mean(known, labels, x[test], y[test])["accuracy"]
        majority = majority_class(labels, y[test])["accuracy"]
        return LinearHead(known, labels, class_count, l2)(x[test]), means, majority

    probabilities, right = np.zeros((len(y), class_count), np.float32), np.zeros(len(y))
    accuracies, means, majority = [], [], []
    with one_core_each() as threads:
        for (_, test), (p, *simple) in zip(parts, threads.map(judged, parts)):
            probabilities[test] += p / seeds
            right[test] += (p.argmax(1) == y[test]) / seeds
            accuracies.append(float((p.argmax(1) == y[test]).mean()))
            means.append(simple[0])
            majority.append(simple[1])
    accuracy, count = float(right.mean()), len(y) * (folds - 1) / folds / design_effect(right, groups)
    number = Number(
        accuracy,
        tuple(wilson_interval(accuracy * count, count)),
        tuple(accuracies),
        folds,
        seeds,
        len(y),
        float(np.mean(majority)),
        float(np.mean(means)),
    )
    return number, probabilities


def splits(
    y: np.ndarray, groups: np.ndarray | None, folds: int, seeds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows that train, rows that are judged), `folds` times for each of the seeds."""
    for number in range(seeds):
        fold = deal(y, folds, seed + number) if groups is None else deal_groups(y, groups, folds, seed + number)
        for held_out in range(folds):
            yield np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)


def most_folds(y: np.ndarray, groups: np.ndarray | None) -> int:
    """As many as the rarest class has rows, or groups."""
    counts = [int((y == label).sum()) if groups is None else len(set(groups[y == label])) for label in np.unique(y)]
    return min(counts)


def deal_groups(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """int (N,): the fold of each row, the same for a group: the largest first, each to the fold that has the least of
    what the group brings."""
    names, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), y.max() + 1))
    np.add.at(counts, (group, y), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    held, fold = np.zeros((folds, counts.shape[1])), np.empty(len(names), int)
    share = counts / counts.sum(0)  # a picture of a rare class weighs more
    for one in order:
        fold[one] = np.argmin(held @ share[one] + 1e-9 * held.sum(1))
        held[fold[one]] += share[one] * counts.shape[0]
    return fold[group]


def design_effect(right: np.ndarray, groups: np.ndarray | None) -> float:
    """How many times the variance of a mean of `right` (N,) is that of N rows on their own; at least 1."""
    if groups is None:
        return 1.0
    off = right - right.mean()
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=off)
    return max(1.0, float((sums**2).sum() / max((off**2).sum(), 1e-12)))
