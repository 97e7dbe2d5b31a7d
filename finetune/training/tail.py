"""The blocks of the backbone behind a cut and the head, as a network for the Trainer that begins at the cut; in front
of the first block that are the pictures.

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

from datasets.image import ImageSpec, mean_and_std
from finetune.config import TailConfig, TrainConfig
from finetune.layers.compiled import TAPS, TOP, Kernels, layer_of, load_kernels, zeros_before
from finetune.training.networks import Head
from finetune.training.optimizers import AdamW
from pretrained.fold import Block, Convolution, convolution_cells, fold
from pretrained.weights import Backbone

LARGEST_SIDE = 14  # of a map whose depthwise convolutions are matrices: 196 x 196 a channel


class Tail(nn.Cell):
    """What stands in front of the first of the blocks, (B, C, H, W) of any float type -> logits (B, classes)."""

    def __init__(
        self,
        blocks: Sequence[Block],
        size: tuple[int, int],
        pad_mode: str,
        head: Head,
        beside_last: Sequence[int] = (),
        image: ImageSpec | None = None,
        kernels: Kernels | None = None,
    ):
        """`size`: H, W of the activations in front of the first block; `beside_last`: behind how many of the blocks
        stand maps that the head sees pooled, before those of the last; behind 0 of them are the activations. With
        `image` they are pictures (B, H, W, 3) in levels 0..255 of any type, which are normalised first. `kernels`
        compute the blocks on large maps, and bias and ReLU6 behind the products of the others."""
        super().__init__(auto_prefix=False)
        self.beside_last = tuple(beside_last)
        self.levels = None if image is None else tuple(map(ms.Tensor, mean_and_std(image)))
        self.folded, self.head = list(blocks), head
        quick = on_cpu()
        cells, self.residual, self.convolved = [], [], 0
        for block in blocks:
            as_products = quick and max(size) <= LARGEST_SIDE
            self.convolved += not as_products
            layers = []
            for convolution in block.convolutions:
                if as_products:
                    layers.append(product_cell(convolution, size, pad_mode, kernels))
                elif kernels:
                    layers.append(layer_of(convolution, size, pad_mode, kernels))
                else:
                    layers += convolution_cells(convolution, pad_mode)
                size = tuple(-(-side // convolution.stride) for side in size)
            cells.append(nn.SequentialCell(layers))
            self.residual.append(block.residual)
        self.blocks = nn.CellList(cells)
        self.by_kernels = kernels is not None and self.convolved > 0

    def construct(self, x):
        x = x.astype(ms.float32)
        if self.levels is not None:
            x = ((x - self.levels[0]) / self.levels[1]).transpose(0, 3, 1, 2)
        features = (x.mean((2, 3)),) if 0 in self.beside_last else ()
        rows_last = self.by_kernels and self.training
        if rows_last:
            x = x.transpose(1, 2, 3, 0)
        for i in range(self.convolved):
            x = x + self.blocks[i](x) if self.residual[i] else self.blocks[i](x)
            if i + 1 in self.beside_last:
                features += (x.mean((1, 2)).T if rows_last else x.mean((2, 3)),)
        if rows_last:
            channels, height, width, batch = x.shape
            x = x.reshape(channels, height * width, batch).transpose(0, 2, 1)
        else:
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


def tail_of(backbone: Backbone, cut: int, shape: tuple[int, ...], head: Head) -> Tail:
    """For rows of `shape` in front of block `cut`: (N, C, H, W), in front of block 0 (N, H, W, 3)."""
    blocks, record = fold(backbone.network)[cut:], backbone.record
    image, size = (record.image, shape[1:3]) if cut == 0 else (None, shape[2:])
    beside_last = [number + 1 - cut for number in record.beside_last]
    return Tail(blocks, size, record.pad_mode, head, beside_last, image, load_kernels() if on_cpu() else None)


def on_cpu() -> bool:
    return ms.get_context("device_target") == "CPU"


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


def product_cell(convolution: Convolution, size: tuple[int, int], pad_mode: str, kernels: Kernels | None) -> nn.Cell:
    if convolution.group > 1:
        return DepthwiseProduct(convolution, size, pad_mode, kernels)
    return PointwiseProduct(convolution, kernels)


class Product(nn.Cell):
    """A convolution as a product; bias and ReLU6 behind it are one pass in training, where there are kernels."""

    def __init__(self, convolution: Convolution, weight: np.ndarray, kernels: Kernels | None):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(weight), name="weight")
        self.bias = ms.Parameter(ms.Tensor(convolution.bias), name="bias")
        self.relu6 = convolution.relu6
        self.top = ms.Tensor(np.array([TOP if self.relu6 else 0], np.float32))
        self.add_and_clip = kernels.bias if kernels else None

    def activated(self, x):
        """Of a product (C, M)."""
        if self.training and self.add_and_clip is not None:
            return self.add_and_clip(x, self.bias, self.top)
        x = x + self.bias.reshape(-1, 1)
        return ops.relu6(x) if self.relu6 else x


class PointwiseProduct(Product):
    """(C, B, pixels) -> (C', B, pixels)."""

    def __init__(self, convolution: Convolution, kernels: Kernels | None):
        super().__init__(convolution, convolution.weight[:, :, 0, 0], kernels)

    def construct(self, x):
        channels, batch, pixels = x.shape
        x = ops.matmul(self.weight, x.reshape(channels, batch * pixels))
        return self.activated(x).reshape(-1, batch, pixels)


class DepthwiseProduct(Product):
    """(C, B, H * W) -> (C, B, H' * W')."""

    def __init__(self, convolution: Convolution, size: tuple[int, int], pad_mode: str, kernels: Kernels | None):
        super().__init__(convolution, convolution.weight.reshape(-1, TAPS), kernels)
        places = meetings(size, convolution.stride, pad_mode)
        self.places, self.shape = ms.Tensor(places.reshape(TAPS, -1)), (-1, *places.shape[1:])

    def construct(self, x):
        matrices = ops.matmul(self.weight, self.places).reshape(self.shape)
        x = ops.bmm(x, matrices)
        channels, batch, pixels = x.shape
        return self.activated(x.reshape(channels, batch * pixels)).reshape(channels, batch, pixels)


def meetings(size: tuple[int, int], stride: int, pad_mode: str) -> np.ndarray:
    """float32 (9, H * W, H' * W'): 1 where a tap of a 3x3 kernel leads from a pixel to one behind the convolution."""
    out = [-(-side // stride) for side in size]
    before = zeros_before(size, stride, pad_mode)
    found = np.zeros((3, 3, *size, *out), np.float32)
    for i, j, row, column in np.ndindex(3, 3, *out):
        y, x = row * stride + i - before[0], column * stride + j - before[1]
        if 0 <= y < size[0] and 0 <= x < size[1]:
            found[i, j, y, x, row, column] = 1
    return found.reshape(TAPS, size[0] * size[1], out[0] * out[1])
