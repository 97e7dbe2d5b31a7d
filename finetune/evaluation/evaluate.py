"""Predictions and metrics of one network on one set of rows. Before and after are the same call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Dataset
from datasets.files import write_csv
from finetune.metrics import summarise
from finetune.training.predictor import Predictor


@dataclass(frozen=True)
class Evaluation:
    probabilities: np.ndarray  # (N, C) float32
    metrics: dict  # see finetune.metrics.summarise


def evaluate(predictor: Predictor, x: np.ndarray, y: np.ndarray, classes: tuple[str, ...]) -> Evaluation:
    """Evaluate on x (N, ...) float32 with labels y (N,), as they are: not shuffled, nothing dropped."""
    probabilities = predictor(x)
    return Evaluation(probabilities, summarise(probabilities, y, classes))


def write_predictions(
    path: Path,
    dataset: Dataset,
    rows: np.ndarray,
    before: Evaluation,
    after: Evaluation,
    linear: Evaluation | None = None,
) -> None:
    """predictions.csv: a line for each of the evaluated rows (N,) of the data set. `linear`: where blocks were trained,
    the linear head before that."""
    lines = []
    for i, (row, first, last) in enumerate(zip(rows, before.probabilities, after.probabilities)):
        middle = {}
        if linear:
            p = linear.probabilities[i]
            middle = {"head_predicted": dataset.classes[p.argmax()], "head_confidence": f"{p.max():.6f}"}
        lines.append(
            {
                "path": dataset.picture_name(row),
                "true": dataset.classes[dataset.labels[row]],
                "predicted": dataset.classes[last.argmax()],
                "confidence": f"{last.max():.6f}",
                "before_predicted": dataset.classes[first.argmax()],
                "before_confidence": f"{first.max():.6f}",
                **middle,
                **{f"p_{name}": f"{p:.8f}" for name, p in zip(dataset.classes, last)},
            }
        )
    write_csv(path, lines)
