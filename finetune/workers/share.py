"""Which rows of a batch a worker takes. Alone, it takes them all.

B rows of a batch, W workers: worker r takes the rows r, r + W, r + 2 W, ... of each batch, so that the batches, their
order and the learning rate are those of one process. What a row weighs in the loss is known before the rows are dealt
out, so that gradients are summed and not averaged over workers: the sum is the gradient of the whole batch, also of
the last one, which is not full.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass

import numpy as np

from datasets.base import InputError

STARTERS = ("MS_ROLE", "RANK_TABLE_FILE", "OMPI_COMM_WORLD_SIZE")  # variables of msrun, rank tables, mpirun
WATCHED = "FINETUNE_ENDS_WITH_STDIN"  # set for processes that `finetune.workers.start` has started


@dataclass(frozen=True)
class Share:
    rank: int = 0  # from 0; the first writes the run folder
    workers: int = 1

    def of_batches(self, values: np.ndarray, fill: float) -> np.ndarray:
        """(S, B) -> (S, B / W rounded up), the columns of this worker; `fill` where there is no row left."""
        steps, size = values.shape
        mine = np.full((steps, -(-size // self.workers)), fill, values.dtype)
        own = values[:, self.rank :: self.workers]
        mine[:, : own.shape[1]] = own
        return mine

    def of_rows(self, count: int) -> np.ndarray:
        """int: the rows of `count` that this worker looks at."""
        return np.arange(self.rank, count, self.workers)


ALONE = Share()


def is_started() -> bool:
    """Whether this is one of many processes."""
    return any(name in os.environ for name in STARTERS)


def end_with_starter() -> None:
    """End this process when the command that has started it is gone, however it went: its end of the pipe closes."""
    if os.environ.get(WATCHED):
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written
    os._exit(1)


def join() -> Share:
    """Meet the other workers that `msrun` has started; the device is chosen. The scheduler waits here for their end.

    Raises:
        InputError: nothing has started them.
    """
    if not is_started():
        raise InputError(
            "--run_distribute true is for a process that msrun has started, and this is none. Give --workers 2 instead."
        )
    from mindspore import communication

    communication.init()  # before get_rank, which would say 0 without a word
    return Share(communication.get_rank(), communication.get_group_size())
