"""One epoch: which rows in which order, how much each weighs, the steps over them, and what came of it."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np

from finetune.metrics import cross_entropy
from finetune.training.predictor import Predictor
from finetune.training.step import TrainSteps
from finetune.workers.share import ALONE, Share
from finetune.workers.total import put_together


def draw_order(y: np.ndarray, sampling: str, rng: np.random.Generator) -> np.ndarray:
    """int (N,), the rows of an epoch: each once, or N draws in which every class is equally likely."""
    if sampling == "each":
        return rng.permutation(len(y))
    chance = 1 / np.bincount(y)[y]
    return rng.choice(len(y), len(y), p=chance / chance.sum())


def class_weights(labels: np.ndarray, class_count: int, kind: str) -> np.ndarray:
    """float32 (C,): all 1, or "balanced": N / (C * count), so that each class weighs the same."""
    if kind == "none":
        return np.ones(class_count, np.float32)
    counts = np.bincount(labels, minlength=class_count)
    return (len(labels) / (class_count * np.maximum(counts, 1))).astype(np.float32)


def train_rows(
    train_steps: TrainSteps,
    device_x,
    places: np.ndarray,
    y,
    row_weights,
    batch_size: int,
    steps_a_call: int,
    share: Share = ALONE,
) -> tuple[float, float, float]:
    """The rows of `device_x` at `places` (N,) once, with labels and weights (N,). Returns the sums of the losses, of
    the weights and of the rows that were classified right.

    A batch of `batch_size` rows is that of all workers together; this one takes its `share` of each.
    """
    count = len(places)
    steps = math.ceil(count / batch_size)
    shape = math.ceil(steps / steps_a_call) * steps_a_call, batch_size
    rows, targets, shares = np.zeros(shape, np.int32), np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    rows.flat[:count], targets.flat[:count], shares.flat[:count] = places, y, row_weights
    weights = shares.sum(1)
    shares[:steps] /= weights[:steps, None]
    rows, targets, shares = (share.of_batches(*one) for one in ((rows, 0), (targets, -1), (shares, 0)))

    sums = []
    for first in range(0, steps, steps_a_call):
        batches = (ms.Tensor(values[first : first + steps_a_call]) for values in (rows, targets, shares, weights))
        real = ms.Tensor(min(steps_a_call, steps - first), ms.int32)
        sums.append(train_steps(device_x, *batches, real))
    loss_sum = sum(float(loss.asnumpy()) for loss, _ in sums)
    correct_sum = sum(float(correct.asnumpy()) for _, correct in sums)
    return loss_sum, float(weights.sum()), correct_sum


def judge(predictor: Predictor, x: np.ndarray, y: np.ndarray, share: Share = ALONE) -> tuple[float, float]:
    """(cross-entropy, accuracy) on held-out rows, each looked at by one worker; (NaN, NaN) where there are none."""
    if not len(x):
        return math.nan, math.nan
    if len(x) < 2 * share.workers or share == ALONE:
        probabilities = predictor(x)
    else:
        rows = share.of_rows(len(x))
        probabilities = put_together(predictor(x[rows]), rows, len(x))
    return cross_entropy(probabilities, y), float((probabilities.argmax(1) == y).mean())
