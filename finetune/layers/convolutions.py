"""The convolutions of networks from scratch, by `model.convolution`, each with 2x2 max pooling behind it.

plain      all filters see all channels; depthwise and 1x1 with `model.separable` (Sifre, 2014)
shuffle    grouped, and the channels of the groups mixed (Zhang et al., "ShuffleNet", 2018)
binary     signs times signs, scaled (Rastegari et al., "XNOR-Net", 2016): `finetune.layers.binary`
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets.base import InputError
from finetune.config import ModelConfig
from finetune.layers.binary import BinaryConvolution, FixedPointConvolution

ACTIVATIONS = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
}
POOL = 2


class PooledConvolution(nn.Cell):
    """A convolution with 2x2 max pooling behind it: (B, channels, H, W) -> (B, filters, about H/2, about W/2).

    In training on the CPU the pooling is MindSpore's adaptive one, whose gradient is the quickest, with the same
    result. Of one channel, a grey picture, both are done at once: the maximum of four places that lie side by side is
    the maximum of four convolutions with stride 2, that is of one with four times the filters, each moved within a
    kernel larger by 1. A step of LeNet-5 on MNIST takes 4 ms instead of 11. What is exported is the plain form.
    """

    def __init__(self, convolution: nn.Cell, channels: int, config: ModelConfig):
        super().__init__()
        self.convolution = convolution
        self.pool = nn.MaxPool2d(POOL, POOL)
        self.quick = ms.get_context("device_target") == "CPU"
        self.at_once = channels == 1 and type(convolution) is nn.Conv2d and config.dilation == 1
        self.size = config.kernel
        self.places = ms.Tensor(places(config.kernel))

    def construct(self, x):
        if not (self.training and self.quick):
            return self.pool(self.convolution(x))
        if self.at_once:
            return self.convolve_and_pool(x)
        x = self.convolution(x)
        height, width = x.shape[2] // POOL, x.shape[3] // POOL
        if x.shape[2:] != (POOL * height, POOL * width):
            x = x[:, :, : POOL * height, : POOL * width]
        return ops.adaptive_max_pool2d(x, (height, width))

    def convolve_and_pool(self, x):
        weight, padding = self.convolution.weight, self.convolution.padding
        filters, size = weight.shape[0], self.size + 1
        moved = ops.matmul(weight.reshape(filters, -1), self.places)
        moved = moved.reshape(filters, POOL**2, size, size).transpose(1, 0, 2, 3)
        x = ops.conv2d(x, moved.reshape(-1, 1, size, size), stride=POOL, pad_mode="pad", padding=padding)
        batch, _, height, width = x.shape
        count = filters * height * width
        x = ops.adaptive_max_pool2d(x.reshape(batch, 1, POOL**2, count), (1, count))
        return x.reshape(batch, filters, height, width)


def places(kernel: int) -> np.ndarray:
    """float32 (kernel^2, 4 (kernel + 1)^2): where each weight of a kernel is in the four that are moved by 0 or 1."""
    one = np.zeros((kernel, kernel, POOL, POOL, kernel + 1, kernel + 1), np.float32)
    for row, column, down, right in np.ndindex(kernel, kernel, POOL, POOL):
        one[row, column, down, right, row + down, column + right] = 1
    return one.reshape(kernel**2, -1)


class ShuffleUnit(nn.Cell):
    """1x1 in groups, activation, channel shuffle, depthwise, 1x1 in groups: (B, channels, H, W) -> (B, filters, ...).

    The unit of ShuffleNet. Without the shuffle a filter would only ever see the channels of its own group.
    """

    def __init__(self, first: nn.Cell, depthwise: nn.Cell, last: nn.Cell, groups: int, activation: str):
        super().__init__()
        self.first = first
        self.activation = ACTIVATIONS[activation]()
        self.shuffle = ChannelShuffle(depthwise.in_channels, groups)
        self.depthwise = depthwise
        self.last = last
        self.steps = (self.first, self.activation, self.shuffle, self.depthwise, self.last)

    def construct(self, x):
        for step in self.steps:
            x = step(x)
        return x


class ChannelShuffle(nn.Cell):
    """(B, C, H, W) -> the same channels in another order: as (groups, C / groups), transposed, and flat again."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.order = np.arange(channels).reshape(groups, -1).T.ravel()  # the same, as the channel that each place gets

    def construct(self, x):
        batch, channels, height, width = x.shape
        x = x.reshape(batch, self.groups, channels // self.groups, height, width)
        return x.transpose(0, 2, 1, 3, 4).reshape(batch, channels, height, width)


class Residual(nn.Cell):
    """x + scale * layers(x), (B, ...) -> (B, ...) (He et al., "Deep Residual Learning", 2016).

    `scale` is learnt and begins at 0, so that a deep network begins as a shallow one: what batch normalisation does
    for residual networks, without its statistics (De & Smith, "SkipInit", 2020).
    """

    def __init__(self, layers: list[nn.Cell]):
        super().__init__()
        self.layers = nn.SequentialCell(layers)
        self.scale = ms.Parameter(ms.Tensor(np.zeros(1, np.float32)), name="scale")

    def construct(self, x):
        return x + self.scale * self.layers(x)


def residual_convolutions(channels: int, config: ModelConfig, rng: np.random.Generator) -> Residual:
    """Two convolutions that leave the shape as it is, with an activation between."""
    span = config.dilation * (config.kernel - 1)
    if span % 2:
        raise InputError(
            f"model.residual: a kernel of {config.kernel} changes the size of a map, and nothing could be added to it. "
            "Use an odd model.kernel."
        )
    first, second = (convolution(channels, channels, span // 2, config, rng) for _ in range(2))
    return Residual([first, ACTIVATIONS[config.activation](), second])


def convolution(
    inputs: int, outputs: int, padding: int, config: ModelConfig, rng: np.random.Generator, first: bool = False
) -> nn.Cell:
    """A convolution from N(0, gain / inputs), without bias, of the kind that the config names.

    The `first` of a network is on pixels: it is never binary, and has no groups of channels.

    Raises:
        InputError: the channels cannot be dealt into the groups.
    """
    gain = gain_of(config.activation)

    def layer(inputs: int, outputs: int, kernel: int, group: int, padding: int, dilation: int, kind=nn.Conv2d):
        fan_in = inputs // group * kernel**2
        weights = rng.normal(0, (gain / fan_in) ** 0.5, (outputs, inputs // group, kernel, kernel)).astype(np.float32)
        return kind(
            inputs,
            outputs,
            kernel,
            pad_mode="pad",
            padding=padding,
            dilation=dilation,
            group=group,
            weight_init=ms.Tensor(weights),
        )

    kernel, dilation, groups = config.kernel, config.dilation, config.groups
    if config.separable:
        return nn.SequentialCell(
            layer(inputs, inputs, kernel, inputs, padding, dilation), layer(inputs, outputs, 1, 1, 0, 1)
        )
    if config.convolution == "shuffle" and not first:
        if inputs % groups or outputs % groups:
            raise InputError(
                f"model.convolution shuffle: {inputs} and {outputs} channels cannot be dealt into {groups} groups "
                "alike. Choose model.filters that model.groups divides."
            )
        return ShuffleUnit(
            layer(inputs, outputs, 1, groups, 0, 1),
            layer(outputs, outputs, kernel, outputs, padding, dilation),
            layer(outputs, outputs, 1, groups, 0, 1),
            groups,
            config.activation,
        )
    kind = nn.Conv2d
    if config.convolution == "binary":
        kind = FixedPointConvolution if first else BinaryConvolution
    return layer(inputs, outputs, kernel, 1, padding, dilation, kind)


def gain_of(activation: str) -> float:
    return 1.0 if activation in ("sigmoid", "tanh") else 2.0


def multiply_adds(cell: nn.Cell, size: tuple[int, int]) -> int:
    """Of the convolutions in a cell, in their order, for a map of `size` (H, W) in front of the first."""
    total = 0
    for _, layer in cell.cells_and_names():
        if isinstance(layer, nn.Conv2d):
            lost = layer.dilation[0] * (layer.kernel_size[0] - 1)
            size = [side + 2 * layer.padding - lost for side in size]
            total += layer.weight.size * math.prod(size)
    return total
