"""Layers of a training on large maps, by kernels of our own where MindSpore's take most of a step on a CPU.

MindSpore computes a depthwise convolution and its two gradients on a CPU through a matrix product a channel and a
picture, in three to six times PyTorch's time. `kernels.cc`, built by the C++ compiler of the machine, walks over B
pictures at a time: activations lie as (C, H, W, B), a 1x1 convolution is one matrix product, and bias and ReLU6 are
one pass behind it. For training only: weights have the shapes of a convolution, by which everything else computes.

Letters: C channels, B pictures a batch, H x W pixels, H' x W' behind a stride.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from finetune.device import folder_of_this_process, has_feature
from pretrained.fold import Convolution

SOURCE = Path(__file__).with_name("kernels.cc")
FLAGS = "-O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wno-psabi -fopenmp -shared -fPIC".split()
OF_AVX2 = ("-mavx2", "-mfma")
TOP = 6.0  # of ReLU6
TAPS = 9  # of a 3x3 kernel

log = logging.getLogger("finetune")


def load_kernels() -> Kernels | None:
    """None, and a line in the log that says why, where this machine or MindSpore cannot have them."""
    try:
        found = Kernels(library())
    except Exception as error:  # MindSpore raises any type where it takes no operators from outside
        reason = str(error).strip().partition("\n")[0]
        log.info("layers: MindSpore's own, which train more slowly than kernels of ours: %s", reason)
        return None
    log.info("layers: with kernels of our own, built by %s", shlex.join(compiler()))
    return found


@cache
def library() -> Path:
    """Compiled for this process, into a folder that is its user's alone: what runs here is never what others left.

    Raises:
        OSError: there is no compiler, it fails, or this machine does not load what it made.
    """
    if sys.platform != "linux":
        raise OSError("MindSpore takes them on Linux only")
    if not compiler():
        raise OSError("there is no C++ compiler; install g++, or set CXX")
    made = folder_of_this_process() / "kernels.so"
    flags = [*FLAGS, *(OF_AVX2 if has_feature("AVX2") else ())]
    command = [*compiler(), *flags, str(SOURCE), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise OSError(f"{shlex.join(compiler())}: {done.stderr.strip() or done.returncode}")
    try:
        ctypes.CDLL(str(made))
    except OSError as error:
        raise OSError(f"{error}; set TMPDIR to a folder that may hold programs") from error
    return made


def compiler() -> list[str]:
    """Empty where there is none."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    return [path for path in (shutil.which("g++"), shutil.which("clang++")) if path][:1]


class Kernels:
    """The functions of the library as MindSpore operators; the gradients know each other.

    Shapes and types are told by functions with names: MindSpore reads their source, and takes what stands around a
    lambda for a part of it.
    """

    def __init__(self, library: Path):
        def operator(name: str, out_shape, out_dtype, bprop=None) -> ops.Custom:
            return ops.Custom(f"{library}:{name}", out_shape, out_dtype, "aot", bprop)

        depthwise_grad = operator("DepthwiseGrad", shapes_of_depthwise_grad, types_of_depthwise_grad)
        bias_grad = operator("BiasGrad", shapes_of_bias_grad, types_of_bias_grad)

        def depthwise_bprop(x, weight, bias, how, out, dout):
            dx, dweight, dbias = depthwise_grad(dout, out, x, weight, how)
            return dx, dweight, dbias, ops.zeros_like(how)

        def bias_bprop(x, bias, top, out, dout):
            dx, dbias = bias_grad(dout, out, top)
            return dx, dbias, ops.zeros_like(top)

        self.bias = operator("Bias", like_three, like_three, bias_bprop)
        self.depthwise = {
            1: operator("Depthwise", like_four, like_four, depthwise_bprop),
            2: operator("DepthwiseStride2", half_of, like_four, depthwise_bprop),
        }
        self.taps = {1: operator("Taps", taps_of, like_two), 2: operator("TapsStride2", taps_of_half, like_two)}


def like_two(x, how):
    return x


def like_three(x, bias, top):
    return x


def like_four(x, weight, bias, how):
    return x


def half_of(x, weight, bias, how):
    return [x[0], (x[1] + 1) // 2, (x[2] + 1) // 2, x[3]]


def taps_of(x, how):
    return [x[0], TAPS, x[1], x[2], x[3]]


def taps_of_half(x, how):
    return [x[0], TAPS, (x[1] + 1) // 2, (x[2] + 1) // 2, x[3]]


def shapes_of_depthwise_grad(dy, y, x, weight, how):
    return x, weight, [weight[0]]


def types_of_depthwise_grad(dy, y, x, weight, how):
    return x, weight, weight


def shapes_of_bias_grad(dy, y, top):
    return y, [y[0]]


def types_of_bias_grad(dy, y, top):
    return y, y


def layer_of(convolution: Convolution, size: tuple[int, int], pad_mode: str, kernels: Kernels) -> Layer:
    """`size`: H, W in front of it."""
    kind = Depthwise if convolution.group > 1 else Pointwise if convolution.weight.shape[-1] == 1 else First
    return kind(convolution, size, pad_mode, kernels)


class Layer(nn.Cell):
    """A folded convolution: in training (C, H, W, B) -> (C', H', W', B) by the `quick` of its kind, else (B, C, H, W)
    by MindSpore's own."""

    def __init__(self, convolution: Convolution, size: tuple[int, int], pad_mode: str, kernels: Kernels):
        super().__init__()
        c_out, _, kernel_size, _ = convolution.weight.shape
        padding = (kernel_size - 1) // 2 if pad_mode == "pad" else 0
        self.weight = ms.Parameter(ms.Tensor(convolution.weight), name="weight")
        self.bias = ms.Parameter(ms.Tensor(convolution.bias), name="bias")
        self.relu6, self.channels = convolution.relu6, c_out
        self.conv = ops.Conv2D(
            c_out, kernel_size, pad_mode=pad_mode, pad=padding, stride=convolution.stride, group=convolution.group
        )
        self.add = ops.BiasAdd()

    def construct(self, x):
        if self.training:
            return self.quick(x)
        x = self.add(self.conv(x, self.weight), self.bias)
        return ops.relu6(x) if self.relu6 else x


class Pointwise(Layer):
    def __init__(self, convolution: Convolution, size: tuple[int, int], pad_mode: str, kernels: Kernels):
        super().__init__(convolution, size, pad_mode, kernels)
        self.top = ms.Tensor(np.array([TOP if convolution.relu6 else 0], np.float32))
        self.add_and_clip = kernels.bias

    def quick(self, x):
        return self.product(x)

    def product(self, x):
        channels, height, width, batch = x.shape
        weight = self.weight.reshape(self.channels, channels)
        x = ops.matmul(weight, x.reshape(channels, height * width * batch))
        return self.add_and_clip(x, self.bias, self.top).reshape(self.channels, height, width, batch)


class First(Pointwise):
    """3x3 over all channels: what the nine taps meet, side by side, are the channels of a 1x1 convolution. There is no
    gradient of the pictures."""

    def __init__(self, convolution: Convolution, size: tuple[int, int], pad_mode: str, kernels: Kernels):
        super().__init__(convolution, size, pad_mode, kernels)
        self.how = how(convolution, size, pad_mode)
        self.taps = kernels.taps[convolution.stride]

    def quick(self, x):
        x = self.taps(ops.stop_gradient(x), self.how)
        channels, taps, height, width, batch = x.shape
        return self.product(x.reshape(channels * taps, height, width, batch))


class Depthwise(Layer):
    def __init__(self, convolution: Convolution, size: tuple[int, int], pad_mode: str, kernels: Kernels):
        super().__init__(convolution, size, pad_mode, kernels)
        self.how = how(convolution, size, pad_mode)
        self.convolve = kernels.depthwise[convolution.stride]

    def quick(self, x):
        return self.convolve(x, self.weight.reshape(self.channels, TAPS), self.bias, self.how)


def how(convolution: Convolution, size: tuple[int, int], pad_mode: str) -> ms.Tensor:
    """What the kernels are told of a 3x3 convolution."""
    stride = convolution.stride
    return ms.Tensor(np.array([stride, *zeros_before(size, stride, pad_mode)], np.float32))


def zeros_before(size: tuple[int, int], stride: int, pad_mode: str) -> list[int]:
    """Rows and columns of zeros in front of a map that a 3x3 kernel walks over."""
    if pad_mode == "pad":
        return [1, 1]
    return [max((-(-side // stride) - 1) * stride + 3 - side, 0) // 2 for side in size]  # what is odd comes behind
