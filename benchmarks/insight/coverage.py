"""Does the interval of k-fold x seeds hold what it says? Over many subsamples of a large set, how often it holds the
accuracy on the rest of a head that was trained on the whole subsample.

    python -m benchmarks.insight.coverage [--sizes 200 500] [--subsamples 200] [--dataset_path mnist]

Features are pixels: 20,000 pictures of the set. Beside the interval of insight stand Wilson's for all rows and the
corrected resampled t of Nadeau & Bengio (2003), with their mean half widths in points.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import stdtrit

from datasets.load import load
from finetune.heads.logistic import LinearHead
from finetune.insight.folds import cross_validate
from finetune.metrics import wilson_interval

L2 = 0.01  # the default of a run
KEPT = 20_000
FOLDS, SEEDS = 5, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[200, 500])
    parser.add_argument("--subsamples", type=int, default=200)
    parser.add_argument("--dataset_path", default="mnist")
    parser.add_argument("--cache_dir", default="cache")
    given = parser.parse_args()
    dataset = load(given.dataset_path, given.cache_dir)
    kept = np.random.default_rng(0).permutation(len(dataset))[:KEPT]
    x = dataset.pixels[kept].reshape(len(kept), -1).astype(np.float32) / 255
    y = dataset.labels[kept]
    for size in given.sizes:
        found = [one_sample(x, y, size, seed) for seed in range(given.subsamples)]
        for name in found[0]:
            holds, half = np.mean([one[name] for one in found], 0)
            print(f"{size} rows, {name}: holds in {100 * holds:.1f} %, half width {100 * half:.1f} points", flush=True)


def one_sample(x: np.ndarray, y: np.ndarray, size: int, seed: int) -> dict[str, tuple[bool, float]]:
    """{interval: (whether it holds the accuracy on the rest, its half width)}."""
    order = np.random.default_rng(seed).permutation(len(x))
    rows, rest = order[:size], order[size:]
    classes = int(y.max()) + 1
    truth = (LinearHead(x[rows], y[rows], classes, L2)(x[rest]).argmax(1) == y[rest]).mean()
    number, _ = cross_validate(x[rows], y[rows], classes, L2, FOLDS, SEEDS)
    folds = len(number.fold_accuracies)
    variance = (1 / folds + 1 / (number.folds - 1)) * np.var(number.fold_accuracies, ddof=1)
    half = stdtrit(folds - 1, 0.975) * np.sqrt(variance)
    intervals = {
        "insight": number.interval,
        "Wilson": wilson_interval(number.accuracy * size, size),
        "corrected t": (number.accuracy - half, number.accuracy + half),
    }
    return {name: (low <= truth <= high, (high - low) / 2) for name, (low, high) in intervals.items()}


if __name__ == "__main__":
    main()
