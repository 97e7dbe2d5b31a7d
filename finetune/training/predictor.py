"""A network as a function of arrays: training, evaluation and export all ask it in the same way."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn

from finetune.training.networks import Classifier, Probabilities, ProbabilitiesAndFeatures
from pretrained.mobilenet_v2 import MobileNetV2

VALUES_AT_ONCE = 2**22  # that go into the network: rows in front of a cut are large


class Predictor:
    """A network as a function: floats (N, ...) -> probabilities (N, C), in order, every row once."""

    def __init__(self, network: nn.Cell, batch_size: int = 1024):
        self.cell = Probabilities(network)
        self.batch_size = batch_size
        self.shape: tuple[int, ...] | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.cell.set_train(False)
        if self.shape != x.shape[1:]:  # one graph for every number of rows
            self.shape = x.shape[1:]
            self.cell.set_inputs(ms.Tensor(shape=[None, *self.shape], dtype=ms.float32))
        at_once = max(1, min(self.batch_size, VALUES_AT_ONCE // max(1, int(np.prod(self.shape)))))
        pieces = [
            self.cell(ms.Tensor(x[start : start + at_once].astype(np.float32, copy=False))).asnumpy()
            for start in range(0, len(x), at_once)
        ]
        return np.concatenate(pieces)


class WithFeatures:
    """A classifier as a function: normalised pictures (B, 3, H, W) -> probabilities (B, C), features (B, D)."""

    def __init__(self, classifier: Classifier):
        self.cell = ProbabilitiesAndFeatures(classifier)
        self.cell.set_train(False)
        self.cell.set_inputs(ms.Tensor(shape=[None, 3, None, None], dtype=ms.float32))  # one graph for any B

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, features = self.cell(ms.Tensor(x))
        return probabilities.asnumpy(), features.asnumpy()


class FeatureMap(nn.Cell):
    def __init__(self, backbone: MobileNetV2):
        super().__init__(auto_prefix=False)
        self.backbone = backbone

    def construct(self, x):
        return self.backbone.forward_map(x)


class LastMap:
    """A backbone as a function: normalised pictures (B, 3, H, W) -> its last feature map (B, D, H/32, W/32)."""

    def __init__(self, backbone: MobileNetV2):
        self.cell = FeatureMap(backbone)
        self.cell.set_train(False)
        self.cell.set_inputs(ms.Tensor(shape=[None, 3, None, None], dtype=ms.float32))  # one graph for any B

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.cell(ms.Tensor(x)).asnumpy()
