"""Layers of signs: M. Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
Networks", 2016. A product of signs is an XNOR of bits, and a weight takes one bit.

    W * I  ~  (sign(W) * sign(I)) . alpha . K     alpha: mean |W| of a filter; K: mean |I| below each place of it

Gradients go straight through a sign where its argument is small: within the root mean square of all arguments, in whose
units they are. The paper has 1 there, and a batch normalisation in front of the sign of inputs that makes it the same.
Its part forward, where the zero lies, is a shift a channel here, which is learnt.

A sign turns round by the smallest difference, and no two programs add floats in the same order. So what is added up in
front of a sign has few digits, and its sums are exact in every order: pixels and weights of the first convolution are
multiples of 2^-6 and 2^-8, arguments of signs multiples of 2^-8. That is how an exported file gives the same answers.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

PIXEL_STEP, WEIGHT_STEP, ARGUMENT_STEP = 2.0**-6, 2.0**-8, 2.0**-8
LEAST = 1e-6  # of a mean square


class Sign(nn.Cell):
    """+1 or -1 a number; 0 counts as +1, for a bit has two values."""

    def construct(self, x):
        return (x >= 0).astype(ms.float32) * 2 - 1

    def bprop(self, x, out, dout):
        spread = ops.sqrt((x * x).mean() + LEAST)
        return (dout / spread * (x.abs() <= spread).astype(ms.float32),)


class Round(nn.Cell):
    """To multiples of `step`, halves up: floor is the same everywhere, what halves are rounded to is not."""

    def __init__(self, step: float):
        super().__init__()
        self.step = step

    def construct(self, x):
        return ops.floor(x * (1 / self.step) + 0.5) * self.step

    def bprop(self, x, out, dout):
        return (dout,)


class FixedPointConvolution(nn.Conv2d):
    """The first layer, on pixels (B, channels, H, W): floats, with so few digits that their sums are exact."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.round_pixels, self.round_weights = Round(PIXEL_STEP), Round(WEIGHT_STEP)

    def construct(self, x):
        return self.conv2d(self.round_pixels(x), self.round_weights(self.weight))


class BinaryConvolution(nn.Conv2d):
    """Floats (B, channels, H, W) -> (B, filters, ...); zeros around the picture stay zeros."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.shift = ms.Parameter(ms.Tensor(np.zeros(self.in_channels, np.float32)), name="shift")
        self.round, self.sign = Round(ARGUMENT_STEP), Sign()
        kernel = (1, self.in_channels, *self.kernel_size)
        self.ones, self.share = ms.Tensor(np.ones(kernel, np.float32)), float(1 / np.prod(kernel))
        self.box = ops.Conv2D(1, self.kernel_size, pad_mode="pad", pad=self.padding, dilation=self.dilation)

    def scales(self):
        """alpha, (filters, 1, 1)."""
        return self.weight.abs().mean((1, 2, 3)).reshape(-1, 1, 1)

    def construct(self, x):
        x = self.round(x - self.shift.reshape(-1, 1, 1))
        near = self.box(x.abs(), self.ones) * self.share
        return self.conv2d(self.sign(x), self.sign(self.weight)) * near * self.scales()


class BinaryDense(nn.Dense):
    """Floats (B, inputs) -> (B, outputs)."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.shift = ms.Parameter(ms.Tensor(np.zeros(self.in_channels, np.float32)), name="shift")
        self.round, self.sign = Round(ARGUMENT_STEP), Sign()
        self.share = 1 / self.in_channels

    def scales(self):
        """alpha, (outputs,)."""
        return self.weight.abs().mean(1)

    def construct(self, x):
        x = self.round(x - self.shift)
        near = x.abs().sum(1, keepdims=True) * self.share
        return self.matmul(self.sign(x), self.sign(self.weight)) * near * self.scales() + self.bias


BINARY = (BinaryConvolution, BinaryDense)
