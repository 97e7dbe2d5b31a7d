"""Epochs over rows that stay in the store, because they are more than memory should hold.

A window of rows at a time is read, by a thread, while the network learns from the one before. Rows are mixed in two
steps: blocks that lie together on the disk in random order, and the rows of the hundreds of blocks in a window. The
graph is the one for rows in memory: a window is all it ever sees.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mindspore as ms
import numpy as np

from finetune.storage.rows import StoredRows
from finetune.training.epoch import train_rows
from finetune.training.step import TrainSteps
from finetune.workers.share import ALONE, Share

WINDOW_BYTES = 128 << 20  # three are held: one that is read, one that is trained on, and its copy in MindSpore
BLOCK_ROWS = 64  # of pooled features 320 KB: few enough to mix well, enough to read at the speed of a disk


class Windows:
    """Of all rows of x (V * N, ...)."""

    def __init__(self, x: StoredRows, batch_size: int, steps_a_call: int, share: Share = ALONE):
        self.x, self.batch_size, self.steps_a_call, self.share = x, batch_size, steps_a_call, share
        a_call = batch_size * steps_a_call  # whole calls: only the last batch of an epoch is filled up
        self.rows = a_call * max(1, WINDOW_BYTES * len(x) // x.nbytes // a_call)

    def draw_order(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The rows (n,) of an epoch, each once. Blocks are of neighbours by number, which lie together on the disk or
        nearly so; where they lie would change with each merge, and with it what a seed gives."""
        in_order = np.sort(rows)
        count = -(-len(rows) // BLOCK_ROWS)
        order = np.arange(count * BLOCK_ROWS).reshape(count, BLOCK_ROWS)[rng.permutation(count)].ravel()
        order = in_order[order[order < len(rows)]]
        for start in range(0, len(order), self.rows):
            rng.shuffle(order[start : start + self.rows])
        return order

    def train_rows(self, train_steps: TrainSteps, places: np.ndarray, y, row_weights) -> tuple[float, float, float]:
        """As `finetune.training.epoch.train_rows`, of rows on the disk."""
        windows = [slice(start, start + self.rows) for start in range(0, len(places), self.rows)]
        sums = np.zeros(3)
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self.read, places[windows[0]])
            for window, after in zip(windows, [*windows[1:], None]):
                x = ms.Tensor(following.result())
                if after:
                    following = reader.submit(self.read, places[after])
                count = len(places[window])
                sums += train_rows(
                    *(train_steps, x, np.arange(count), y[window], row_weights[window]),
                    *(self.batch_size, self.steps_a_call, self.share),
                )
        return tuple(sums.tolist())

    def read(self, places: np.ndarray) -> np.ndarray:
        """(rows of a window, ...): always as many, because another shape would be another graph."""
        found = np.zeros((self.rows, *self.x.shape[1:]), self.x.dtype)
        found[: len(places)] = self.x[places]
        return found
