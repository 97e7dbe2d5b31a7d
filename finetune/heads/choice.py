"""train.head: which kind of linear head, and how strongly it is held back, by cross-validation on the training rows.

    logistic   cross-entropy with a penalty, by L-BFGS      ridge   least squares      lda   discriminant analysis

Each strength of a kind, or of all kinds for `auto`, is judged out of fold: of those within a standard error of the
highest accuracy the lowest cross-entropy wins. No evaluation row is looked at. Of rows that are too many for memory,
ridge and lda need sums only; logistic wants the rows themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np

from datasets.base import InputError
from finetune.config import TrainConfig
from finetune.device import one_core_each
from finetune.heads.folds import deal
from finetune.heads.logistic import LinearHead, softmax
from finetune.heads.sums import ROWS_AT_ONCE, Sums, best_scale, lda, ridge
from finetune.metrics import cross_entropy
from finetune.training.networks import Head
from finetune.training.predictor import Predictor
from finetune.training.step import Values
from finetune.training.trainer import EpochRow, Fitted, plain_view

STRENGTHS = {
    "logistic": (0.003, 0.01, 0.03, 0.1),
    "ridge": (0.1, 0.3, 1.0, 3.0),
    "lda": (0.3, 1.0, 3.0, 10.0),
}
FROM_SUMS = {"ridge": ridge, "lda": lda}
FOLDS = 5
TRAINS = -1  # instead of a fold

Weights = tuple[np.ndarray, np.ndarray]  # W (D, C) and b (C,) of logits x W + b


@dataclass(frozen=True)
class Candidate:
    kind: str
    strength: float
    accuracy: float | None  # out of fold
    loss: float | None  # cross-entropy out of fold, in nats
    scale: float  # of the scores: ridge's are no logits, and those of lda are too sure of themselves


class HeadChooser:
    """What `Trainer` is, for a linear head that is solved for: `fit` on the rows, or on some of them."""

    def __init__(self, network: Head, train, valid, config: TrainConfig, class_count: int, seed: int):
        """Rows as `Trainer` takes them, V views of the training rows included."""
        self.network, self.valid, self.config, self.seed = network, valid, config, seed
        self.views, self.y = train
        self.x, self.view_count = plain_view(self.views, len(self.y)), len(self.views) // len(self.y)
        self.class_count = class_count
        self.predictor = Predictor(network)
        self.weights = Values([network.dense.weight, network.dense.bias])
        self.chosen: Candidate | None = None  # by the first fit

    def fit(self, rows: np.ndarray | None = None, on_epoch: Callable[[str], None] = print) -> Fitted:
        started = time.perf_counter()
        rows = np.arange(len(self.y)) if rows is None else rows
        if self.chosen is None:
            self.chosen = self.choose(on_epoch)
        kind, strength = self.chosen.kind, self.chosen.strength
        solve = FROM_SUMS.get(kind)
        with one_core_each():
            weights = solve(self.sums(rows), strength) if solve else self.logistic(rows, strength)
        weight, bias = (self.chosen.scale * values.astype(np.float32) for values in weights)
        self.weights(ms.Tensor(np.ascontiguousarray(weight.T, np.float32)), ms.Tensor(bias.astype(np.float32)))
        train = judged(logits_of((weight, bias), self.x, rows), self.y[rows])
        valid_rows = np.arange(len(self.valid[1]))
        valid = judged(logits_of((weight, bias), self.valid[0], valid_rows), self.valid[1])
        return Fitted((EpochRow(1, *train, *valid, 0.0, time.perf_counter() - started),), 1)

    def choose(self, say: Callable[[str], None]) -> Candidate:
        """A row whose class has no other always trains, and judges nothing.

        Raises:
            InputError: logistic is asked for, and the rows are too many for it.
        """
        kinds = list(STRENGTHS) if self.config.head == "auto" else [self.config.head]
        if not isinstance(self.views, np.ndarray) and "logistic" in kinds:
            if kinds == ["logistic"]:
                raise InputError("train.head logistic: the rows are too many for memory. Use ridge, lda or auto.")
            kinds.remove("logistic")
        counts = np.bincount(self.y)
        judge = counts[self.y] > 1
        if not judge.any():
            say("heads: one training picture a class leaves nothing to choose by")
            return self.unchosen(kinds[0])
        folds = min(FOLDS, int(counts.max()))
        fold = np.where(judge, deal(self.y, folds, self.seed), TRAINS)
        pairs = [(kind, strength) for kind in kinds for strength in STRENGTHS[kind]]
        with one_core_each() as threads:
            each = threads.map if isinstance(self.views, np.ndarray) else map  # rows on the disk are read by one
            numbers = np.unique(fold)
            parts = list(each(lambda number: self.sums(np.flatnonzero(fold == number)), numbers))
            everything = sum(parts[1:], parts[0])
            sums = {number: everything - part for number, part in zip(numbers, parts) if number != TRAINS}
            found = list(each(lambda pair: self.candidate(*pair, fold, sums), pairs))
        most = max(one.accuracy for one in found)
        error = math.sqrt(most * (1 - most) / judge.sum())
        best = min((one for one in found if one.accuracy >= most - error), key=lambda one: one.loss)
        say(f"heads, {folds} folds of {judge.sum()} training pictures:")
        for one in found:
            line = f"  {one.kind:8}  strength {one.strength:<6g}  {100 * one.accuracy:6.2f} %  loss {one.loss:.3f}"
            say(f"{line}{'  chosen' if one is best else ''}")
        return best

    def unchosen(self, kind: str) -> Candidate:
        """With a strength from the middle, and the scale that fits the rows that train."""
        strength, everything, scale = STRENGTHS[kind][1], np.arange(len(self.y)), 1.0
        if kind in FROM_SUMS:
            scores = logits_of(FROM_SUMS[kind](self.sums(everything), strength), self.x, everything)
            scale = best_scale(scores, self.y)
        return Candidate(kind, strength, None, None, scale)

    def candidate(self, kind: str, strength: float, fold: np.ndarray, sums: dict[int, Sums]) -> Candidate:
        """`sums`: of the rows that train in each fold, by its number."""
        scores, judge = np.empty((len(self.y), self.class_count), np.float32), fold != TRAINS
        for number in sums:
            held_out = np.flatnonzero(fold == number)
            if kind in FROM_SUMS:
                weights = FROM_SUMS[kind](sums[number], strength)
            else:
                weights = self.logistic(np.flatnonzero(fold != number), strength)
            scores[held_out] = logits_of(weights, self.x, held_out)
        scores, y = scores[judge], self.y[judge]
        scale = best_scale(scores, y) if kind in FROM_SUMS else 1.0
        loss, accuracy = judged(scale * scores, y)
        return Candidate(kind, strength, accuracy, loss, scale)

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(those of all views of the rows, their classes by place)."""
        places = np.concatenate([rows + view * len(self.y) for view in range(self.view_count)])
        return places, np.tile(self.y, self.view_count)

    def sums(self, rows: np.ndarray) -> Sums:
        places, y = self.places(rows)
        return Sums.of(self.views, y, places, self.class_count)

    def logistic(self, rows: np.ndarray, strength: float) -> Weights:
        places, y = self.places(rows)
        head = LinearHead(self.views[places], y[places], self.class_count, strength)
        return head.weight, head.bias - head.mean @ head.weight


def logits_of(weights: Weights, x, rows: np.ndarray) -> np.ndarray:
    """float32 (n, C) of x[rows], a block at a time."""
    weight, bias = (values.astype(np.float32) for values in weights)
    logits = np.empty((len(rows), len(bias)), np.float32)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        logits[start : start + len(some)] = x[some] @ weight + bias
    return logits


def judged(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(cross-entropy, accuracy); NaN where there are no rows."""
    if not len(y):
        return math.nan, math.nan
    p = softmax(logits)
    return cross_entropy(p, y), float((p.argmax(1) == y).mean())
