"""train.head: which kind of linear head, and how strongly it is held back, by cross-validation on the training rows.

    logistic   cross-entropy with a penalty, by L-BFGS      ridge   least squares      lda   discriminant analysis

Each strength of a kind, or of all kinds for `auto`, is judged out of fold; the highest accuracy counts, of equal ones
the lowest cross-entropy. No evaluation row is looked at.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mindspore as ms
import numpy as np

from finetune.config import TrainConfig
from finetune.heads.closed_form import LinearHead, RidgeHead, ShrinkageHead
from finetune.metrics import cross_entropy
from finetune.training.networks import Head
from finetune.training.predictor import Predictor
from finetune.training.trainer import EpochRow, Fitted

KINDS = {  # name -> (class, strengths that are tried)
    "logistic": (LinearHead, (0.001, 0.003, 0.01, 0.03)),
    "ridge": (RidgeHead, (0.03, 0.1, 0.3, 1.0)),
    "lda": (ShrinkageHead, (0.03, 0.1, 0.3, 1.0)),
}
FOLDS = 5


@dataclass(frozen=True)
class Candidate:
    kind: str
    strength: float
    accuracy: float  # out of fold
    loss: float  # cross-entropy out of fold, in nats


class HeadChooser:
    """What `Trainer` is, for a linear head that is solved for: `fit` on the rows, or on some of them."""

    def __init__(self, network: Head, train, valid, config: TrainConfig, class_count: int, seed: int):
        """Rows as `Trainer` takes them, V views of the training rows included."""
        self.network, self.valid, self.config, self.seed = network, valid, config, seed
        self.views, self.y = np.asarray(train[0][:]), train[1]
        self.x = self.views[: len(self.y)]
        self.class_count = class_count
        self.predictor = Predictor(network)
        self.chosen: Candidate | None = None  # by the first fit

    def fit(self, rows: np.ndarray | None = None, on_epoch: Callable[[str], None] = print) -> Fitted:
        started = time.perf_counter()
        rows = np.arange(len(self.y)) if rows is None else rows
        if self.chosen is None:
            self.chosen = self.choose(on_epoch)
        head = self.solve(rows, self.chosen.kind, self.chosen.strength)
        self.network.dense.weight.set_data(ms.Tensor(np.ascontiguousarray(head.weight.T, np.float32)))
        self.network.dense.bias.set_data(ms.Tensor((head.bias - head.mean @ head.weight).astype(np.float32)))
        p, y = head(self.x[rows]), self.y[rows]
        held = head(self.valid[0][:]) if len(self.valid[1]) else None
        valid = (math.nan, math.nan)
        if held is not None:
            valid = cross_entropy(held, self.valid[1]), float((held.argmax(1) == self.valid[1]).mean())
        accuracy = float((p.argmax(1) == y).mean())
        row = EpochRow(1, cross_entropy(p, y), accuracy, *valid, 0.0, time.perf_counter() - started)
        return Fitted((row,), 1)

    def choose(self, say: Callable[[str], None]) -> Candidate:
        kinds = KINDS if self.config.head == "auto" else [self.config.head]
        found = [Candidate(kind, one, *self.out_of_fold(kind, one)) for kind in kinds for one in KINDS[kind][1]]
        best = max(found, key=lambda one: (one.accuracy, -one.loss))
        say(f"heads, {FOLDS} folds of {len(self.y)} training pictures:")
        for one in found:
            line = f"  {one.kind:8}  strength {one.strength:<6g}  {100 * one.accuracy:6.2f} %  loss {one.loss:.3f}"
            say(f"{line}{'  chosen' if one is best else ''}")
        return best

    def out_of_fold(self, kind: str, strength: float) -> tuple[float, float]:
        """(accuracy, cross-entropy). Rows of a class are dealt out one by one, in random order."""
        order = np.random.default_rng(self.seed).permutation(len(self.y))
        order = order[np.argsort(self.y[order], kind="stable")]
        fold = np.empty(len(self.y), int)
        fold[order] = np.arange(len(self.y)) % FOLDS
        p = np.empty((len(self.y), self.class_count))
        for number in range(FOLDS):
            held_out = fold == number
            p[held_out] = self.solve(np.flatnonzero(~held_out), kind, strength)(self.x[held_out])
        return float((p.argmax(1) == self.y).mean()), cross_entropy(p, self.y)

    def solve(self, rows: np.ndarray, kind: str, strength: float) -> LinearHead | RidgeHead | ShrinkageHead:
        """On all views of the rows."""
        count = len(self.y)
        places = np.concatenate([rows + view * count for view in range(len(self.views) // count)])
        return KINDS[kind][0](self.views[places], self.y[places % count], self.class_count, strength)

    @contextlib.contextmanager
    def weights_kept(self) -> Iterator[None]:
        """Other fits in here leave no trace in the network."""
        now = [parameter.asnumpy().copy() for parameter in self.network.trainable_params()]
        try:
            yield
        finally:
            for parameter, value in zip(self.network.trainable_params(), now):
                parameter.set_data(ms.Tensor(value))
