"""Confidence that means something: a temperature and a threshold, fitted on training rows only.

Each training row is predicted by a head that has not seen it: the rows are dealt into folds, and for each
fold a head of the same config is trained on the others. On these out-of-fold probabilities are fitted

    temperature    softmax(logits / temperature) makes them as sure as they are right (Guo et al., 2017);
                   the order of the classes stays
    threshold      of the confidence after that: below it the answer is "not sure"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.heads.folds import deal
from finetune.metrics import calibration_error, cross_entropy
from finetune.storage.rows import held

if TYPE_CHECKING:  # predictions by ONNX need no MindSpore
    from finetune.training.trainer import Trainer

TEMPERATURES = (0.05, 20.0)  # searched between these
SEARCH_STEPS = 60  # each narrows the search to 62 %

Rows = tuple[np.ndarray, np.ndarray]  # x (N, D) float32, y (N,) int32
Train = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]  # row numbers -> a function x -> probabilities


@dataclass(frozen=True)
class Confidence:
    """What metrics.json and the manifest say; `predict` uses the first two."""

    temperature: float
    threshold: float
    folds: int  # 1: fitted on the validation pictures
    pictures: int  # training pictures it was fitted on
    accuracy: float  # out of fold, of all of them
    answered: float  # share of them at or above the threshold
    accuracy_answered: float  # of those
    calibration_error: tuple[float, float]  # before and after the temperature

    to_dict = asdict


def calibrate(trainer: Trainer, folds: int, resampled: bool = False) -> Confidence | None:
    """By networks of the same start; each stops where the validation rows say, as the real one did. Of `resampled` rows
    copies and neighbours would be on both sides of a fold, so that there the validation rows are used; also where a
    class has one row only.

    The network that `trainer` has trained is as before afterwards.
    """

    if resampled or np.bincount(trainer.y)[np.unique(trainer.y)].min() < 2:
        x, y = trainer.valid
        return fit_on_validation(trainer.predictor(x), y) if folds and len(y) else None

    def train(rows: np.ndarray) -> Callable:
        trainer.fit(rows, on_epoch=lambda line: None)
        return trainer.predictor

    with trainer.weights.kept():
        return fit_confidence(train, (trainer.x, trainer.y), folds, trainer.seed)


def fit_confidence(train: Train, rows: Rows, folds: int, seed: int) -> Confidence | None:
    """None where the smallest class has fewer than two rows, or folds were switched off."""
    x, y = rows
    counts = np.bincount(y)
    folds = min(folds, int(counts[counts > 0].min()))
    if folds < 2:
        return None
    return confidence_from(out_of_fold(train, x, y, deal(y, folds, seed)), y, folds)


def fit_on_validation(probabilities: np.ndarray, y: np.ndarray) -> Confidence | None:
    """From probabilities (N, C) of the validation rows, where training anew for folds would take minutes; None where
    there are none. They may be few and all be right, which is no reason to be sure without end (Platt, 1999)."""
    return confidence_from(probabilities, y, 1, doubt=1 / (len(y) + 2)) if len(y) else None


def confidence_from(held_out: np.ndarray, y: np.ndarray, folds: int, doubt: float = 0.0) -> Confidence:
    """From probabilities (N, C) of rows that did not train what gave them; `doubt` as in `fit_temperature`."""
    temperature = fit_temperature(held_out, y, doubt)
    calibrated = temper(held_out, temperature)
    confidence, right = calibrated.max(1), held_out.argmax(1) == y
    threshold = fit_threshold(confidence, right)
    sure = confidence >= threshold
    return Confidence(
        temperature=temperature,
        threshold=threshold,
        folds=folds,
        pictures=len(y),
        accuracy=float(right.mean()),
        answered=float(sure.mean()),
        accuracy_answered=float(right[sure].mean()),
        calibration_error=(calibration_error(held_out, y), calibration_error(calibrated, y)),
    )


def in_words(confidence: Confidence | None) -> str:
    if confidence is None:
        return "confidence: not fitted"
    held_out = "out of fold" if confidence.folds > 1 else "of the validation pictures"
    return (
        f"confidence: temperature {confidence.temperature:.2f}; below {100 * confidence.threshold:.1f} % the answer is "
        f'"not sure"; {held_out} {100 * confidence.answered:.1f} % are answered, '
        f"{100 * confidence.accuracy_answered:.1f} % of them right"
    )


def out_of_fold(train: Train, x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities (N, C), each row's by a head that was trained without it."""
    pieces = {}
    for held_out in range(fold.max() + 1):
        rows = fold != held_out
        pieces[held_out] = train(np.flatnonzero(rows))(held(x, np.flatnonzero(~rows)))
    probabilities = np.empty((len(y), pieces[0].shape[1]))
    for held_out, piece in pieces.items():
        probabilities[fold == held_out] = piece
    return probabilities


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature) (N, C), from softmax(logits)."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-38)) / temperature
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, y: np.ndarray, doubt: float = 0.0) -> float:
    """The temperature of the lowest cross-entropy, by golden-section search over its logarithm.

    `doubt` is a share of each row that is wanted on its other classes, in equal parts.
    """
    rows, others = np.arange(len(y)), probabilities.shape[1] - 1

    def loss(log_temperature: float) -> float:
        tempered = temper(probabilities, np.exp(log_temperature))
        if not doubt:
            return cross_entropy(tempered, y)
        logs = np.log(np.maximum(tempered, 1e-12))
        true = logs[rows, y]
        return float(-((1 - doubt) * true + doubt * (logs.sum(1) - true) / others).mean())

    golden = (5**0.5 - 1) / 2
    low, high = np.log(TEMPERATURES)
    for _ in range(SEARCH_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def fit_threshold(confidence: np.ndarray, right: np.ndarray) -> float:
    """The lowest confidence (N,) at which the answers kept are wrong half as often as all of them.

    Where none is wrong it is the lowest confidence seen: less sure than on any training picture.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong_share = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(wrong_share <= wrong_share[-1] / 2)
    return float(confidence[order[good[-1] if len(good) else 0]])
