"""Networks that are trained: the head on a backbone's features, both as one network, and two from scratch."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets.base import InputError
from finetune.config import ModelConfig
from pretrained.mobilenet_v2 import MobileNetV2

ACTIVATIONS = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
}
POOL = 2


class Head(nn.Cell):
    """Features (B, D) -> logits (B, C): linear, or with one hidden layer.

    The last layer is called `dense` and starts from N(0, 0.01^2), both as in the model zoo; a hidden layer
    starts from N(0, 2 / inputs) (He et al., 2015). Two heads of one seed are equal bit for bit.
    """

    def __init__(self, feature_size: int, class_count: int, hidden: int = 0, dropout: float = 0.0, seed: int = 1):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.dropout = Dropout(dropout, seed % 2**31) if dropout else None
        self.hidden = dense(feature_size, hidden, rng, scale=(2 / feature_size) ** 0.5) if hidden else None
        self.relu = nn.ReLU()
        self.dense = dense(hidden or feature_size, class_count, rng, scale=0.01)

    def construct(self, x):
        if self.dropout is not None:
            x = self.dropout(x)
        if self.hidden is not None:
            x = self.relu(self.hidden(x))
        return self.dense(x)


class Dropout(nn.Cell):
    """In training, set a share of the values to 0 and scale the others up (Srivastava et al., 2014).

    Each has a generator of its own, told apart by `number`. MindSpore's share one in the process, so that a network
    with two of them came out differently from the same seed.
    """

    def __init__(self, share: float, seed: int, number: int = 1):
        super().__init__()
        self.share = share
        self.uniform = ops.UniformReal(seed=seed, seed2=number)

    def construct(self, x):
        if not self.training:
            return x
        keep = (self.uniform(x.shape) >= self.share).astype(x.dtype)
        return x * keep / (1 - self.share)


def dense(inputs: int, outputs: int, rng: np.random.Generator, scale: float) -> nn.Dense:
    """A dense layer with weights from N(0, scale^2) and bias 0."""
    weights = rng.normal(0, scale, (outputs, inputs)).astype(np.float32)
    return nn.Dense(inputs, outputs, weight_init=ms.Tensor(weights), bias_init="zeros")


class Classifier(nn.Cell):
    """Backbone and head as one: normalised pictures (B, 3, H, W) -> logits (B, C).

    Its parameters are named as in the model zoo: `features.*` and `dense.*`.
    """

    def __init__(self, backbone: MobileNetV2, head: Head):
        super().__init__(auto_prefix=False)
        self.backbone = backbone
        self.head = head

    def construct(self, x):
        return self.head(self.backbone(x))


class MLP(nn.Cell):
    """Pictures (B, ...) as rows of pixels -> logits (B, C): dense layers `fc1`, `fc2`, ... with an activation between.

    Sigmoid and tanh start from N(0, 1 / inputs), where they neither saturate nor fade (LeCun, "Efficient BackProp",
    1998), the others from N(0, 2 / inputs) (He et al., 2015).
    """

    def __init__(self, inputs: int, class_count: int, config: ModelConfig, rng: np.random.Generator):
        super().__init__()
        self.flatten = nn.Flatten()
        sizes = [inputs, *config.layers, class_count]
        gain = gain_of(config.activation)
        layers = []
        for number, (before, after) in enumerate(zip(sizes, sizes[1:]), 1):
            last = number == len(sizes) - 1
            layer = dense(before, after, rng, scale=((1 if last else gain) / before) ** 0.5)
            setattr(self, f"fc{number}", layer)
            layers.append(layer)
            if not last:
                activation = ACTIVATIONS[config.activation]()
                setattr(self, f"activation{number}", activation)
                layers.append(activation)
                if config.dropout:
                    dropout = Dropout(config.dropout, int(rng.integers(2**31)), number)
                    setattr(self, f"dropout{number}", dropout)  # or set_train would not reach it
                    layers.append(dropout)
        self.steps = tuple(layers)

    def construct(self, x):
        x = self.flatten(x)
        for step in self.steps:
            x = step(x)
        return x


class LeNet5(nn.Cell):
    """Pictures (B, channels, H, W) -> logits (B, C): convolutions with 2x2 max pooling, then dense layers.

    Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, as the model zoo has it: ReLU, max
    pooling, no biases in the convolutions, parameters `conv1`, `conv2`, ..., `fc1`, `fc2`, `fc3`. With 28x28 pictures
    and paddings [2, 0] the shapes are (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), 120, 84, C. Pooling comes
    before the activation: for one that rises it is the same, and a quarter of the work.

    Raises:
        InputError: nothing is left of the picture before the dense layers.
    """

    def __init__(self, shape: tuple[int, int, int], class_count: int, config: ModelConfig, rng: np.random.Generator):
        super().__init__()
        if len(config.filters) != len(config.paddings):
            raise InputError(
                f"model.filters {config.filters} and model.paddings {config.paddings} differ in length. Give both one "
                "number for each convolution."
            )
        channels, *sides = shape
        steps = []
        for number, (filters, padding) in enumerate(zip(config.filters, config.paddings), 1):
            block = PooledConvolution(convolution(channels, filters, padding, config, rng), channels, config)
            activation = ACTIVATIONS[config.activation]()
            setattr(self, f"conv{number}", block)
            setattr(self, f"conv_activation{number}", activation)
            steps += [block, activation]
            channels = filters
            sides = [(side + 2 * padding - config.dilation * (config.kernel - 1)) // POOL for side in sides]
            if min(sides) < 1:
                raise InputError(
                    f"lenet5: nothing is left of pictures of {shape[1:]} after convolution {number}. Use larger "
                    "model.image_size or model.paddings, or fewer model.filters."
                )
        self.steps = tuple(steps)
        self.classifier = MLP(channels * sides[0] * sides[1], class_count, config, rng)
        for parameter in self.get_parameters():  # conv1.weight, fc1.weight: as in the zoo
            parameter.name = parameter.name.removeprefix("classifier.").replace(".convolution.", ".")

    def construct(self, x):
        for step in self.steps:
            x = step(x)
        return self.classifier(x)


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
        self.at_once = channels == 1 and not config.separable and config.dilation == 1
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


def convolution(inputs: int, outputs: int, padding: int, config: ModelConfig, rng: np.random.Generator) -> nn.Cell:
    """A convolution from N(0, gain / inputs), without bias; or depthwise and 1x1 (Sifre, 2014)."""
    gain = gain_of(config.activation)

    def layer(inputs: int, outputs: int, kernel: int, group: int, padding: int, dilation: int) -> nn.Conv2d:
        fan_in = inputs // group * kernel**2
        weights = rng.normal(0, (gain / fan_in) ** 0.5, (outputs, inputs // group, kernel, kernel)).astype(np.float32)
        return nn.Conv2d(
            inputs,
            outputs,
            kernel,
            pad_mode="pad",
            padding=padding,
            dilation=dilation,
            group=group,
            weight_init=ms.Tensor(weights),
        )

    if not config.separable:
        return layer(inputs, outputs, config.kernel, 1, padding, config.dilation)
    return nn.SequentialCell(
        layer(inputs, inputs, config.kernel, inputs, padding, config.dilation), layer(inputs, outputs, 1, 1, 0, 1)
    )


def gain_of(activation: str) -> float:
    return 1.0 if activation in ("sigmoid", "tanh") else 2.0


def from_scratch(config: ModelConfig, shape: tuple[int, int, int], class_count: int, seed: int) -> nn.Cell:
    """A fresh network for pictures of `shape` (channels, H, W). Two of one seed are equal bit for bit.

    Raises:
        InputError: the layers do not fit the pictures.
    """
    rng = np.random.default_rng(seed)
    if config.network == "mlp":
        return MLP(int(np.prod(shape)), class_count, config, rng)
    return LeNet5(shape, class_count, config, rng)


class Probabilities(nn.Cell):
    """Any of these networks with a softmax behind it: what is evaluated and exported."""

    def __init__(self, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        self.softmax = nn.Softmax(axis=-1)

    def construct(self, x):
        return self.softmax(self.network(x))
