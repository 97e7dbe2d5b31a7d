"""Several networks of one recipe, each from a seed of its own, as one: B. Lakshminarayanan et al., "Simple and Scalable
Predictive Uncertainty Estimation using Deep Ensembles", 2017.

What is averaged are the probabilities, as there: each member has one vote, and where they disagree the mean is unsure.
A mean of logits is a product of probabilities; a member that gives a class next to nothing would have a veto.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from finetune.config import TrainConfig
from finetune.training.predictor import Predictor
from finetune.training.step import Values
from finetune.training.trainer import Fitted, Trainer

LEAST = 1e-30  # of a probability, which has a logarithm


class Ensemble(nn.Cell):
    """Pictures or features (B, ...) -> logits (B, C) whose softmax is the mean of the members' probabilities."""

    def __init__(self, members: list[nn.Cell]):
        super().__init__()
        self.members = nn.CellList(members)
        self.softmax = nn.Softmax(axis=-1)
        if all(hasattr(member, "multiply_adds") for member in members):  # not of heads, which have as many as weights
            self.multiply_adds = sum(member.multiply_adds for member in members)

    def construct(self, x):
        total = 0
        for member in self.members:
            total = total + self.softmax(member(x))
        return ops.log(ops.maximum(total / len(self.members), LEAST))


def assembled(make: Callable[[int], nn.Cell], seed: int, count: int) -> nn.Cell:
    """What `make` gives for a seed, or the ensemble of what it gives for `count` of them, from this one on."""
    return make(seed) if count == 1 else Ensemble([make(seed + number) for number in range(count)])


class EnsembleTrainer:
    """A `Trainer` for an ensemble: its members learn one after the other, each as it would alone.

    Only the first has a graph that is compiled; the others lend it their weights. With dropout they also share its
    generator, which goes on from one to the next.
    """

    def __init__(self, network: Ensemble, train, valid, config: TrainConfig, class_count: int, seed: int, **how):
        self.network, self.seed, self.config = network, seed, config
        self.trainer = Trainer(network.members[0], train, valid, config, class_count, seed, **how)
        self.x, self.y, self.valid = self.trainer.x, self.trainer.y, valid
        self.predictor = Predictor(network)
        self.weights = Values(network.trainable_params())
        self.starts = [values_of(member) for member in network.members]

    def fit(self, rows: np.ndarray | None = None, on_epoch: Callable[[str], None] = print) -> Fitted:
        """As `Trainer.fit`; the epochs of all members in one row, counted on."""
        fitted, found = None, []
        for number, start in enumerate(self.starts):
            on_epoch(f"member {number + 1} of {len(self.starts)}")
            self.trainer.start, self.trainer.seed = start, self.seed + number
            one = self.trainer.fit(rows, on_epoch)
            fitted = fitted.followed_by(one) if fitted else one
            found += self.trainer.weights.get()
        self.weights(*found)
        return fitted


def values_of(network: nn.Cell) -> tuple[ms.Tensor, ...]:
    return Values(network.trainable_params()).get()


def make_trainer(network: nn.Cell, *rest, **how) -> Trainer | EnsembleTrainer:
    """The trainer of a network, alone or assembled; the rest as `Trainer` takes it."""
    return (EnsembleTrainer if isinstance(network, Ensemble) else Trainer)(network, *rest, **how)
