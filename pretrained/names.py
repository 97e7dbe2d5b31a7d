"""How each scheme names the parameters of MobileNetV2, as one explicit table each: theirs -> ours.

Ours are those of MindSpore's model zoo. Block 0 is the stem, 1 to 17 are the inverted residuals, of which the first has
no `expand`, and 18 is the last convolution. Each part of a block has a convolution and the BatchNorm behind it. What
stands before all names of a network (`module.`, `backbone.`) is no part of a scheme.

Sources: torchvision/models/mobilenetv2.py, timm/models/efficientnet.py, keras/applications/mobilenet_v2.py,
transformers/models/mobilenet_v2, mindcv/models/mobilenet_v2.py, mmpretrain/models/backbones/mobilenet_v2.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pretrained.shapes import LAST, PARTS, STAGE_OF

OURS = ("gamma", "beta", "moving_mean", "moving_variance")
TORCH = ("weight", "bias", "running_mean", "running_var")


def zoo(block: int, part: str) -> tuple[str, str]:
    """(convolution, BatchNorm) of a place, as every function here."""
    if block in (0, LAST):
        return f"features.{block}.features.0", f"features.{block}.features.1"
    inner = PARTS[block].index(part)
    if part == "project":
        return f"features.{block}.conv.{inner}", f"features.{block}.conv.{inner + 1}"
    return f"features.{block}.conv.{inner}.features.0", f"features.{block}.conv.{inner}.features.1"


def torchvision(block: int, part: str) -> tuple[str, str]:
    if block in (0, LAST):
        return f"features.{block}.0", f"features.{block}.1"
    inner = PARTS[block].index(part)
    if part == "project":
        return f"features.{block}.conv.{inner}", f"features.{block}.conv.{inner + 1}"
    return f"features.{block}.conv.{inner}.0", f"features.{block}.conv.{inner}.1"


def timm(block: int, part: str) -> tuple[str, str]:
    if block == 0:
        return "conv_stem", "bn1"
    if block == LAST:
        return "conv_head", "bn2"
    stage, inner = STAGE_OF[block]
    names = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    if block == 1:
        names = {"depthwise": "conv_dw", "project": "conv_pw"}
    at = f"blocks.{stage}.{inner}"
    return f"{at}.{names[part]}", f"{at}.bn{list(names).index(part) + 1}"


def mindcv(block: int, part: str) -> tuple[str, str]:
    if block == 0:
        return "features.0", "features.1"
    if block == LAST:
        return "features.20", "features.21"
    inner = 3 * PARTS[block].index(part)
    return f"features.{block + 2}.layers.{inner}", f"features.{block + 2}.layers.{inner + 1}"


def keras(block: int, part: str) -> tuple[str, str]:
    if block == 0:
        return "Conv1", "bn_Conv1"
    if block == LAST:
        return "Conv_1", "Conv_1_bn"
    at = "expanded_conv" if block == 1 else f"block_{block - 1}"
    return f"{at}_{part}", f"{at}_{part}_BN"


def huggingface(block: int, part: str) -> tuple[str, str]:
    names = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    if block == LAST:
        at = "conv_1x1"
    elif block < 2:
        at = f"conv_stem.{'first_conv' if block == 0 else names[part]}"
    else:
        at = f"layer.{block - 2}.{names[part]}"
    return f"{at}.convolution", f"{at}.normalization"


def openmmlab(block: int, part: str) -> tuple[str, str]:
    if block in (0, LAST):
        at = "conv1" if block == 0 else "conv2"
    else:
        stage, inner = STAGE_OF[block]
        at = f"layer{stage + 1}.{inner}.conv.{PARTS[block].index(part)}"
    return f"{at}.conv", f"{at}.bn"


@dataclass(frozen=True)
class Scheme:
    """Names and layout of one family of files."""

    name: str
    place: Callable[[int, str], tuple[str, str]]
    batchnorm: tuple[str, ...]  # as OURS
    classifiers: tuple[str, ...]  # what its head may be called, behind the same prefix
    of_backbone: tuple[str, ...]  # how its parameters begin: a name like that which is in no table is a fault
    tensorflow: bool = False  # names with slashes, kernels (height, width, in, out)

    def table(self) -> dict[str, str]:
        """{their name: ours} of all 260 parameters."""
        between, weight = ("/", "kernel") if self.tensorflow else (".", "weight")
        pairs = {}
        for block, part in ((block, part) for block, parts in PARTS.items() for part in parts):
            (their_conv, their_norm), (conv, norm) = self.place(block, part), zoo(block, part)
            pairs[f"{their_conv}{between}{weight}"] = f"{conv}.weight"
            pairs |= {f"{their_norm}{between}{theirs}": f"{norm}.{ours}" for theirs, ours in zip(self.batchnorm, OURS)}
        return pairs


SCHEMES = (
    Scheme("zoo", zoo, OURS, ("dense", "head.1", "head.classifier", "hidden", "head", "classifier"), ("features.",)),
    Scheme("mindcv", mindcv, OURS, ("classifier.1", "classifier"), ("features.",)),
    Scheme("torchvision", torchvision, TORCH, ("classifier.1", "classifier"), ("features.",)),
    Scheme("timm", timm, TORCH, ("classifier",), ("blocks.", "conv_stem.", "conv_head.", "bn1.", "bn2.")),
    Scheme("keras", keras, OURS, ("predictions", "Logits", "dense"), ("block_", "expanded_conv", "Conv"), True),
    Scheme("huggingface", huggingface, TORCH, ("classifier",), ("conv_stem.", "layer.", "conv_1x1.")),
    Scheme("openmmlab", openmmlab, TORCH, ("head.fc", "fc"), ("conv1.", "conv2.", "layer")),
)


def to_our_layout(kernel: np.ndarray, name: str) -> np.ndarray:
    """A kernel of TensorFlow -> (out, in, height, width).

    Theirs are (height, width, in, out), of a depthwise convolution (height, width, channels, 1).
    """
    return kernel.transpose((2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1))
