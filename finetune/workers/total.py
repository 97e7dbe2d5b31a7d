"""Sums over all workers, the same bytes for each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets.base import MachineFault
from finetune.workers.share import Share


class Total(nn.Cell):
    """Loss, number of right answers, and gradients -> their sums over all workers.

    In one message a step: each has its price, and several could pass each other on their way.
    """

    def __init__(self, shapes: list[tuple[int, ...]]):
        """`shapes`: of the gradients."""
        super().__init__(auto_prefix=False)
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.sizes = tuple(int(np.prod(shape)) for shape in self.shapes)
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, loss, correct, gradients):
        flat = (loss.reshape(1), correct.reshape(1))
        for gradient in gradients:
            flat = flat + (gradient.reshape(-1),)
        pieces = ops.split(self.all_reduce(ops.concat(flat)), (1, 1, *self.sizes))
        sums = ()
        for i, shape in enumerate(self.shapes):
            sums = sums + (pieces[i + 2].reshape(shape),)
        return pieces[0].reshape(()), pieces[1].reshape(()), sums


def put_together(mine: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """float32 (count, ...) of all workers, each of which has those of its `rows`."""
    whole = np.zeros((count, *mine.shape[1:]), np.float32)
    whole[rows] = mine
    return ops.AllReduce(ops.ReduceOp.SUM)(ms.Tensor(whole)).asnumpy()


def check_same(weights: Sequence[np.ndarray], share: Share) -> None:
    """Every worker must have the same bytes, or what the first one saves was not trained by all.

    Raises:
        MachineFault: some have others.
    """
    digest = hashlib.sha256()
    for values in weights:
        digest.update(np.ascontiguousarray(values).data)
    own = np.frombuffer(digest.digest(), np.uint8).astype(np.float32)  # sums of which are exact
    everybody = put_together(own[None], np.array([share.rank]), share.workers)
    differ = np.flatnonzero((everybody != everybody[0]).any(1)).tolist()
    if differ:
        raise MachineFault(
            f"The weights of worker {differ[0]} are not those of worker 0 after the same steps. Repeat the command; "
            "if it happens again, leave --workers out."
        )
