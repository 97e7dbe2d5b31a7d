"""Optimizers, their learning rates step by step, and which of them has which epochs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import mindspore as ms
import numpy as np
from mindspore import nn

from finetune.config import TrainConfig


def phases(config: TrainConfig) -> list[TrainConfig]:
    """The whole training, or its two parts, each with its own optimizer, learning rate and number of epochs."""
    second = min(round(config.second_part * config.epochs), config.epochs - 1)
    if config.second_optimizer is None or not second:
        return [config]
    return [
        replace(config, epochs=config.epochs - second),
        replace(
            config,
            epochs=second,
            optimizer=config.second_optimizer,
            learning_rate=config.second_learning_rate,
            warmup_epochs=0.0,
        ),
    ]


def learning_rates(config: TrainConfig, steps_per_epoch: int) -> np.ndarray:
    """float32 (steps,): linear warm-up, then a cosine to 0 (Loshchilov & Hutter, "SGDR", 2017)."""
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    step = np.arange(total)
    rising = (step + 1) / max(warmup, 1)
    falling = 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))
    return (config.learning_rate * np.where(step < warmup, rising, falling)).astype(np.float32)


def make_optimizer(network: nn.Cell, config: TrainConfig, rates: np.ndarray) -> nn.Optimizer:
    """Weight decay acts on weight matrices and kernels, not on biases."""
    weights = decayed(network)
    rest = [p for p in network.trainable_params() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": rest}]
    schedule = [float(rate) for rate in rates]
    make = {
        "sgd": nn.SGD,
        "momentum": partial(nn.Momentum, momentum=config.momentum),
        "adam": nn.Adam,
        "rmsprop": nn.RMSProp,
        "adadelta": nn.Adadelta,
        "adagrad": nn.Adagrad,
    }[config.optimizer]
    return make(groups, learning_rate=schedule)


def decayed(network: nn.Cell) -> list[ms.Parameter]:
    """The parameters that weight decay and the L1 and L2 penalties act on."""
    return [parameter for parameter in network.trainable_params() if parameter.ndim >= 2]
