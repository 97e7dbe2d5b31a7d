"""The model zoo's way, in stock MindSpore without the kernel guard: unpooled 7x7 features, a file a batch.

The guard is a matter of the environment: run.py starts this script without it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from benchmarks.contest import arguments, time_extraction
from datasets.image import load_images, normalise
from pretrained.weights import load_backbone

BATCH_SIZE = 16


class FeatureMap(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, x):
        return self.network.forward_map(x)


if __name__ == "__main__":
    given = arguments()
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    backbone = load_backbone(given.pretrain_ckpt)
    network, spec = FeatureMap(backbone.network).set_train(False), backbone.record.image

    def extract(paths):
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for start in range(0, len(paths), BATCH_SIZE):
                images, _ = load_images(paths[start : start + BATCH_SIZE], spec)
                file = Path(folder, f"feature_{start}.npy")
                np.save(file, network(ms.Tensor(normalise(images, spec))).asnumpy())
                rows.append(np.load(file).mean((2, 3)))
        return np.concatenate(rows)

    batch = ms.Tensor(np.zeros((BATCH_SIZE, 3, *spec.size), np.float32))
    time_extraction(extract, lambda: network(batch).asnumpy(), given, "zoo", BATCH_SIZE)
