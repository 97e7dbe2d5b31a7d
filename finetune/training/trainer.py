"""Trainer.fit -> train_rows -> TrainStep: one loop, for a head on features as for a network on pictures.

All rows stay on the device, or a window of them where they are many (`finetune.training.windows`); a
step is told which rows to take. The last batch of an epoch is filled up with rows of weight 0, so that
no row is dropped. One graph is compiled, and it takes many steps a call: a step of a head is shorter
than the way from Python to the graph and back. A second optimizer is a second phase of the same loop.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import mindspore as ms
import numpy as np
from mindspore import nn

from datasets.base import InputError
from finetune.config import TrainConfig
from finetune.features import augment
from finetune.storage.rows import StoredRows
from finetune.training.epoch import class_weights, draw_order, judge, train_rows
from finetune.training.networks import part_dropout
from finetune.training.optimizers import learning_rates, make_optimizer, phases
from finetune.training.predictor import Predictor
from finetune.training.prune import Pruning
from finetune.training.step import TrainStep, TrainSteps, Values, arrays
from finetune.training.unfinished import State, Unfinished
from finetune.training.windows import Windows
from finetune.workers.share import ALONE, Share
from finetune.workers.total import check_same

STEPS_A_CALL = 50  # at most; Ctrl-C waits for the end of a call
BATCH_SIZE = 64
# A folder of a few dozen pictures would get a few dozen steps in all. With 20 pictures of cats and dogs, batches of 1
# led to 77 % of the others, one batch an epoch to 71 %; with 60 pictures it was 83 % and 82 %.
STEPS_AN_EPOCH = 20


@dataclass(frozen=True)
class EpochRow:
    """One row of results.csv. Losses are cross-entropies in nats; accuracies are 0..1."""

    epoch: int
    train_loss: float  # with label smoothing and penalties, as it is minimised
    train_accuracy: float
    valid_loss: float  # plain cross-entropy; NaN without validation rows
    valid_accuracy: float
    learning_rate: float  # at the last step
    seconds: float

    to_dict = asdict


@dataclass(frozen=True)
class Fitted:
    """What `Trainer.fit` leaves beside the network, which holds the weights of the best epoch."""

    history: tuple[EpochRow, ...]
    best_epoch: int

    def followed_by(self, other: Fitted) -> Fitted:
        """Both as one training, the epochs counted on; the weights are the other's."""
        before = len(self.history)
        later = tuple(replace(row, epoch=before + row.epoch) for row in other.history)
        return Fitted(self.history + later, before + other.best_epoch)


class Trainer:
    """The training of one network on x (N, ...) float32 and y (N,) int32, compiled once.

    Every `fit` begins at the weights that the network has now.
    """

    def __init__(
        self,
        network: nn.Cell,
        train: tuple[np.ndarray | StoredRows, np.ndarray],
        valid: tuple[np.ndarray | StoredRows, np.ndarray],
        config: TrainConfig,
        class_count: int,
        seed: int,
        make: Callable[[nn.Cell, TrainConfig, np.ndarray], nn.Cell] = make_optimizer,
        share: Share = ALONE,
    ):
        """`train` may hold V views of its rows, x (V * N, ...) view by view: an epoch takes one of each, drawn anew.

        Args:
            make: the optimizer, from the network, a phase of the training and the learning rate of each step.
            share: the rows of each batch that are learnt from here; every worker calls the same, and gets the same.
        """
        self.network, self.valid, self.config, self.seed, self.share = network, valid, config, seed, share
        part_dropout(network, share.rank)
        x, self.y = train
        self.x, self.view_count = plain_view(x, len(self.y)), len(x) // len(self.y)
        self.batch_size = config.batch_size or min(BATCH_SIZE, max(1, len(self.x) // STEPS_AN_EPOCH))
        self.steps_a_call = min(self.steps(len(self.x)), STEPS_A_CALL)  # for fewer rows too: another compiles anew
        self.windows = Windows(x, self.batch_size, self.steps_a_call, share) if isinstance(x, StoredRows) else None
        self.device_x = None if self.windows else ms.Tensor(x)
        self.class_weights = class_weights(self.y, class_count, config.class_weights)
        self.predictor = Predictor(network)
        self.pruning = Pruning(network, config.prune, config.epochs) if config.prune else None
        self.masks = Values(self.pruning.masks if self.pruning else ())
        steps = self.steps(len(self.x))
        self.phases = [Phase(network, phase, steps, make, self.pruning, share) for phase in phases(config)]
        self.weights = Values(network.trainable_params())
        self.start = self.weights.get()

    def steps(self, rows: int) -> int:
        """Steps an epoch."""
        return math.ceil(rows / self.batch_size)

    def fit(
        self,
        rows: np.ndarray | None = None,
        on_epoch: Callable[[str], None] = print,
        unfinished: Unfinished | None = None,
        keep: str = "best",
    ) -> Fitted:
        """Train on `rows`, or on all of them; leave the weights of the best epoch in the network.

        The best epoch is that of the lowest validation loss, or of the lowest training loss where there
        are no validation rows; with `keep` "last" it is the last. `on_epoch` gets a line of text an epoch. With
        `unfinished` it goes on where the same training was stopped, from the last whole epoch, and ends with the same
        bytes.

        Raises:
            InputError: the loss is not a number any more.
        """
        config = self.config
        rows = np.arange(len(self.x)) if rows is None else rows
        row_weights = self.class_weights[self.y]
        rng, augment_rng, view_rng = (
            np.random.default_rng(seed) for seed in (self.seed, [self.seed, 1], [self.seed, 2])
        )
        self.weights(*self.start)

        history, best, best_loss, best_epoch, done = [], None, math.inf, 0, None
        if unfinished:
            digest = self.digest(rows)
            done = unfinished.find(digest)
        if done:
            history, best_loss, best_epoch = [EpochRow(**row) for row in done.history], done.best_loss, done.best_epoch
            best = tuple(map(ms.Tensor, done.best))
            self.weights(*map(ms.Tensor, done.weights))
            for generator, state in zip((rng, augment_rng, view_rng), done.random):
                generator.bit_generator.state = state
            on_epoch(f"going on after epoch {done.epoch}, where {unfinished.used} was stopped")
        for phase, epoch, rate in self.epochs(self.steps(len(rows))):
            if done and epoch <= done.epoch:
                if epoch == done.epoch:
                    phase.state(*map(ms.Tensor, done.optimizer))
                continue
            started = time.perf_counter()
            if self.pruning:
                self.masks(*self.pruning.masks_in(epoch))
            if augment.is_on(config.augment):
                self.device_x = ms.Tensor(augment.augment(self.x, config.augment, augment_rng))
            if self.windows and config.sampling == "each":
                order = self.windows.draw_order(rows, rng)
            else:
                order = rows[draw_order(self.y[rows], config.sampling, rng)]
            places = order
            if self.view_count > 1:
                places = order + len(self.x) * view_rng.integers(self.view_count, size=len(order))
            self.network.set_train(True)
            drawn = places, self.y[order], row_weights[order]
            if self.windows:
                sums = self.windows.train_rows(phase.train_steps, *drawn)
            else:
                how = self.batch_size, self.steps_a_call, self.share
                sums = train_rows(phase.train_steps, self.device_x, *drawn, *how)
            loss, accuracy = sums[0] / sums[1], sums[2] / len(order)
            self.network.set_train(False)
            valid_loss, valid_accuracy = judge(self.predictor, *self.valid, self.share)
            seconds = time.perf_counter() - started
            history.append(EpochRow(epoch, loss, accuracy, valid_loss, valid_accuracy, rate, seconds))
            on_epoch(log_line(history[-1], config.epochs, self.steps(len(rows))))

            judged = valid_loss if len(self.valid[0]) else loss
            if not math.isfinite(loss):
                raise InputError(f"The training loss became {loss} in epoch {epoch}. {lower_what(phase.config)}")
            if self.pruning and not self.pruning.is_final(epoch):
                continue  # not yet what was asked for
            if judged < best_loss or keep == "last":
                best_loss, best_epoch = judged, epoch
                best = self.weights.get()
            elif config.patience and epoch - best_epoch >= config.patience:
                break
            if unfinished and self.share.rank == 0:
                unfinished.write(
                    State(
                        digest,
                        epoch,
                        best_epoch,
                        best_loss,
                        history=[row.to_dict() for row in history],
                        random=[generator.bit_generator.state for generator in (rng, augment_rng, view_rng)],
                        weights=arrays(self.weights.get()),
                        best=arrays(best),
                        optimizer=arrays(phase.state.get()),
                    )
                )
        self.weights(*best)
        if self.share.workers > 1:
            check_same(arrays(best), self.share)
        return Fitted(tuple(history), best_epoch)

    def digest(self, rows: np.ndarray) -> str:
        """Of all that decides what `fit` leaves."""
        found = hashlib.sha256(repr((self.config, self.seed, self.batch_size, self.view_count)).encode())
        x = self.windows.x if self.windows else self.device_x.asnumpy()
        for values in (x, self.y, *self.valid, rows, *arrays(self.start)):
            values = values.keys if isinstance(values, StoredRows) else values  # of their contents
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()

    def epochs(self, steps: int) -> Iterator[tuple[Phase, int, float]]:
        """(phase, epoch from 1, learning rate at its last step)."""
        epoch = 0
        for phase in self.phases:
            rates = phase.begin(steps)
            for last_step in range(steps - 1, len(rates), steps):
                epoch += 1
                yield phase, epoch, float(rates[last_step])


def plain_view(x: np.ndarray | StoredRows, count: int) -> np.ndarray | StoredRows:
    return x.part(np.arange(count)) if isinstance(x, StoredRows) else x[:count]


class Phase:
    """A part of a training that has an optimizer of its own, compiled once for any number of steps up to `steps`."""

    def __init__(
        self,
        network: nn.Cell,
        config: TrainConfig,
        steps: int,
        make: Callable,
        pruning: Pruning | None,
        share: Share,
    ):
        self.config = config
        rates = learning_rates(config, steps)
        optimizer = make(network, config, rates)
        self.train_steps = TrainSteps(TrainStep(network, optimizer, config, pruning, share))
        own = [p for p in optimizer.get_parameters() if not any(p is other for other in network.get_parameters())]
        own.sort(key=lambda p: p.name == "learning_rate")
        self.state = Values(own)
        self.start = self.state.get()

    def begin(self, steps: int) -> np.ndarray:
        """Forget an earlier training. Returns the learning rate of each step; `steps` an epoch."""
        rates = learning_rates(self.config, steps)
        padded = np.zeros(self.start[-1].shape, np.float32)
        padded[: len(rates)] = rates
        self.state(*self.start[:-1], ms.Tensor(padded))
        return rates


def lower_what(config: TrainConfig) -> str:
    """The setting that is farthest above what is usual, by order of magnitude."""
    usual = {"learning_rate": 0.001, "l2": 0.01, "l1": 0.01, "weight_decay": 0.01}
    name = max(usual, key=lambda name: getattr(config, name) / usual[name])
    now = getattr(config, name)
    return f"Lower train.{name} (now {now:g}), for example --set train.{name}={max(now / 10, usual[name]):g}."


def log_line(row: EpochRow, epochs: int, steps: int) -> str:
    milliseconds = 1000 * row.seconds
    return (
        f"epoch[{row.epoch}/{epochs}], iter[{steps}] cost: {milliseconds:.0f} ms, per step time: "
        f"{milliseconds / steps:.2f} ms, avg loss: {row.train_loss:.4f}, acc: {row.valid_accuracy:.4f}, "
        f"train acc: {row.train_accuracy:.4f}"
    )
