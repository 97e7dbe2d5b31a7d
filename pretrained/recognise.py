"""Arrays by anybody's names -> the parameters of our backbone: by which scheme, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import InputError
from pretrained.names import SCHEMES, Scheme, to_our_layout, zoo
from pretrained.shapes import LAST, STAGE_OF, STAGES, channels_of, width_of

COUNTER = "num_batches_tracked"
PARAMETERS = len(SCHEMES[0].table())
SHOWN = 6  # names, of a network that is none


@dataclass(frozen=True)
class Recognised:
    """The backbone's arrays by our names, in our layout; names of the backbone that are in no table keep theirs."""

    scheme: Scheme
    prefix: str  # what stood before all names of the network
    arrays: dict[str, np.ndarray]
    left_out: dict[str, int]  # what for people -> how many
    channels: tuple[int | None, ...]  # as `pretrained.shapes.channels_of` orders them
    width: float | None  # with these channels

    def __str__(self) -> str:
        """For the log."""
        behind = f" behind {self.prefix!r}" if self.prefix else ""
        left = ", ".join(f"{count} of {what}" for what, count in self.left_out.items())
        return f"names of {self.scheme.name}{behind}" + (f"; left out: {left}" if left else "")

    @property
    def folded(self) -> bool:
        """Whether every BatchNorm was folded into the convolution before it: then it must never be trained."""
        norms = [name for name in self.arrays if name.endswith(".moving_mean")]
        gammas = (self.arrays.get(name.replace("moving_mean", "gamma")) for name in norms)
        return not any(self.arrays[name].any() for name in norms) and all(
            g is not None and (g == 1).all() for g in gammas
        )


def recognise(path: Path, arrays: dict[str, np.ndarray]) -> Recognised:
    """The scheme that most of the names belong to.

    Raises:
        InputError: fewer than half of a MobileNetV2's parameters are there under any scheme's names.
    """
    found, scheme, prefix = max((best_prefix(scheme, arrays) for scheme in SCHEMES), key=lambda best: best[0])
    if found < PARAMETERS // 2:
        raise InputError(another_network(path, arrays, scheme, found))
    table, ours = scheme.table(), {}
    left_out: Counter[str] = Counter()
    for name, array in arrays.items():
        own = name.removeprefix(prefix).replace("depthwise_kernel", "kernel") if name.startswith(prefix) else ""
        if own in table:
            turned = to_our_layout(array, own) if scheme.tensorflow and array.ndim == 4 else array
            ours[table[own]] = turned.astype(np.float32) if array.dtype.kind in "fiu" else turned
        elif name.endswith(COUNTER):
            left_out["BatchNorm's counters"] += 1
        elif is_classifier(name, scheme):
            left_out["the classifier"] += 1
        elif own.startswith(scheme.of_backbone):
            ours[name] = array
        else:
            left_out["a training's state" if of_training(name, array, table) else "other layers"] += 1
    channels = channels_in(ours)
    return Recognised(scheme, prefix, ours, dict(left_out), channels, width_of(channels))


def best_prefix(scheme: Scheme, arrays: dict[str, np.ndarray]) -> tuple[int, Scheme, str]:
    """(how many parameters are there, scheme, prefix): the most, then averaged weights (EMA), then the shortest."""
    table = scheme.table()
    (stem, *_), between = table, "/" if scheme.tensorflow else "."
    names = {name.replace("depthwise_kernel", "kernel") for name in arrays}
    prefixes = {name.removesuffix(stem) for name in names if name.endswith(stem)}
    prefixes = {prefix for prefix in prefixes if not prefix or prefix.endswith(between)} or {""}
    counted = {prefix: sum(prefix + own in names for own in table) for prefix in prefixes}
    prefix = max(counted, key=lambda prefix: (counted[prefix], "ema" in prefix.lower(), -len(prefix), prefix))
    return counted[prefix], scheme, prefix


def is_classifier(name: str, scheme: Scheme) -> bool:
    """Whatever stands before it: a head lies beside the backbone as often as in it."""
    layer = name.replace("/", ".").rpartition(".")[0]
    return any(layer == head or layer.endswith(f".{head}") for head in scheme.classifiers)


def of_training(name: str, array: np.ndarray, parameters: Iterable[str]) -> bool:
    """State of an optimizer is named after its parameter (`moments.conv1.weight`), and a counter (`learning_rate`) is a
    single number of no layer."""
    return (array.size <= 1 and "." not in name) or any(
        name.endswith(f".{own}") or name.endswith(f"/{own}") for own in parameters
    )


def channels_in(arrays: dict[str, np.ndarray]) -> tuple[int | None, ...]:
    last_blocks = [max(block for block, (at, _) in STAGE_OF.items() if at == stage) for stage in range(len(STAGES))]
    places = [(0, "stem"), *((block, "project") for block in last_blocks), (LAST, "last")]
    kernels = (arrays.get(f"{zoo(*place)[0]}.weight") for place in places)
    return tuple(kernel.shape[0] if kernel is not None and kernel.ndim == 4 else None for kernel in kernels)


def advice(found: Recognised) -> str:
    """What the differences to a MobileNetV2 mean, and what to do."""
    unknown = [name for name in found.arrays if name not in found.scheme.table().values()]
    if found.scheme.name == "timm" and any(
        name.removeprefix(found.prefix).startswith("blocks.1.2.") for name in unknown
    ):
        return (
            "It is deeper than MobileNetV2, as timm's mobilenetv2_110d and mobilenetv2_120d are: another network. "
            "Take timm's mobilenetv2_100 or mobilenetv2_140."
        )
    if found.width is None:
        return (
            f"Its channels {found.channels} are those of no width of MobileNetV2 (1.0 has {channels_of(1.0)}): it was "
            "pruned, or is another network (PaddleClas rounds channels otherwise and expands in its first block)."
        )
    behind = f" behind {found.prefix!r}" if found.prefix else ""
    return f"Its names are nearest to those of {found.scheme.name}{behind}. Give a file of a whole MobileNetV2."


def another_network(path: Path, arrays: dict[str, np.ndarray], nearest: Scheme, found: int) -> str:
    names = list(arrays)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    resnet = any("layer4." in name or "conv5_block" in name for name in names)
    what = "a ResNet" if resnet else "another network"
    known = f"Known are the names of {', '.join(scheme.name for scheme in SCHEMES)}"
    near = f"; nearest are those of {nearest.name}, {found} of {PARAMETERS}" if found else ""
    return f"{path}: these are not the weights of a MobileNetV2 but of {what}: {shown}. {known}{near}."
