"""Networks that are trained: the head on a backbone's features, both as one network, and two from scratch."""

from __future__ import annotations

from dataclasses import replace

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets.base import InputError
from finetune.config import ModelConfig
from finetune.layers.binary import BinaryDense
from finetune.layers.convolutions import (
    ACTIVATIONS,
    POOL,
    PooledConvolution,
    Residual,
    convolution,
    gain_of,
    multiply_adds,
    residual_convolutions,
)
from pretrained.mobilenet_v2 import MobileNetV2

LAYERS = 1000  # with dropout, at most: so far apart are the generators of two workers


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
        self.share, self.seed, self.number = share, seed, number
        self.of_worker(0)

    def of_worker(self, rank: int) -> None:
        """Other rows, other draws."""
        self.uniform = ops.UniformReal(seed=self.seed, seed2=self.number + LAYERS * rank)

    def construct(self, x):
        if not self.training:
            return x
        keep = (self.uniform(x.shape) >= self.share).astype(x.dtype)
        return x * keep / (1 - self.share)


def part_dropout(network: nn.Cell, rank: int) -> None:
    for _, cell in network.cells_and_names():
        if isinstance(cell, Dropout):
            cell.of_worker(rank)


def dense(inputs: int, outputs: int, rng: np.random.Generator, scale: float, kind: type = nn.Dense) -> nn.Dense:
    """A dense layer with weights from N(0, scale^2) and bias 0."""
    weights = rng.normal(0, scale, (outputs, inputs)).astype(np.float32)
    return kind(inputs, outputs, weight_init=ms.Tensor(weights), bias_init="zeros")


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
    1998), the others from N(0, 2 / inputs) (He et al., 2015). Behind each hidden layer stand `model.residual` residual
    blocks of its size. Binary layers are all but the last; a sign in front of one is its activation.
    """

    def __init__(self, inputs: int, class_count: int, config: ModelConfig, rng: np.random.Generator):
        super().__init__()
        self.flatten = nn.Flatten()
        sizes = [inputs, *widened(config.layers, config.width), class_count]
        gain = gain_of(config.activation)
        binary = config.convolution == "binary"
        layers = [self.flatten]

        def add(name: str, layer: nn.Cell) -> None:
            setattr(self, name, layer)  # or set_train would not reach it
            layers.append(layer)

        last = len(sizes) - 1
        for number, (before, after) in enumerate(zip(sizes, sizes[1:]), 1):
            scale = ((1 if number == last else gain) / before) ** 0.5
            add(f"fc{number}", dense(before, after, rng, scale, BinaryDense if binary and number < last else nn.Dense))
            if number == last:
                break
            if not binary or number == last - 1:
                add(f"activation{number}", ACTIVATIONS[config.activation]())
            for block in range(1, config.residual + 1):
                first, second = (dense(after, after, rng, (gain / after) ** 0.5) for _ in range(2))
                add(f"residual{number}_{block}", Residual([first, ACTIVATIONS[config.activation](), second]))
            if config.dropout:
                add(f"dropout{number}", Dropout(config.dropout, int(rng.integers(2**31)), number))
        self.steps = tuple(layers)
        self.multiply_adds = sum(p.size for p in self.get_parameters() if p.ndim == 2)

    def construct(self, x):
        for step in self.steps:
            x = step(x)
        return x


class LeNet5(nn.Cell):
    """Pictures (B, channels, H, W) -> logits (B, C): convolutions with 2x2 max pooling, then dense layers.

    Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, as the model zoo has it: ReLU, max
    pooling, no biases in the convolutions, parameters `conv1`, `conv2`, ..., `fc1`, `fc2`, `fc3`. With 28x28 pictures
    and paddings [2, 0] the shapes are (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), 120, 84, C. Pooling comes
    before the activation: for one that rises it is the same, and a quarter of the work. Behind each activation stand
    `model.residual` residual blocks.

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
        steps, self.multiply_adds = [], 0

        def add(name: str, layer: nn.Cell) -> None:
            setattr(self, name, layer)
            steps.append(layer)

        count = len(config.filters)
        for number, (filters, padding) in enumerate(zip(widened(config.filters, config.width), config.paddings), 1):
            layer = convolution(channels, filters, padding, config, rng, first=number == 1)
            block = PooledConvolution(layer, channels, config)
            add(f"conv{number}", block)
            self.multiply_adds += multiply_adds(block, sides)
            channels = filters
            sides = [(side + 2 * padding - config.dilation * (config.kernel - 1)) // POOL for side in sides]
            if min(sides) < 1:
                raise InputError(
                    f"lenet5: nothing is left of pictures of {shape[1:]} after convolution {number}. Use larger "
                    "model.image_size or model.paddings, or fewer model.filters."
                )
            if config.convolution != "binary" or (number == count and not config.layers):  # else a sign comes next
                add(f"conv_activation{number}", ACTIVATIONS[config.activation]())
            for i in range(1, config.residual + 1):
                residual = residual_convolutions(channels, config, rng)
                add(f"residual{number}_{i}", residual)
                self.multiply_adds += multiply_adds(residual, sides)
        self.steps = tuple(steps)
        dense_config = replace(config, residual=0)  # the blocks are convolutions here
        self.classifier = MLP(channels * sides[0] * sides[1], class_count, dense_config, rng)
        self.multiply_adds += self.classifier.multiply_adds
        for parameter in self.get_parameters():  # conv1.weight, fc1.weight: as in the zoo
            parameter.name = parameter.name.removeprefix("classifier.").replace(".convolution.", ".")

    def construct(self, x):
        for step in self.steps:
            x = step(x)
        return self.classifier(x)


def widened(counts: list[int], width: float) -> list[int]:
    """Each number of filters or units times model.width."""
    return [max(1, round(count * width)) for count in counts]


def from_scratch(config: ModelConfig, shape: tuple[int, int, int], class_count: int, seed: int) -> nn.Cell:
    """A fresh network for pictures of `shape` (channels, H, W). Two of one seed are equal bit for bit.

    Raises:
        InputError: the layers do not fit the pictures.
    """
    rng = np.random.default_rng(seed)
    if config.network == "mlp":
        return MLP(int(np.prod(shape)), class_count, config, rng)
    return LeNet5(shape, class_count, config, rng)


class ProbabilitiesAndFeatures(nn.Cell):
    """A classifier with a softmax behind it that also shows the features that its head is given."""

    def __init__(self, classifier: Classifier):
        super().__init__(auto_prefix=False)
        self.backbone, self.head = classifier.backbone, classifier.head
        self.softmax = nn.Softmax(axis=-1)

    def construct(self, x):
        features = self.backbone(x)
        return self.softmax(self.head(features)), features


class Probabilities(nn.Cell):
    """Any of these networks with a softmax behind it: what is evaluated and exported."""

    def __init__(self, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        self.softmax = nn.Softmax(axis=-1)

    def construct(self, x):
        return self.softmax(self.network(x))
