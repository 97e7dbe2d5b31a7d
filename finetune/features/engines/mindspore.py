"""Features by MindSpore itself: on every device, and the reference for other engines."""

from __future__ import annotations

import threading

import mindspore as ms
import numpy as np

from datasets.image import normalise
from pretrained.fold import FoldedMobileNetV2, fold
from pretrained.weights import Backbone


class MindSporeEngine:
    """uint8 pictures (B, H, W, 3) -> pooled features float32 (B, D), or the input (B, C, H', W') of block `cut`; one
    compiled graph for all calls."""

    name = "mindspore"
    numeric_class = "f32"
    batch_size = 8  # measured best on CPU for MobileNetV2 at 224

    def __init__(self, backbone: Backbone, cut: int | None = None):
        self.backbone, self.cut = backbone, cut
        self.folded: FoldedMobileNetV2 | None = None  # made at the first call
        self.image = backbone.record.image
        self.one_at_a_time = threading.Lock()  # MindSpore uses all cores for one call

    def __call__(self, images: np.ndarray) -> np.ndarray:
        batch = ms.Tensor(normalise(fill_up(images, self.batch_size), self.image))
        with self.one_at_a_time:
            if self.folded is None:
                blocks, record = fold(self.backbone.network)[: self.cut], self.backbone.record
                how = self.cut is None, record.mirror_mean, record.beside_last
                self.folded = FoldedMobileNetV2(blocks, record.pad_mode, *how)
            return self.folded(batch).asnumpy()[: len(images)]

    def once(self, images: np.ndarray) -> np.ndarray:
        """The same for a few pictures by the network as it was loaded: nothing folded, and no graph compiled first,
        which takes seconds."""
        with self.one_at_a_time:
            mode = ms.get_context("mode")
            ms.set_context(mode=ms.PYNATIVE_MODE)
            try:
                x = ms.Tensor(normalise(images, self.image))
                if self.cut is None:
                    return self.backbone.network(x).asnumpy()
                for block in list(self.backbone.network.features)[: self.cut]:
                    x = block(x)
                return x.asnumpy()
            finally:
                ms.set_context(mode=mode)


def fill_up(images: np.ndarray, batch_size: int) -> np.ndarray:
    """The pictures (B, ...) with black ones behind them up to `batch_size`: one shape, one compiled network."""
    missing = batch_size - len(images)
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images
