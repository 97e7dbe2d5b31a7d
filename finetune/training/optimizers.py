"""Optimizers, their learning rates step by step, and which of them has which epochs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import mindspore as ms
import numpy as np
from mindspore import nn, ops

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


class AdamW(nn.Cell):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019), and a factor of the learning rate a parameter."""

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, parameters: list[ms.Parameter], factors: list[float], weight_decay: float, rates: np.ndarray):
        """`rates`: float32 (steps,); matrices and kernels decay, biases do not."""
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.factors = tuple(factors)
        self.decays = tuple(weight_decay if parameter.ndim >= 2 else 0.0 for parameter in parameters)
        self.mean = self.parameters.clone("mean", init="zeros")
        self.square = self.parameters.clone("square", init="zeros")
        self.global_step = ms.Parameter(ms.Tensor(0, ms.int32), name="global_step", requires_grad=False)
        self.learning_rate = ms.Parameter(ms.Tensor(rates), name="learning_rate", requires_grad=False)
        self.adam = ops.Adam()

    def construct(self, gradients):
        rate = ops.gather(self.learning_rate, self.global_step, 0)
        ops.assign_add(self.global_step, ms.Tensor(1, ms.int32))
        step = self.global_step.astype(ms.float32)
        power1, power2 = ops.pow(self.BETAS[0], step), ops.pow(self.BETAS[1], step)
        for i, parameter in enumerate(self.parameters):
            here = rate * self.factors[i]
            if self.decays[i]:
                ops.assign(parameter, parameter * (1 - here * self.decays[i]))
            self.adam(
                *(parameter, self.mean[i], self.square[i], power1, power2, here),
                *(*self.BETAS, self.EPSILON, gradients[i]),
            )
        return step
