"""What is compiled of a training: the loss, its gradients and the optimizer, for one batch and for many in a row; and
weights that are set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from finetune.config import TrainConfig
from finetune.training.optimizers import decayed
from finetune.training.prune import Pruning
from finetune.workers.share import ALONE, Share
from finetune.workers.total import Total


class TrainStep(nn.Cell):
    """Loss, gradients and one optimizer step for the rows (B,) of x (N, ...).

    targets (B,) are their classes, -1 for a row that only fills up the batch; shares (B,) are the weights of the rows
    in the loss, which sum to 1. NumPy works them out beforehand: a step of a head is about forty small kernels, whose
    number makes its time. With many workers, each has its rows of the batch, and all take the same step.
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Optimizer,
        config: TrainConfig,
        pruning: Pruning | None = None,
        share: Share = ALONE,
    ):
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.label_smoothing = config.label_smoothing
        self.cross_entropy = ops.SoftmaxCrossEntropyWithLogits()  # one kernel; ops.cross_entropy comes to about 50
        self.half_square_sum = ops.L2Loss()
        self.argmax = ops.Argmax(axis=1, output_type=ms.int32)
        self.l1, self.l2 = config.l1 / share.workers, config.l2 / share.workers  # penalties are summed, too
        self.penalised = ms.ParameterTuple(decayed(network)) if config.l1 or config.l2 else ()
        self.pruned, self.masks = (pruning.weights, pruning.masks) if pruning else ((), ())
        self.gradients = ms.value_and_grad(self.loss, None, optimizer.parameters, has_aux=True)
        self.total = Total([p.shape for p in optimizer.parameters]) if share.workers > 1 else None

    def loss(self, x, rows, targets, shares):
        logits = self.network(ops.gather(x, rows, 0))
        classes = logits.shape[1]
        rest = self.label_smoothing / classes
        wanted = ops.one_hot(targets, classes, ms.Tensor(1 - self.label_smoothing + rest), ms.Tensor(rest))
        each, _ = self.cross_entropy(logits, wanted)
        loss = (each * shares).sum()
        for parameter in self.penalised:
            if self.l1:
                loss = loss + self.l1 * parameter.abs().sum()
            if self.l2:
                loss = loss + 2 * self.l2 * self.half_square_sum(parameter)
        correct = (self.argmax(logits) == targets).astype(ms.float32).sum()
        return loss, correct

    def construct(self, x, rows, targets, shares):
        (loss, correct), gradients = self.gradients(x, rows, targets, shares)
        if self.total is not None:
            loss, correct, gradients = self.total(loss, correct, gradients)
        self.optimizer(gradients)
        for i, mask in enumerate(self.masks):
            ops.assign(self.pruned[i], self.pruned[i] * mask)
        return loss, correct


class TrainSteps(nn.Cell):
    """TrainStep for the first `count` of the batches rows, targets, shares (S, B).

    Returns the sum of the losses, each times its batch's `weights` (S,), and how many rows were classified right.
    """

    def __init__(self, step: TrainStep):
        super().__init__(auto_prefix=False)
        self.step = step

    def construct(self, x, rows, targets, shares, weights, count):
        loss_sum, correct_sum = ms.Tensor(0.0, ms.float32), ms.Tensor(0.0, ms.float32)
        s = ms.Tensor(0, ms.int32)
        while s < count:  # ops.gather, because rows[s] would first look whether s is negative
            batch = ops.gather(rows, s, 0), ops.gather(targets, s, 0), ops.gather(shares, s, 0)
            loss, correct = self.step(x, *batch)
            loss_sum = loss_sum + loss * ops.gather(weights, s, 0)  # += would write into the constants of the graph
            correct_sum = correct_sum + correct
            s = s + 1
        return loss_sum, correct_sum


class Values(nn.Cell):
    """The values of some parameters, read and set. `Parameter.set_data` does not reach a compiled graph with a loop.

    The values come one by one: those of a tuple would be constants of the graph, and new ones a new compilation.
    """

    def __init__(self, parameters: Sequence[ms.Parameter]):
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)

    def construct(self, *values):
        for parameter, value in zip(self.parameters, values):
            ops.assign(parameter, value)
        return values[0]

    def get(self) -> tuple[ms.Tensor, ...]:
        return tuple(ms.Tensor(parameter.asnumpy().copy()) for parameter in self.parameters)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What is set in here leaves no trace."""
        now = self.get()
        try:
            yield
        finally:
            self(*now)


def arrays(values: Sequence[ms.Tensor]) -> tuple[np.ndarray, ...]:
    return tuple(value.asnumpy() for value in values)
