"""Write the trained network as MindIR: pictures (B, ...) -> probabilities (B, C), and novelty (B,) where told."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

from datasets.image import ImageSpec, mean_and_std
from export.key import MODE
from finetune.insight.novelty import LEAST_LENGTH, Novelty
from finetune.trained import Trained
from finetune.training.networks import Classifier, Probabilities, ProbabilitiesAndFeatures
from pretrained.fold import FoldedMobileNetV2, fold


class FromPixels(nn.Cell):
    """uint8 (B, H, W, 3) in RGB -> a network that wants what `datasets.image.normalise` makes of it."""

    def __init__(self, network: nn.Cell, spec: ImageSpec):
        super().__init__(auto_prefix=False)
        self.network = network
        self.mean, self.std = map(ms.Tensor, mean_and_std(spec))

    def construct(self, x):
        x = (x.astype(ms.float32) - self.mean) / self.std
        return self.network(x.transpose(0, 3, 1, 2))


class WithNovelty(nn.Cell):
    """A classifier -> probabilities (B, C), and novelty (B,) of its features as `finetune.insight.novelty` has it."""

    def __init__(self, classifier: Classifier, novelty: Novelty):
        super().__init__(auto_prefix=False)
        self.network = ProbabilitiesAndFeatures(classifier)
        self.mean = ms.Parameter(ms.Tensor(novelty.mean), name="novelty_mean", requires_grad=False)
        self.axes = ms.Parameter(ms.Tensor(novelty.axes), name="novelty_axes", requires_grad=False)
        self.scale = novelty.scale

    def construct(self, x):
        probabilities, features = self.network(x)
        length = ops.maximum((features * features).sum(1, keepdims=True).sqrt(), LEAST_LENGTH)
        d = features / length - self.mean
        along = ops.matmul(d, self.axes)
        return probabilities, self.scale * (d * d).sum(1) - (along * along).sum(1)


def write_mindir(
    trained: Trained,
    path: Path,
    input_form: str,
    batch_size: int | None = None,
    key: bytes | None = None,
    keep_batchnorm: bool = False,
    novelty: Novelty | None = None,
) -> None:
    """`input_form` as in `export.manifest`. `nn.GraphCell` runs the file with `batch_size` pictures; None: any.

    BatchNorm of a backbone is folded into the convolutions before it, which leaves fewer operations; kept, the
    graph has the operations of the training.
    """
    network = trained.network if keep_batchnorm or trained.backbone is None else folded(trained)
    network = Probabilities(network) if novelty is None else WithNovelty(network, novelty)
    channels = trained.image.channels
    inputs = ms.Tensor(shape=[batch_size, channels, *trained.image.size], dtype=ms.float32)
    if input_form == "image":
        network = FromPixels(network, trained.image)
        inputs = ms.Tensor(shape=[batch_size, *trained.image.size, channels], dtype=ms.uint8)
    network.set_train(False)
    with working_in(path.parent):  # ms.export refuses names with spaces or Chinese characters
        encryption = {"enc_key": key, "enc_mode": MODE} if key else {}
        ms.export(network, inputs, file_name=path.name, file_format="MINDIR", **encryption)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)  # MindSpore writes 0400


def folded(trained: Trained) -> nn.Cell:
    backbone = trained.backbone
    blocks, record = fold(backbone.network), backbone.record
    network = FoldedMobileNetV2(blocks, record.pad_mode, True, record.mirror_mean, record.beside_last)
    return Classifier(network, trained.head)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
