"""The backbone as plain arrays, each BatchNorm folded into the convolution before it.

In inference BatchNorm is a factor and an offset a channel, so the folded network computes the same
numbers with fewer operations. Writers for other engines start from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from pretrained.mobilenet_v2 import ConvBNReLU, MobileNetV2, mean_of_both, with_mirror_images


@dataclass(frozen=True)
class Convolution:
    weight: np.ndarray  # float32 (c_out, c_in / group, k, k)
    bias: np.ndarray  # float32 (c_out,)
    stride: int
    group: int
    relu6: bool


@dataclass(frozen=True)
class Block:
    """Convolutions in order; `residual` adds the input of the first to the output of the last."""

    convolutions: tuple[Convolution, ...]
    residual: bool


def fold(network: MobileNetV2) -> list[Block]:
    """The blocks of the network in order; what follows them is the mean over the pixels."""
    blocks = []
    for layer in network.features:
        if isinstance(layer, ConvBNReLU):
            blocks.append(Block((_conv_bn_relu(layer),), residual=False))
        else:
            *expanded, conv, norm = layer.conv
            convolutions = (*map(_conv_bn_relu, expanded), fold_pair(conv, norm, relu6=False))
            blocks.append(Block(convolutions, layer.residual))
    return blocks


class FoldedMobileNetV2(nn.Cell):
    """The same from the folded arrays, a fifth faster and sooner compiled: features (B, D), or not `pooled`, with the
    first of the blocks only, what stands behind them (B, C, H, W), of the pictures alone."""

    def __init__(
        self,
        blocks: list[Block],
        pad_mode: str,
        pooled: bool = True,
        mirror_mean: bool = False,
        beside_last: tuple[int, ...] = (),
    ):
        super().__init__()
        self.pooled, self.mirror_mean = pooled, mirror_mean and pooled
        self.beside_last = tuple(beside_last) if pooled else ()
        self.blocks = nn.CellList(
            [
                nn.SequentialCell([cell for c in block.convolutions for cell in convolution_cells(c, pad_mode)])
                for block in blocks
            ]
        )
        self.residual = [block.residual for block in blocks]
        self.set_train(False)

    def construct(self, x):
        if self.mirror_mean:
            x = with_mirror_images(x)
        maps = ()
        for i, block in enumerate(self.blocks):
            x = x + block(x) if self.residual[i] else block(x)
            if i in self.beside_last:
                maps += (x,)
        if maps:
            x = ops.concat((*maps, x), 1)
        if self.mirror_mean:
            x = mean_of_both(x)
        return ops.mean(x, (2, 3)) if self.pooled else x


def convolution_cells(convolution: Convolution, pad_mode: str) -> list[nn.Cell]:
    c_out, c_in_group, kernel_size, _ = convolution.weight.shape
    conv = nn.Conv2d(
        c_in_group * convolution.group,
        c_out,
        kernel_size,
        convolution.stride,
        pad_mode=pad_mode,
        padding=(kernel_size - 1) // 2 if pad_mode == "pad" else 0,
        group=convolution.group,
        has_bias=True,
        weight_init=ms.Tensor(convolution.weight),
        bias_init=ms.Tensor(convolution.bias),
    )
    return [conv, nn.ReLU6()] if convolution.relu6 else [conv]


def _conv_bn_relu(cell: ConvBNReLU) -> Convolution:
    conv, norm, _ = cell.features
    return fold_pair(conv, norm, relu6=True)


def fold_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d, relu6: bool) -> Convolution:
    """Convolution, then (x - mean) / sqrt(variance + eps) * gamma + beta, as one convolution with a bias."""
    gamma, beta, mean, variance = (
        parameter.asnumpy().astype(np.float64)
        for parameter in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    factor = gamma / np.sqrt(variance + norm.eps)
    weight = conv.weight.asnumpy() * factor[:, None, None, None]
    bias = beta - mean * factor
    return Convolution(weight.astype(np.float32), bias.astype(np.float32), conv.stride[0], conv.group, relu6)


def unfold(network: MobileNetV2, blocks: list[Block], first: int) -> None:
    """Give the network's features from number `first` on the weights of folded blocks, and a BatchNorm that changes
    nothing: the inverse of `fold`."""
    for layer, block in zip(list(network.features)[first:], blocks):
        for (conv, norm), convolution in zip(_pairs(layer), block.convolutions):
            conv.weight.set_data(ms.Tensor(convolution.weight))
            ones = np.ones_like(convolution.bias)
            norm.gamma.set_data(ms.Tensor(ones))
            norm.beta.set_data(ms.Tensor(convolution.bias))
            norm.moving_mean.set_data(ms.Tensor(0 * ones))
            norm.moving_variance.set_data(ms.Tensor(((1 - norm.eps) * ones).astype(np.float32)))


def _pairs(layer: nn.Cell) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions of a block, each with its BatchNorm."""
    if isinstance(layer, ConvBNReLU):
        return [(layer.features[0], layer.features[1])]
    *expanded, conv, norm = layer.conv
    return [*((cell.features[0], cell.features[1]) for cell in expanded), (conv, norm)]


def multiply_adds(blocks: list[Block], size: tuple[int, int]) -> list[int]:
    """Of each block, for one picture of `size` H, W in front of the first."""
    counts = []
    for block in blocks:
        counts.append(0)
        for convolution in block.convolutions:
            size = tuple(-(-side // convolution.stride) for side in size)
            counts[-1] += convolution.weight.size * size[0] * size[1]
    return counts
