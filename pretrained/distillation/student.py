"""The student in the form in which it trains fast on a CPU: the same parameters, two fused kernels of our own.

MindSpore's gradients of depthwise convolution and BatchNorm on CPU take most of a training step. Here activations
lie as (C, H, W, B): a 1x1 convolution is one matrix product, and the other layers (`kernels.cc`, built by
the C++ compiler of the machine) walk over B pictures at a time. Measured at 64 pixels, 64 pictures a batch: 124
pictures a second by the plain network, 430 to 460 in this form.

For training only. BatchNorm uses the statistics of the batch and keeps none: see `settle_statistics`.
Letters: C channels, B pictures a batch (a multiple of 16), H x W pixels, O x O pixels out, D features.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets.base import InputError
from pretrained.mobilenet_v2 import MobileNetV2

SPREAD = 0.5  # ImageNet features of MobileNetV2 1.0 have 0.48; heads are tuned to that
LARGEST_FACTOR = 100.0  # features that hardly ever answer stay small
SOURCE = Path(__file__).with_name("kernels.cc")


def build_kernels(folder: Path) -> str:
    """Path of the shared library, compiled for this very processor.

    Raises:
        InputError: there is no C++ compiler, or it failed.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise InputError("No C++ compiler found. Distillation builds two kernels: install g++ or set CXX.")
    library = folder.resolve() / "distill_kernels.so"
    flags = "-O3 -march=native -ffast-math -fopenmp -shared -fPIC".split()
    command = [compiler, *flags, str(SOURCE), "-o", str(library)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise InputError(f"{compiler} could not compile {SOURCE}:\n{built.stderr}")
    return str(library)


class Kernels:
    """The four functions of the library as MindSpore operators; the gradients know each other."""

    def __init__(self, library: str):
        depthwise_grad = _custom(f"{library}:DepthwiseGrad", lambda dy, x, w: (x, w))
        norm_grad = _custom(f"{library}:NormGrad", lambda dy, x, y, gamma, mean, scale, top: (x, gamma, gamma))

        def depthwise_bprop(x, weight, out, dout):
            return depthwise_grad(dout, x, weight)

        def norm_bprop(x, gamma, beta, top, out, dout):
            dx, dgamma, dbeta = norm_grad(dout[0], x, out[0], gamma, out[1], out[2], top)
            return dx, dgamma, dbeta, ops.zeros_like(top)

        self.norm = _custom(f"{library}:Norm", lambda x, gamma, beta, top: (x, gamma, gamma), norm_bprop)
        self.depthwise = {
            1: _custom(f"{library}:Depthwise", lambda x, w: x, depthwise_bprop),
            2: ops.Custom(
                f"{library}:Depthwise",
                out_shape=lambda x, w: [x[0], x[1] // 2, x[2] // 2, x[3]],
                out_dtype=lambda x, w: x,
                func_type="aot",
                bprop=depthwise_bprop,
            ),
        }


def _custom(function: str, like, bprop=None):
    """An operator whose outputs have the shapes and types of some of its inputs."""
    return ops.Custom(function, out_shape=like, out_dtype=like, func_type="aot", bprop=bprop)


class Pointwise(nn.Cell):
    """A 1x1 convolution; also the first one, whose 27 taps `patches` lays out as channels."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight = conv.weight
        self.c_out, self.c_in = conv.weight.shape[0], int(np.prod(conv.weight.shape[1:]))
        self.product = ops.MatMul()

    def construct(self, x):
        _, h, w, b = x.shape
        kernel = self.weight.reshape(self.c_out, self.c_in)
        return self.product(kernel, x.reshape(self.c_in, h * w * b)).reshape(self.c_out, h, w, b)


class Depthwise(nn.Cell):
    """A 3x3 convolution of each channel by itself, one pixel of zeros around."""

    def __init__(self, conv: nn.Conv2d, kernels: Kernels):
        super().__init__()
        self.weight = conv.weight
        self.channels = conv.weight.shape[0]
        self.convolve = kernels.depthwise[conv.stride[0]]

    def construct(self, x):
        return self.convolve(x, self.weight.reshape(self.channels, 3, 3))


class Norm(nn.Cell):
    """BatchNorm and, where `top` is not 0, the clip to 0..top behind it."""

    def __init__(self, norm: nn.BatchNorm2d, top: float, kernels: Kernels):
        super().__init__()
        self.gamma, self.beta = norm.gamma, norm.beta
        self.top = ms.Tensor(np.array([top], np.float32))
        self.norm = kernels.norm

    def construct(self, x):
        return self.norm(x, self.gamma, self.beta, self.top)[0]


class Residual(nn.Cell):
    def __init__(self, inner: nn.Cell):
        super().__init__()
        self.inner = inner

    def construct(self, x):
        return x + self.inner(x)


class Student(nn.Cell):
    """`patches` of pictures (27, O, O, B) -> pooled features (B, D), with the parameters of `network`.

    Read `network`'s parameter names before: a Cell renames what it takes in.
    """

    def __init__(self, network: MobileNetV2, kernels: Kernels):
        super().__init__()
        layers = []
        for block in network.features:
            if not hasattr(block, "conv"):  # the first and the last one
                layers += _translate(block.features, kernels)
                continue
            cells = [cell for part in block.conv for cell in getattr(part, "features", [part])]
            inner = _translate(cells, kernels)
            layers += [Residual(nn.SequentialCell(inner))] if block.residual else inner
        self.layers = nn.SequentialCell(layers)

    def construct(self, x):
        return ops.mean(self.layers(x), (1, 2)).T


def _translate(cells, kernels: Kernels) -> list[nn.Cell]:
    cells, layers = list(cells), []
    for cell, after in zip(cells, [*cells[1:], None]):
        if isinstance(cell, nn.BatchNorm2d):
            layers.append(Norm(cell, 6.0 if isinstance(after, nn.ReLU6) else 0.0, kernels))
        elif isinstance(cell, nn.Conv2d):
            wide = cell.group > 1
            layers.append(Depthwise(cell, kernels) if wide else Pointwise(cell))
    return layers


def patches(pixels: np.ndarray) -> np.ndarray:
    """uint8 (B, H, H, 3) -> float32 (27, H/2, H/2, B) in -1..1: what each tap of a 3x3 kernel with stride 2 reads."""
    b, h = pixels.shape[:2]
    padded = np.zeros((3, h + 1, h + 1, b), np.float32)
    padded[:, 1:, 1:] = pixels.transpose(3, 1, 2, 0)
    padded[:, 1:, 1:] /= 127.5
    padded[:, 1:, 1:] -= 1
    taps = np.empty((3, 3, 3, h // 2, h // 2, b), np.float32)
    for i in range(3):
        for j in range(3):
            taps[:, i, j] = padded[:, i : i + h : 2, j : j + h : 2]
    return taps.reshape(27, h // 2, h // 2, b)


def settle_statistics(network: MobileNetV2, batches) -> None:
    """Set the means and variances of every BatchNorm to their averages over batches of (B, 3, H, W).

    Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.1 (precise statistics).
    """
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    stored = [p for norm in norms for p in (norm.moving_mean, norm.moving_variance)]
    new_part = norms[0].momentum  # of the batch in a stored value; the rest stays
    before = [p.asnumpy().copy() for p in stored]
    sums, count = [np.zeros(p.shape) for p in stored], 0
    network.set_train(True)
    for batch in batches:
        network(ms.Tensor(batch))
        after = [p.asnumpy().copy() for p in stored]
        for total, old, new in zip(sums, before, after):
            total += (new - (1 - new_part) * old) / new_part
        before, count = after, count + 1
    network.set_train(False)
    for p, total in zip(stored, sums):
        p.set_data(ms.Tensor((total / count).astype(np.float32)))


def even_out(network: MobileNetV2, batches) -> None:
    """Scale every feature to a standard deviation of SPREAD over batches of (B, 3, H, W), by the last BatchNorm.

    The student's features differ in spread by orders of magnitude, because the map behind them was trained on
    normalised ones. A head that is trained on them as they are would hardly see the small ones.
    """
    features = np.concatenate([network(ms.Tensor(batch)).asnumpy() for batch in batches])
    factor = SPREAD / np.maximum(features.std(0), SPREAD / LARGEST_FACTOR)
    last = network.features[len(network.features) - 1].features[1]
    for p in (last.gamma, last.beta):
        p.set_data(ms.Tensor((p.asnumpy() * factor).astype(np.float32)))
