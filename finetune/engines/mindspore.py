"""Features by MindSpore itself: on every device, and the reference for other engines."""

from __future__ import annotations

import mindspore as ms
import numpy as np

from pretrained.weights import Backbone


class MindSporeEngine:
    """float32 (B, 3, H, W) -> pooled features float32 (B, D), one compiled graph for all calls."""

    name = "mindspore"
    numeric_class = "f32"
    batch_size = 8  # measured best on CPU for MobileNetV2 at 224

    def __init__(self, backbone: Backbone):
        self.network = backbone.network

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        count = len(batch)
        if count < self.batch_size:
            filler = np.zeros((self.batch_size - count, *batch.shape[1:]), np.float32)
            batch = np.concatenate([batch, filler])
        return self.network(ms.Tensor(batch)).asnumpy()[:count]
