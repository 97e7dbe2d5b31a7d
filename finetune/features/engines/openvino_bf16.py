"""A network for OpenVINO in bf16 whose features stay close to those in f32.

A bf16 number has 8 significant bits. Where every weight and bias is rounded to the nearest of them, as OpenVINO does,
the features of MobileNetV2 1.0 at 224 move to a cosine of 0.982 on the worst of 400 photographs. Here it is 0.9995:

    values    that go into the first depthwise convolution, which looks for small differences between large numbers, are
              stored less a number a channel
    weights   of a few inputs, as in a depthwise convolution, are rounded one after another, and the error of each is
              made up for by those that follow: the inputs are neighbouring pixels, and nearly alike (Frantar et al.,
              "GPTQ", 2022)
    biases    take over what rounding changes in the mean, and stay f32

The inputs are those of a few drawn pictures, so that the result depends on the network only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

# Its telemetry would tell a statistics server of each start; without the package OpenVINO uses its own stand-in.
sys.modules.setdefault("openvino_telemetry", None)

import numpy as np
import openvino
from numpy.lib.stride_tricks import sliding_window_view
from openvino import opset13 as opset

from datasets.decoding.decode import whole
from datasets.drawn.sample import KINDS, draw_picture
from datasets.image import ImageSpec, fitted

PICTURES = 2  # a cat and a dog; 4 and 8 gave the same
DEPTHWISE = "GroupConvolution"
CONVOLUTIONS = ("Convolution", DEPTHWISE)
OFFSETS = np.arange(0, 6.125, 0.125, np.float32)  # over the range of ReLU6
SAMPLES = 4000  # positions of an input that are looked at; 1,000 and 20,000 gave the same
MANY_INPUTS = 32  # from here on the errors of the single weights of an output cancel each other out anyway
DAMPING = 0.01  # share of the mean variance of the inputs; 0.0001 to 0.05 gave the same
BEYOND = 1e30  # no value of a network comes near it


def round_to_bf16(core: openvino.Core, model: openvino.Model, pictures: np.ndarray) -> None:
    """Round the weights of all convolutions in `model`; `pictures` are its input, uint8 (B, H, W, 3)."""
    convolutions = find_convolutions(model)
    first = next(convolution for convolution in convolutions if convolution.get_type_name() == DEPTHWISE)
    for convolution, x in zip(convolutions, inputs_of_convolutions(core, model, pictures)):
        if convolution is first:
            x = offset(convolution, x)
        weights = constant(convolution, 1)
        inputs = samples(x, convolution)
        mean = inputs.mean(1, keepdims=True)
        by_group = weights.reshape(len(inputs), -1, inputs.shape[2])
        if by_group.shape[2] < MANY_INPUTS:
            moved = inputs - mean
            covariance = moved.transpose(0, 2, 1) @ moved / moved.shape[1]
            rounded = round_together(by_group, covariance)
        else:
            rounded = nearest(by_group)
        give(convolution, 1, rounded.reshape(weights.shape))
        after, add = addition_behind(convolution)
        lost = ((by_group - rounded) * mean).sum(2).reshape(1, -1, 1, 1)
        give(add, 1, constant(add, 1) + lost)
        # An addition right behind a convolution becomes its bias, which OpenVINO rounds; behind something else it stays
        # f32, and all of it is one kernel still.
        after.replace_source_output(opset.clamp(convolution.output(0), -BEYOND, BEYOND).output(0))


def offset(convolution: openvino.Node, x: np.ndarray) -> np.ndarray:
    """Have the input of a depthwise convolution stored less a number a channel: a number near 0 is rounded finer.

    What is taken away is made up for behind the convolution. Its padding stays 0, so at the border that is less.

    Args:
        x: its input as it is, (B, C, H, W). Returned as it will be.
    """
    values = x.swapaxes(0, 1).reshape(x.shape[1], -1)[:, :: max(1, x[:, 0].size // SAMPLES)]
    errors = [np.square(nearest(values - number) - (values - number)).mean(1) for number in OFFSETS]
    numbers = OFFSETS[np.argmin(errors, 0)].reshape(1, -1, 1, 1)
    stored = opset.subtract(convolution.input_value(0), opset.constant(numbers))
    convolution.input(0).replace_source_output(stored.output(0))

    taken = windows(np.broadcast_to(numbers, (1, *x.shape[1:])), convolution)
    weights = constant(convolution, 1).reshape(taken.shape[1], *taken.shape[4:])
    _, add = addition_behind(convolution)
    give(add, 1, constant(add, 1) + np.einsum("bchwij,cij->bchw", taken, weights))
    return x - numbers


def addition_behind(convolution: openvino.Node) -> tuple[openvino.Input, openvino.Node]:
    """The only input that takes the convolution's output, and its node, which adds the bias."""
    (after,) = convolution.output(0).get_target_inputs()
    return after, after.get_node()


def give(node: openvino.Node, port: int, values: np.ndarray) -> None:
    node.input(port).replace_source_output(opset.constant(values.astype(np.float32)).output(0))


def drawn_pictures(image: ImageSpec) -> np.ndarray:
    """uint8 (PICTURES, H, W, 3), as the network wants them."""
    return np.stack([fitted(whole(draw_picture(KINDS[i % len(KINDS)], 0, i)), image) for i in range(PICTURES)])


def find_convolutions(model: openvino.Model) -> list[openvino.Node]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() in CONVOLUTIONS]


def inputs_of_convolutions(core: openvino.Core, model: openvino.Model, pictures: np.ndarray) -> Iterator[np.ndarray]:
    """float32 (B, C, H, W) for each convolution in order, computed in f32."""
    probe = model.clone()
    probe.reshape(pictures.shape)
    probe.add_outputs([convolution.input_value(0) for convolution in find_convolutions(probe)])
    compiled = core.compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(pictures, share_outputs=True)  # which live as long as `compiled`
    yield from (found[output] for output in compiled.outputs[len(model.outputs) :])


def constant(node: openvino.Node, port: int) -> np.ndarray:
    """float32, what a node is given there; of a grouped convolution it is reshaped on the way."""
    source = node.input_value(port).get_node()
    while source.get_type_name() != "Constant":
        source = source.input_value(0).get_node()
    return source.data.reshape(tuple(node.input_value(port).get_shape()))


def windows(x: np.ndarray, convolution: openvino.Node) -> np.ndarray:
    """x (B, C, H, W) as a convolution looks at it: (B, C, H', W', kernel, kernel)."""
    facts, kernel_size = convolution.get_attributes(), convolution.input_value(1).get_shape()[-1]
    (top, left), (bottom, right) = facts["pads_begin"], facts["pads_end"]
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    step = facts["strides"][0]
    return sliding_window_view(padded, (kernel_size, kernel_size), axis=(2, 3))[:, :, ::step, ::step]


def samples(x: np.ndarray, convolution: openvino.Node) -> np.ndarray:
    """(groups, positions, inputs of an output): what the weights of a group are multiplied with."""
    all_windows = windows(x, convolution)
    every = max(1, round((all_windows[:, 0, ..., 0, 0].size / SAMPLES) ** 0.5))
    some = all_windows[:, :, every // 2 :: every, every // 2 :: every]
    channels, inputs = x.shape[1], some[0, 0, 0, 0].size
    if convolution.get_type_name() == DEPTHWISE:  # a channel a group
        return some.transpose(1, 0, 2, 3, 4, 5).reshape(channels, -1, inputs)
    return some.transpose(0, 2, 3, 1, 4, 5).reshape(1, -1, channels * inputs)


def round_together(weights: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Weights (groups, outputs, n) on the grid of bf16 so that outputs change little; covariance (groups, n, n)."""
    n = weights.shape[2]
    damping = DAMPING * np.trace(covariance, axis1=1, axis2=2) / n + np.finfo(np.float32).tiny
    damped = covariance.astype(np.float64) + damping[:, None, None] * np.eye(n)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left, rounded = weights.astype(np.float64), np.empty(weights.shape, np.float32)
    for i in range(n):
        rounded[..., i] = nearest(left[..., i])
        error = (left[..., i] - rounded[..., i]) / upper[:, i, i, None]
        left[..., i + 1 :] -= error[..., None] * upper[:, None, i, i + 1 :]
    return rounded


def nearest(x: np.ndarray) -> np.ndarray:
    """float32 with the last 16 bits 0: the nearest bf16 numbers, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)).view(np.float32)
