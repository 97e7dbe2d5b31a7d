"""The blocks of the backbone behind a cut and the head, as a network for the Trainer that begins at the cut.

BatchNorm is folded into the convolutions, so that its statistics cannot move. Where maps are small, on the CPU, all is
matrix products, in two thirds of the time of MindSpore's convolutions and their gradients: activations lie as
(C, B, pixels), a 1x1 convolution is one product, and a depthwise 3x3 is one product a channel with a matrix
(pixels, pixels') that holds its nine weights wherever they meet. What is exported is the plain network.

Letters: B pictures a batch, H x W pixels of a map, H' x W' behind a stride, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from finetune.config import TailConfig, TrainConfig
from finetune.training.networks import Head
from finetune.training.optimizers import AdamW
from pretrained.fold import Block, Convolution, convolution_cells

LARGEST_SIDE = 14  # of a map whose depthwise convolutions are matrices: 196 x 196 a channel
TAPS = 9


class Tail(nn.Cell):
    """What stands in front of the first of the blocks, (B, C, H, W) of any float type -> logits (B, classes)."""

    def __init__(
        self,
        blocks: Sequence[Block],
        size: tuple[int, int],
        pad_mode: str,
        head: Head,
        beside_last: Sequence[int] = (),
    ):
        """`size`: H, W of the activations in front of the first block; `beside_last`: behind how many of the blocks
        stand maps that the head sees pooled, before those of the last; behind 0 of them are the activations."""
        super().__init__(auto_prefix=False)
        self.beside_last = tuple(beside_last)
        self.folded, self.head = list(blocks), head
        quick = ms.get_context("device_target") == "CPU"
        cells, self.residual, self.convolved = [], [], 0
        for block in blocks:
            as_products = quick and max(size) <= LARGEST_SIDE
            self.convolved += not as_products
            layers = []
            for convolution in block.convolutions:
                if as_products:
                    layers.append(product_cell(convolution, size, pad_mode))
                else:
                    layers += convolution_cells(convolution, pad_mode)
                size = tuple(-(-side // convolution.stride) for side in size)
            cells.append(nn.SequentialCell(layers))
            self.residual.append(block.residual)
        self.blocks = nn.CellList(cells)

    def construct(self, x):
        x = x.astype(ms.float32)
        features = (x.mean((2, 3)),) if 0 in self.beside_last else ()
        for i in range(self.convolved):
            x = x + self.blocks[i](x) if self.residual[i] else self.blocks[i](x)
            if i + 1 in self.beside_last:
                features += (x.mean((2, 3)),)
        batch, channels, height, width = x.shape
        x = x.transpose(1, 0, 2, 3).reshape(channels, batch, height * width)
        for i in range(self.convolved, len(self.residual)):
            x = x + self.blocks[i](x) if self.residual[i] else self.blocks[i](x)
            if i + 1 in self.beside_last:
                features += (x.mean(2).T,)
        return self.head(ops.concat((*features, x.mean(2).T), 1) if features else x.mean(2).T)

    def trained(self) -> list[Block]:
        """The blocks with the weights that they have now."""
        blocks = []
        for block, cell in zip(self.folded, self.blocks):
            layers = [layer for layer in cell if hasattr(layer, "weight")]
            convolutions = tuple(
                replace(
                    convolution,
                    weight=layer.weight.asnumpy().reshape(convolution.weight.shape).copy(),
                    bias=layer.bias.asnumpy().copy(),
                )
                for convolution, layer in zip(block.convolutions, layers)
            )
            blocks.append(replace(block, convolutions=convolutions))
        return blocks


def tail_training(config: TrainConfig) -> TrainConfig:
    """The second training in the terms of the first. It is never stopped early: its rate falls to 0 at the end, and
    the last weights are kept."""
    tail = config.tail
    return TrainConfig(
        epochs=tail.epochs,
        batch_size=tail.batch_size,
        learning_rate=tail.learning_rate,
        warmup_epochs=tail.warmup * tail.epochs,
        weight_decay=tail.weight_decay,
        l2=0.0,
        label_smoothing=tail.label_smoothing,
        class_weights=config.class_weights,
        sampling=config.sampling,
        patience=0,
    )


def tail_optimizer(network: Tail, config: TrainConfig, rates: np.ndarray, tail: TailConfig) -> AdamW:
    """The head learns faster than the blocks."""
    head = [parameter.name for parameter in network.head.trainable_params()]
    parameters = network.trainable_params()
    faster = tail.head_learning_rate / tail.learning_rate
    factors = [faster if parameter.name in head else 1.0 for parameter in parameters]
    return AdamW(parameters, factors, config.weight_decay, rates)


def product_cell(convolution: Convolution, size: tuple[int, int], pad_mode: str) -> nn.Cell:
    return Depthwise(convolution, size, pad_mode) if convolution.group > 1 else Pointwise(convolution)


class Pointwise(nn.Cell):
    """(C, B, pixels) -> (C', B, pixels)."""

    def __init__(self, convolution: Convolution):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(convolution.weight[:, :, 0, 0]), name="weight")
        self.bias = ms.Parameter(ms.Tensor(convolution.bias), name="bias")
        self.relu6 = convolution.relu6

    def construct(self, x):
        channels, batch, pixels = x.shape
        x = ops.matmul(self.weight, x.reshape(channels, batch * pixels)).reshape(-1, batch, pixels)
        x = x + self.bias.reshape(-1, 1, 1)
        return ops.relu6(x) if self.relu6 else x


class Depthwise(nn.Cell):
    """(C, B, H * W) -> (C, B, H' * W')."""

    def __init__(self, convolution: Convolution, size: tuple[int, int], pad_mode: str):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(convolution.weight.reshape(-1, TAPS)), name="weight")
        self.bias = ms.Parameter(ms.Tensor(convolution.bias), name="bias")
        places = meetings(size, convolution.stride, pad_mode)
        self.places, self.shape = ms.Tensor(places.reshape(TAPS, -1)), (-1, *places.shape[1:])

    def construct(self, x):
        matrices = ops.matmul(self.weight, self.places).reshape(self.shape)
        return ops.relu6(ops.bmm(x, matrices) + self.bias.reshape(-1, 1, 1))


def meetings(size: tuple[int, int], stride: int, pad_mode: str) -> np.ndarray:
    """float32 (9, H * W, H' * W'): 1 where a tap of a 3x3 kernel leads from a pixel to one behind the convolution."""
    out = [-(-side // stride) for side in size]
    before = [1, 1]
    if pad_mode == "same":  # as TensorFlow: what is odd comes behind
        before = [max((o - 1) * stride + 3 - side, 0) // 2 for o, side in zip(out, size)]
    found = np.zeros((3, 3, *size, *out), np.float32)
    for i, j, row, column in np.ndindex(3, 3, *out):
        y, x = row * stride + i - before[0], column * stride + j - before[1]
        if 0 <= y < size[0] and 0 <= x < size[1]:
            found[i, j, y, x, row, column] = 1
    return found.reshape(TAPS, size[0] * size[1], out[0] * out[1])
