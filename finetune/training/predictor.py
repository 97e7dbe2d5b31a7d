"""A network as a function of arrays: training, evaluation and export all ask it in the same way."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn

from finetune.training.networks import Probabilities


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
