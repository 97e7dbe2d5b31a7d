"""MindSpore's gradients against a forward and a backward pass written out here in NumPy from the formulas."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from finetune.config import ModelConfig, TrainConfig
from finetune.training import networks
from finetune.training.networks import from_scratch
from finetune.training.step import TrainStep

RNG = np.random.default_rng(0)


def gradients_of(network: nn.Cell, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """By the training step itself: one plain gradient step of rate 1, and how far each weight moved."""
    before = {p.name: p.asnumpy().astype(np.float64) for p in network.trainable_params()}
    step = TrainStep(network, nn.SGD(network.trainable_params(), 1.0), TrainConfig(l2=0.0))
    rows = ms.Tensor(np.arange(len(x), dtype=np.int32))
    step(ms.Tensor(x), rows, ms.Tensor(y), ms.Tensor(np.full(len(x), 1 / len(x), np.float32)))
    return {p.name: before[p.name] - p.asnumpy() for p in network.trainable_params()}


def softmax_gradient(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d mean cross-entropy / d logits (B, C) = (softmax - one hot) / B."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return (exponentials / exponentials.sum(1, keepdims=True) - np.eye(logits.shape[1])[y]) / len(y)


SLOPES = {
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z, a: a * (1 - a)),
    "tanh": (np.tanh, lambda z, a: 1 - a**2),
    "relu": (lambda z: np.maximum(z, 0), lambda z, a: z > 0),
    "elu": (lambda z: np.where(z > 0, z, np.exp(z) - 1), lambda z, a: np.where(z > 0, 1, np.exp(z))),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z, a: np.where(z > 0, 1, 0.2)),
    "prelu": (lambda z: np.where(z > 0, z, 0.25 * z), lambda z, a: np.where(z > 0, 1, 0.25)),
}


@pytest.mark.parametrize("activation", SLOPES)
def test_mlp(activation):
    """5 - 7 - 4 - 3 on 6 rows."""
    x, y = RNG.normal(0, 1, (6, 1, 1, 5)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2], np.int32)
    network = from_scratch(ModelConfig(network="mlp", layers=[7, 4], activation=activation), (1, 1, 5), 3, seed=1)
    w = {p.name: p.asnumpy().astype(np.float64) for p in network.trainable_params()}
    found = gradients_of(network, x, y)

    f, slope = SLOPES[activation]
    a0 = x.reshape(6, 5).astype(np.float64)
    z1 = a0 @ w["fc1.weight"].T + w["fc1.bias"]
    a1 = f(z1)
    z2 = a1 @ w["fc2.weight"].T + w["fc2.bias"]
    a2 = f(z2)
    d3 = softmax_gradient(a2 @ w["fc3.weight"].T + w["fc3.bias"], y)
    d2 = (d3 @ w["fc3.weight"]) * slope(z2, a2)
    d1 = (d2 @ w["fc2.weight"]) * slope(z1, a1)
    for name, delta, below in (("fc3", d3, a2), ("fc2", d2, a1), ("fc1", d1, a0)):
        assert found[f"{name}.weight"] == pytest.approx(delta.T @ below, abs=2e-6)
        assert found[f"{name}.bias"] == pytest.approx(delta.sum(0), abs=2e-6)


class Convolved(nn.Cell):
    """One convolution of the networks' own kind and a fixed sum behind it: logits (B, 2 filters)."""

    def __init__(self, config: ModelConfig, padding: int):
        super().__init__()
        self.conv = networks.convolution(2, 2, padding, config, np.random.default_rng(1))

    def construct(self, x):
        return self.conv(x).sum((2, 3))


@pytest.mark.parametrize("dilation, padding", [(1, 0), (1, 2), (2, 1)])
def test_convolution(dilation, padding):
    """2 channels -> 2 filters of 3x3, by four loops."""
    x, y = RNG.normal(0, 1, (3, 2, 7, 6)).astype(np.float32), np.array([0, 1, 1], np.int32)
    network = Convolved(ModelConfig(kernel=3, dilation=dilation), padding)
    (kernel,) = (p.asnumpy().astype(np.float64) for p in network.trainable_params())
    (found,) = gradients_of(network, x, y).values()

    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    reach = dilation * 2
    height, width = padded.shape[2] - reach, padded.shape[3] - reach
    logits, windows = np.zeros((3, 2)), np.zeros((3, 2, 3, 3))  # windows: the pixels that each weight has met, summed
    for i in range(3):
        for j in range(3):
            seen = padded[:, :, i * dilation : i * dilation + height, j * dilation : j * dilation + width]
            windows[:, :, i, j] = seen.sum((2, 3))
            logits += windows[:, :, i, j] @ kernel[:, :, i, j].T
    wanted = np.einsum("bf,bcij->fcij", softmax_gradient(logits, y), windows)
    assert found == pytest.approx(wanted, abs=2e-5)


class ConvolvedAndPooled(nn.Cell):
    """The same with pooling behind it, as LeNet-5 has it."""

    def __init__(self, config: ModelConfig, channels: int, padding: int):
        super().__init__()
        convolution = networks.convolution(channels, 2, padding, config, np.random.default_rng(1))
        self.conv = networks.PooledConvolution(convolution, channels, config)

    def construct(self, x):
        return self.conv(x).sum((2, 3))


@pytest.mark.parametrize("dilation, padding, kernel", [(1, 0, 3), (1, 2, 5), (1, 1, 2), (2, 0, 3)])
@pytest.mark.parametrize("training, channels", [(True, 1), (True, 2), (False, 2)])
def test_convolution_and_pooling(training, channels, dilation, padding, kernel):
    """Each pooled place hands its gradient to the window in which the maximum was. 9x8 pixels: odd sides occur."""
    x, y = RNG.normal(0, 1, (3, channels, 9, 8)).astype(np.float32), np.array([0, 1, 1], np.int32)
    network = ConvolvedAndPooled(ModelConfig(kernel=kernel, dilation=dilation), channels, padding).set_train(training)
    (weight,) = (p.asnumpy().astype(np.float64) for p in network.trainable_params())
    (found,) = gradients_of(network, x, y).values()

    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    reach = dilation * (kernel - 1)
    height, width = (side - reach for side in padded.shape[2:])
    logits = np.zeros((3, 2))  # picture, filter
    windows = np.zeros((3, 2, channels, kernel, kernel))  # those of the maxima, summed
    for n, f, i, j in np.ndindex(3, 2, height // 2, width // 2):
        four = [
            padded[n, :, r : r + reach + 1 : dilation, c : c + reach + 1 : dilation]
            for r in (2 * i, 2 * i + 1)
            for c in (2 * j, 2 * j + 1)
        ]
        answers = [(window * weight[f]).sum() for window in four]
        logits[n, f] += max(answers)
        windows[n, f] += four[int(np.argmax(answers))]
    delta = softmax_gradient(logits, y)
    assert found == pytest.approx(np.einsum("nf,nfchw->fchw", delta, windows), abs=1e-5)
