"""Networks that are trained: the head on a backbone's features, and both as one network."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn

from pretrained.mobilenet_v2 import MobileNetV2


class Head(nn.Cell):
    """Features (B, D) -> logits (B, C): linear, or with one hidden layer.

    The last layer is called `dense` and starts from N(0, 0.01^2), both as in the model zoo; a hidden layer
    starts from N(0, 2 / inputs) (He et al., 2015). Two heads of one seed are equal bit for bit.
    """

    def __init__(self, feature_size: int, class_count: int, hidden: int = 0, dropout: float = 0.0, seed: int = 1):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.dropout = nn.Dropout(p=dropout) if dropout else None
        self.hidden = dense(feature_size, hidden, rng, scale=(2 / feature_size) ** 0.5) if hidden else None
        self.relu = nn.ReLU()
        self.dense = dense(hidden or feature_size, class_count, rng, scale=0.01)

    def construct(self, x):
        if self.dropout is not None:
            x = self.dropout(x)
        if self.hidden is not None:
            x = self.relu(self.hidden(x))
        return self.dense(x)


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


class Probabilities(nn.Cell):
    """Any of these networks with a softmax behind it: what is evaluated and exported."""

    def __init__(self, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        self.softmax = nn.Softmax(axis=-1)

    def construct(self, x):
        return self.softmax(self.network(x))
