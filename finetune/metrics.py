"""The numbers, by NumPy: importing scikit-learn's would take half a second of every run. A test compares them."""

from __future__ import annotations

import math

import numpy as np

CALIBRATION_BINS = 10
ROWS_AT_ONCE = 8192


def summarise(probabilities: np.ndarray, y: np.ndarray, classes: tuple[str, ...]) -> dict:
    """Plain numbers for metrics.json from probabilities (N, C) and labels y (N,)."""
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(y, predicted, len(classes))
    right, said, support = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    precision, recall, f1 = share(right, said), share(right, support), share(2 * right, said + support)
    return {
        **accuracy_with_interval(predicted, y),
        "loss": cross_entropy(probabilities, y),
        "calibration_error": calibration_error(probabilities, y),
        "per_class": {
            name: {"precision": p, "recall": r, "f1": f, "pictures": int(n)}
            for name, p, r, f, n in zip(classes, precision.tolist(), recall.tolist(), f1.tolist(), support)
        },
        "confusion": confusion.tolist(),  # [true][predicted]
    }


def confusion_matrix(y: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """int (C, C): how often class [true] was taken for [predicted]."""
    return np.bincount(y * class_count + predicted, minlength=class_count**2).reshape(class_count, class_count)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where there is nothing."""
    return part / np.maximum(whole, 1)


def accuracy_with_interval(predicted: np.ndarray, y: np.ndarray) -> dict:
    correct = int((predicted == y).sum())
    return {"accuracy": correct / len(y), "interval": wilson_interval(correct, len(y)), "pictures": len(y)}


def cross_entropy(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Mean over N rows of -log(probability of the true class), in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-12)).mean())


def wilson_interval(correct: int, count: int, z: float = 1.959964) -> list[float]:
    """95 % interval of a share (Wilson, 1927): honest near 0 and 1 and for few pictures."""
    share = correct / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return [max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)]


def calibration_error(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Expected calibration error in 0..1 (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == y
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def majority_class(train_y: np.ndarray, y: np.ndarray) -> dict:
    """Always the most frequent training class."""
    return accuracy_with_interval(np.full(len(y), np.bincount(train_y).argmax()), y)


def nearest_class_mean(train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray, y: np.ndarray) -> dict:
    """The class whose mean training feature is nearest: what the backbone knows without training."""
    counts = np.maximum(np.bincount(train_y), 1)
    means = np.zeros((len(counts), int(np.prod(train_x.shape[1:]))))  # (C, D)
    for rows in pieces(len(train_x)):
        some_x, some_y = flat(train_x[rows]), train_y[rows]
        for label in np.unique(some_y):
            means[label] += some_x[some_y == label].sum(0, dtype=np.float64)
    means = (means / counts[:, None]).astype(np.float32)
    # squared distances, less a term that is the same for all classes
    nearest = [((means**2).sum(1) - 2 * flat(x[rows]) @ means.T).argmin(1) for rows in pieces(len(x))]
    return accuracy_with_interval(np.concatenate(nearest), y)


def pieces(count: int) -> list[slice]:
    """Of rows that may lie on the disk."""
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE)]


def flat(rows: np.ndarray) -> np.ndarray:
    """(n, D): pixels are features too."""
    return rows.reshape(len(rows), -1)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test (1947): how often chance alone gives so unequal a share, or one more so, of
    the rows that only one of two classifiers gets right. 1 where there are none."""
    count = only_first + only_second
    tail = sum(math.comb(count, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**count) if count else 1.0


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """The same p of two classifiers; bool (N,) each, whether it was right."""
    return mcnemar_exact(int((a & ~b).sum()), int((b & ~a).sum()))


def fisher_exact(right: int, count: int, other_right: int, other_count: int) -> float:
    """Two-sided p of Fisher's exact test (1922): how often chance alone deals `right` of all right answers to these
    `count` rows, or a number that is less likely still, where the others get the rest."""
    total, all_right = count + other_count, right + other_right

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    possible = range(max(0, all_right - other_count), min(count, all_right) + 1)
    logs = {k: log_choose(all_right, k) + log_choose(total - all_right, count - k) for k in possible}
    seen = logs[right] + 1e-7  # equal ones differ in the last digits
    whole = log_choose(total, count)
    return min(1.0, sum(math.exp(one - whole) for one in logs.values() if one <= seen))
