"""The learning curve: accuracy against the number of training pictures, and an honest forecast for twice as many.

Nested subsets of the rows that train in a fold, several seeds; the same held-out rows judge all sizes of a seed. The
mean error is fitted by a power law with a floor, error(n) = a + b * n**-c (Cortes et al., "Learning curves", 1994). The
forecast's spread is that of such laws fitted to the means moved by their own noise, and Wilson's of the held-out rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from finetune.device import one_core_each
from finetune.heads.folds import deal
from finetune.heads.logistic import LinearHead
from finetune.metrics import wilson_interval

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)  # of the rows that train
SEEDS, FOLDS = 5, 5
EXPONENTS = np.linspace(0.1, 2.0, 39)  # c
DRAWS = 500
LEAST_GAIN = 0.005  # less is no help
MOST_UNSURE = 0.05  # width of the interval that lets this be said


@dataclass(frozen=True)
class Curve:
    sizes: tuple[int, ...]  # training pictures
    accuracies: tuple[float, ...]  # their means over the seeds, 0..1
    spreads: tuple[float, ...]  # standard errors of the means
    twice: int  # training pictures that the forecast is for
    forecast: float
    interval: tuple[float, float]  # 95 %

    to_dict = asdict

    def in_words(self) -> str:
        low, high = (100 * bound for bound in self.interval)
        if self.forecast - self.accuracies[-1] < LEAST_GAIN and high - low < 100 * MOST_UNSURE:
            return f"more pictures of these kinds will hardly help: with {self.twice} expect {low:.1f} to {high:.1f} %"
        return f"with {self.twice} training pictures instead of {self.sizes[-1]} expect {low:.1f} to {high:.1f} %"


def learning_curve(x: np.ndarray, y: np.ndarray, class_count: int, l2: float, seed: int = 0) -> Curve | None:
    """Of rows x (N, D) with labels y (N,); None where there are fewer than 8 rows a class."""
    if np.bincount(y, minlength=class_count).min() < 8:
        return None

    def one_seed(number: int) -> tuple[list[int], list[float], int]:
        """(sizes, their accuracies, rows that judged)."""
        fold = deal(y, FOLDS, seed + number)
        train, test = np.flatnonzero(fold), np.flatnonzero(fold == 0)
        train = train[in_turns(y[train], seed + number)]
        sizes = [max(2 * class_count, round(share * len(train))) for share in SHARES]
        head, accuracies = None, []
        for size in sizes:
            head = LinearHead(x[train[:size]], y[train[:size]], class_count, l2, start=head)
            accuracies.append(float((head(x[test]).argmax(1) == y[test]).mean()))
        return sizes, accuracies, len(test)

    with one_core_each() as threads:
        sizes, found, judged = zip(*threads.map(one_seed, range(SEEDS)))
    sizes, found, held = sizes[-1], np.array(found), sum(judged)
    spreads = np.maximum(found.std(0, ddof=1), 1 / held) / SEEDS**0.5
    return forecast(sizes, found.mean(0), spreads, 2 * sizes[-1], min(held, len(y)), seed)


def in_turns(y: np.ndarray, seed: int) -> np.ndarray:
    """int (N,): an order of rows in which each beginning has the classes' shares."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(y))
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        place[rng.permutation(rows)] = (np.arange(len(rows)) + rng.uniform()) / len(rows)
    return np.argsort(place, kind="stable")


def forecast(sizes, accuracies: np.ndarray, spreads: np.ndarray, wanted: int, judged: int, seed: int = 0) -> Curve:
    """The accuracy to expect with `wanted` training pictures, of means that `judged` pictures have judged."""
    sizes = np.array(sizes, float)
    rng = np.random.default_rng(seed)
    errors = 1 - np.asarray(accuracies)
    draws = errors + spreads * rng.normal(size=(DRAWS, len(sizes)))
    expected = power_law(sizes, np.vstack([errors, draws]), spreads, wanted)
    middle = 1 - expected[0]
    around = np.quantile(1 - expected[1:], [0.025, 0.975]) - middle
    low, high = wilson_interval(middle * judged, judged)
    lower, upper = (np.hypot(min(around[0], 0), low - middle), np.hypot(max(around[1], 0), high - middle))
    interval = (max(0.0, float(middle - lower)), min(1.0, float(middle + upper)))
    return Curve(
        tuple(int(size) for size in sizes),
        tuple(map(float, accuracies)),
        tuple(map(float, spreads)),
        int(wanted),
        float(middle),
        interval,
    )


def power_law(sizes: np.ndarray, errors: np.ndarray, spreads: np.ndarray, wanted: int) -> np.ndarray:
    """a + b * wanted**-c of the best fit to each of errors (K, sizes), with a, b >= 0: (K,).

    For each c on a grid a and b are found by least squares, with both, or one of them 0.
    """
    best, values = np.full(len(errors), np.inf), errors[:, -1].copy()
    weights = 1 / spreads
    for c in EXPONENTS:
        falling, flat = (sizes / sizes[-1]) ** -c, np.ones(len(sizes))
        ahead = (wanted / sizes[-1]) ** -c
        for columns, there in (((flat, falling), (1.0, ahead)), ((falling,), (ahead,)), ((flat,), (1.0,))):
            design = np.stack(columns, 1) * weights[:, None]
            coefficients = np.linalg.lstsq(design, (errors * weights).T, rcond=None)[0]  # (1 or 2, K)
            losses = ((design @ coefficients - (errors * weights).T) ** 2).sum(0)
            better = (coefficients.min(0) >= 0) & (losses < best - 1e-9)
            best, values = np.where(better, losses, best), np.where(better, np.array(there) @ coefficients, values)
    return values
