"""Predictions and metrics of one network on one set of rows. Before and after are the same call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from datasets.base import Dataset
from finetune.metrics import summarise
from finetune.networks import Probabilities
from finetune.run_folder import write_csv


@dataclass(frozen=True)
class Evaluation:
    probabilities: np.ndarray  # (N, C) float32
    metrics: dict  # see finetune.metrics.summarise


class Predictor:
    """A network as a function: float32 (N, ...) -> probabilities (N, C), in order, every row once."""

    def __init__(self, network: nn.Cell, batch_size: int = 1024):
        self.cell = Probabilities(network)
        self.batch_size = batch_size
        self.shape: tuple[int, ...] | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.cell.set_train(False)
        if self.shape != x.shape[1:]:  # one graph for every number of rows
            self.shape = x.shape[1:]
            self.cell.set_inputs(ms.Tensor(shape=[None, *self.shape], dtype=ms.float32))
        pieces = [
            self.cell(ms.Tensor(x[start : start + self.batch_size])).asnumpy()
            for start in range(0, len(x), self.batch_size)
        ]
        return np.concatenate(pieces)


def evaluate(predictor: Predictor, x: np.ndarray, y: np.ndarray, classes: tuple[str, ...]) -> Evaluation:
    """Evaluate on x (N, ...) float32 with labels y (N,), as they are: not shuffled, nothing dropped."""
    probabilities = predictor(x)
    return Evaluation(probabilities, summarise(probabilities, y, classes))


def write_predictions(path: Path, dataset: Dataset, rows: np.ndarray, before: Evaluation, after: Evaluation) -> None:
    """predictions.csv: a line for each of the evaluated rows (N,) of the data set."""
    lines = []
    for row, first, last in zip(rows, before.probabilities, after.probabilities):
        lines.append(
            {
                "path": dataset.picture_name(row),
                "true": dataset.classes[dataset.labels[row]],
                "predicted": dataset.classes[last.argmax()],
                "confidence": f"{last.max():.6f}",
                "before_predicted": dataset.classes[first.argmax()],
                "before_confidence": f"{first.max():.6f}",
                **{f"p_{name}": f"{p:.8f}" for name, p in zip(dataset.classes, last)},
            }
        )
    write_csv(path, lines)
